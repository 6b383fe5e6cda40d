"""Own questions, own checker, own model:  python examples/quickstart.py [MODEL]"""

import sys

import gsi


def check(response: str, query: gsi.Query) -> bool:
    return response.split()[-1:] == [query.answer]


if __name__ == "__main__":
    queries = [gsi.Query(f"add-{a}-{b}", "add", f"d {a} e + {b} ?", str(a + b)) for a in range(12) for b in range(1, 8)]
    result = gsi.run(
        {
            "model": sys.argv[1] if len(sys.argv) > 1 else "lab:chain",  # any causal LM: a directory or a hub id
            "output_dir": "runs/quickstart",
            "iterations": 2,
            "strategy": "brute_force",
            "tasks": [{"name": "add"}],
            "prompt": {"template": "{question}"},
            "sample": {"max_extra": 8, "max_new_tokens": 32},
            "train": {"learning_rate": 1e-4, "batch_size": 16},
        },
        queries,
        check,
    )
    print(result.path, [line.get("eval/add/pass@1") for line in result.metrics])
