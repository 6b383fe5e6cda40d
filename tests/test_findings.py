"""The findings: every number from compact results whose contrasts are known beforehand."""

import json
import math
import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from gsi.cli import main
from gsi.lab import dag, findings
from gsi.lab.matrix import Contrast, load_study
from gsi.lab.outcomes import accepted_per_ktoken, contrast, cost, cost_to_reach, tables
from gsi.lab.study import Results
from gsi.tasks import TASKS

LEVELS = range(1, 11)  # of chain; 7 to 10 are hard


def iteration(n, hard, easy=0.9, share=0.4, flops=1e9):
    levels = {str(level): [100, round(100 * (hard if level > 6 else easy)), 50] for level in LEVELS}
    found = {"tests": {"chain": {"levels": levels, "items": "4:f"}}}
    if n:
        rows = {str(level): round(1200 * share / 4) if level > 6 else round(1200 * (1 - share) / 6) for level in LEVELS}
        found |= {
            "sample": {str(level): [10, 5, 4, 2, 500, 1] for level in LEVELS},
            "kinds": {},
            "accepted": {"n": 10, "identical": 1, "guided": 4, "guided_identical": 1, "texts": 5, "own_share": 0.5},
            "solved": "4:f",
            "rows": {"levels": rows, "tokens": 1000, "references": 0, "steps": 10},
            "flops": flops,
            "tail": {"tail/coverage": 0.8},
        }
    return found


def run(accuracies, share=(0.3, 0.3), flops=1e9):
    """A record with hard accuracy `accuracies` at iterations 0, 1, 2."""
    first, *later = accuracies
    made = [iteration(0, first), *(iteration(n + 1, a, share=s, flops=flops) for n, (a, s) in enumerate(zip(later, share, strict=True)))]
    return {
        "seconds": 3.0,
        "study": "old",
        "code": "new",
        "iterations": made,
        "parameters": 1,
        "pool": {str(level): 10 for level in LEVELS},
    }


def study(tmp_path, name, records, model="llama", seeds=(1, 2, 3), **changes):
    data = {
        "name": name,
        "output_dir": str(tmp_path / name),
        "results": str(tmp_path / f"{name}.jsonl"),
        "seeds": list(seeds),
        "models": {model: "base"},
        "tasks": {"chain": {"tasks": [{"name": "chain", "args": {"seed": "{seed}", "per_level": 4, "levels": [1, 2]}}]}},
        "strategies": ["vanilla", "state_reset"],
        "contrasts": [{"a": "state_reset", "b": "vanilla", "margin": 0.02}],
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    lines = [{"key": f"{model}/chain/s{seed}/{arm}", "mark": "m"} | record for (arm, seed), record in records.items()]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def records():
    found = {}
    for seed, gain in ((1, 0.04), (2, 0.05), (3, 0.06)):
        found["vanilla", seed] = run((0.1, 0.2, 0.3), share=(0.2, 0.3))
        found["state_reset", seed] = run((0.1, 0.2 + gain, 0.3 + gain), flops=2e9)
    return found


def table_of(path):
    loaded, _ = load_study(path)
    return tables(loaded, Results(loaded.results))[0]


def test_a_contrast_three_ways_with_its_interval_and_verdict(tmp_path, records):
    for seed in (1, 2, 3):
        records["equal:vanilla", seed] = run((0.1, 0.2, 0.25))
        records["equal:state_reset", seed] = run((0.1, 0.2, 0.26))
    path = study(tmp_path, "three", records)
    table = table_of(path)
    found = contrast(table, Contrast(a="state_reset", b="vanilla"))
    assert found["as is"].values == pytest.approx([0.04, 0.05, 0.06])
    # vanilla's cost, 2e9, is spent by state_reset after its first iteration
    assert cost(table.arms["vanilla"][1]) == 2e9
    assert found["equal cost"].values == pytest.approx([0.24 - 0.3, 0.25 - 0.3, 0.26 - 0.3])
    assert found["equal tokens and steps"].values == pytest.approx([0.01] * 3)
    text = findings.write([path])
    assert "| state_reset - vanilla | hard_accuracy | as is | +5.0 [2.5, 7.5] | 0.250 | > 2 | yes | 3 |" in text
    assert "| state_reset - vanilla | hard_accuracy | equal cost | -5.0 [-7.5, -2.5] | 0.250 | > 2 | no | 3 |" in text
    # hard share by iteration, the first less that of the queries (40 %), and its slope
    assert "| vanilla | 20.0 | 30.0 | -20.0 [-20.0, -20.0] | +10.0 [10.0, 10.0] | 0.250 |" in text
    assert "\n| vanilla | 50.0 | 50.0 |\n" in text  # 5 different texts of 10 accepted responses
    assert "missing" not in text


def test_arms_of_fewer_iterations_stand_beside_longer_ones(tmp_path, records):
    for seed in (1, 2, 3):
        records["state_reset", seed]["iterations"].append(iteration(3, 0.5, share=0.5))
    text = findings.write([study(tmp_path, "long", records)])
    assert "| vanilla | 20.0 | 30.0 | - | -20.0" in text
    assert "| vanilla | 10.0 | 20.0 | 30.0 | - | +10.0" in text


def test_no_verdict_before_all_seeds_are_in(tmp_path, records):
    del records["state_reset", 3]
    text = findings.write([study(tmp_path, "part", records)])
    assert "**Unfinished: 1 runs are missing, so no contrast is decided.**" in text
    assert "| > 2 | open (2 of 3) | 2 |" in text
    assert "**Not run yet.**" in findings.write([study(tmp_path, "none", {})])


def test_what_another_arms_accuracy_costs_and_what_a_token_yields(tmp_path, records):
    for seed in (1, 2, 3):
        records["brute", seed] = run((0.1, 0.15, 0.2), flops=4e9)
    table = table_of(study(tmp_path, "costs", records, arms={"brute": {"strategy": "brute_force"}}))
    record = table.arms["vanilla"][1]  # 0.1, 0.2, 0.3 for 0, 1e9, 2e9
    assert cost_to_reach(table, record, 0.1, "hard") == 0
    assert cost_to_reach(table, record, 0.25, "hard") == pytest.approx(1.5e9)
    assert cost_to_reach(table, record, 0.31, "hard") == math.inf
    # 5 plain ones and 2 guided, half of whose tokens were given, for 500 tokens
    assert accepted_per_ktoken(table, record) == pytest.approx(1000 * 6 / 500)
    text = findings.write([str(tmp_path / "costs.yaml")])
    assert "| vanilla | 12.00 | 12.5 (3 of 3) |" in text  # 1e9 of the 8e9 that brute spent
    assert "| brute | 12.00 | 100.0 (3 of 3) |" in text


def test_a_contrast_whose_arms_have_not_run_is_said_so_and_opponents_meet_on_common_seeds(tmp_path, records):
    path = study(tmp_path, "early", {k: r for k, r in records.items() if k[0] == "vanilla"})
    assert "| state_reset - vanilla | hard_accuracy | - | - | - | > 2 | not run | 0 |" in findings.write([path])
    del records["state_reset", 1], records["state_reset", 2]
    records["vanilla", 1] = records["vanilla", 2] = run((0.8, 0.9, 0.9))  # easy seeds that the other arm has not run yet
    for seed in (1, 2, 3):
        records["brute_force", seed] = run((0.1, 0.2, 0.25))
    path = study(tmp_path, "uneven", records, strategies=["vanilla", "state_reset", "brute_force"])
    found = contrast(table_of(path), Contrast(a="brute_force", b="vanilla|state_reset"))["as is"]
    assert (found.against, list(found.differences)) == ("state_reset", [3])  # on seed 3, which all have, it is ahead of vanilla


def test_the_strongest_opponent_counts(tmp_path, records):
    for seed in (1, 2, 3):
        records["brute_force", seed] = run((0.1, 0.2, 0.4))
    changes = {"strategies": ["vanilla", "state_reset", "brute_force"], "contrasts": [{"a": "state_reset", "b": "vanilla|brute_force"}]}
    assert "| state_reset - best of vanilla, brute_force (brute_force) |" in findings.write([study(tmp_path, "best", records, **changes)])


def test_the_strongest_opponent_is_chosen_at_equal_cost_anew(tmp_path, records):
    """brute_force ends highest, but where state_reset's cost ends the cheap one is ahead of it."""
    for seed in (1, 2, 3):
        records["brute_force", seed] = run((0.1, 0.2, 0.4), flops=9e9)
        records["state_reset", seed] = run((0.1, 0.3, 0.5), flops=2e9)
    changes = {"strategies": ["vanilla", "state_reset", "brute_force"], "contrasts": [{"a": "state_reset", "b": "vanilla|brute_force"}]}
    path = study(tmp_path, "ways", records, **changes)
    found = contrast(table_of(path), Contrast(a="state_reset", b="vanilla|brute_force"))
    assert {way: compared.against for way, compared in found.items()} == {"as is": "brute_force", "equal cost": "vanilla"}
    assert found["equal cost"].values == pytest.approx([0.0] * 3)
    text = findings.write([path])
    assert "best of vanilla, brute_force (brute_force) | hard_accuracy | as is |" in text
    assert "best of vanilla, brute_force (vanilla) | hard_accuracy | equal cost |" in text


def test_a_contrast_names_only_the_opponents_that_it_was_compared_with(tmp_path, records):
    """Equal tokens were run for vanilla and not for brute_force."""
    for seed in (1, 2, 3):
        records["brute_force", seed] = run((0.1, 0.2, 0.25))
        records["equal:state_reset", seed] = run((0.1, 0.2, 0.5))
        records["equal:vanilla", seed] = run((0.1, 0.2, 0.3))
    changes = {"strategies": ["vanilla", "state_reset", "brute_force"], "contrasts": [{"a": "state_reset", "b": "vanilla|brute_force"}]}
    text = findings.write([study(tmp_path, "some", records, **changes)])
    assert "| state_reset - best of vanilla, brute_force (vanilla) | hard_accuracy | as is |" in text
    assert (
        "| state_reset - best of vanilla (vanilla); without brute_force, not run so | hard_accuracy | equal tokens and steps | +20.0"
        in text
    )


def test_every_difference_stands_beside_the_contrasts(tmp_path, records):
    for seed in (1, 2, 3):
        records["brute", seed] = run((0.1, 0.2, 0.2), flops=4e9)
        records["sft_refs_hard", seed] = run((0.1, 0.2, 0.1))
    del records["sft_refs_hard", 3]
    changes = {"strategies": ["vanilla", "state_reset", "sft_refs_hard"], "arms": {"brute": {"strategy": "brute_force"}}}
    text = findings.write([study(tmp_path, "all", records, **changes)])
    hard, at_cost, easy = re.findall(r"^\| arm \| less vanilla \| less brute \| less sft_refs_hard \|\n(?:\|.*\n)+", text, re.MULTILINE)
    assert "| state_reset (rationale) | +5.0 [2.5, 7.5] | +15.0 [12.5, 17.5] | +24.5 [18.1, 30.9] (2) |" in hard
    assert (
        "| state_reset (rationale) | -5.0 [-7.5, -2.5] | +15.0 [12.5, 17.5] |" in at_cost
    )  # both iterations cost as much as brute's first
    assert "| brute | +0.0 [0.0, 0.0] |  | +0.0 [0.0, 0.0] (2) |" in easy


def test_chance_is_exact_and_not_counted(tmp_path, records):
    assert "Chance, hard, answers only: 4.3 % (a guess among all possible answers)." in findings.write([study(tmp_path, "chain", records)])
    assert [TASKS[name].chance(level) for name, level in (("dag", 8), ("dag_long", 9), ("multiply", 1), ("multiply", 3))] == [
        1 / 23,
        1 / 23,
        1 / 9,
        1 / 900,
    ]
    assert TASKS["gsm_symbolic"].chance is None
    # the answers that are possible are as many as it says, and none of them is everywhere
    answers = Counter(q.answer for q in dag.queries(1, per_level=400, levels=[6]))
    assert set(answers) == set(map(str, range(23)))
    assert max(answers.values()) < 2.5 * 400 / 23


def test_what_lies_in_the_same_file_and_belongs_to_another_study_is_not_counted(tmp_path, records):
    records = {key: record | {"seconds": 3600.0} for key, record in records.items()}
    for seed in (1, 2, 3):
        records["brute_force", seed] = records["vanilla", seed] | {"study": "foreign"}
        records["pass:vanilla", seed] = {"seconds": 3600.0, "study": "foreign", "draws": 4, "right": [1], "levels": [1]}
    text = findings.write([study(tmp_path, "own", records)])
    assert "(results made under old, by the code new); 6 cells, 6.0 core-hours." in text


def test_figures_leave_no_arm_out(tmp_path, records):
    names = [f"arm_{i}" for i in range(8)]
    for name in names:
        for seed in (1, 2, 3):
            records[name, seed] = run((0.1, 0.2, 0.3))
    path = study(tmp_path, "many", records, arms={name: {"strategy": "vanilla"} for name in names})
    text = findings.write([path], "", tmp_path / "images", tmp_path)
    shown = [(tmp_path / file).read_text() for _, file in re.findall(r"!\[(.+?)\]\((.+?)\)", text)]
    assert all(svg.count('"clip0"') == 1 for svg in shown if "clip" in svg)  # counted in each file anew
    for kind in ("by iteration", "by cost"):
        drawn = [svg for svg in shown if kind in svg]
        assert len(drawn) == 2
        assert all(any(f">{name}<" in svg for svg in drawn) for name in ("vanilla", "state_reset", *names))


def test_the_line_for_scripts(tmp_path, records):
    path = study(tmp_path, "line", records)
    done = subprocess.run([sys.executable, "-m", "gsi.lab.summary", path], capture_output=True, text=True, check=True)
    line = json.loads(done.stdout)
    assert list(line) == ["vanilla", "state_reset"]
    assert line["state_reset"] == {
        "accuracy": pytest.approx(0.6 * 0.9 + 0.4 * 0.35),
        "hard_accuracy": pytest.approx(0.35),
        "hard_share": pytest.approx(0.3),
        "coverage": pytest.approx(0.8),
        "tokens": 2 * 10 * 500,
        "cost": 4e9,
    }


def test_an_equal_cost_that_ends_before_a_model_is_there_is_marked(tmp_path, records):
    """vanilla's 2e9 end inside the 9e9 of brute_force's first iteration."""
    for seed in (1, 2, 3):
        records["brute_force", seed] = run((0.1, 0.2, 0.4), flops=9e9)
    changes = {"strategies": ["vanilla", "state_reset", "brute_force"], "contrasts": [], "beside": {"state_reset": "brute_force"}}
    text = findings.write([study(tmp_path, "marked", records, **changes)])
    assert re.search(r"\| brute_force - vanilla \| \+10.0 \[10.0, 10.0\] \| -17.8 \[-17.8, -17.8\]† \|", text)
    assert "| state_reset (rationale) - brute_force |" in text
    assert "† For some seeds the cost ends inside the dearer arm's first iteration" in text
    assert "†" not in findings.write([study(tmp_path, "unmarked", records, contrasts=[])])


def test_a_closed_study_runs_nothing_and_decides_nothing(tmp_path, records, capsys):
    del records["state_reset", 3]
    path = study(tmp_path, "closed", records, closed="a better one took its place")
    before = (tmp_path / "closed.jsonl").read_bytes()
    assert main(["study", path]) == 0
    assert "is closed: a better one took its place; nothing is run" in capsys.readouterr().out
    assert main(["study", path, "--dry-run"]) == 0
    assert "is closed" in capsys.readouterr().out
    assert (tmp_path / "closed.jsonl").read_bytes() == before
    assert "**Closed: a better one took its place. 1 runs are missing, so no contrast is decided.**" in findings.write([path])


def test_the_same_contrast_over_models_and_figures_beside_the_text(tmp_path, records):
    paths = [study(tmp_path, "one", records), study(tmp_path, "two", records, model="neox")]
    text = findings.write(paths, "# Findings", tmp_path / "docs" / "images", tmp_path / "docs")
    assert text.startswith("# Findings\n")
    table = text.partition("## Agreement")[2]
    assert "| where | state_reset - vanilla |" in table
    assert re.findall(r"\| \w+, (\w+) \((\w+)\) \| \+5\.0 \[2\.5, 7\.5\] \(3\)", table) == [("llama", "one"), ("neox", "two")]
    shown = re.findall(r"!\[(.+?)\]\((.+?)\)", text)
    assert len(shown) == 6
    for caption, path in shown:
        svg = (tmp_path / "docs" / path).read_text()
        assert svg.startswith("<svg")
        assert caption in svg
    assert "## Agreement" not in findings.write(paths[:1])


def test_differences_by_what_the_initial_model_solves(tmp_path, records):
    """Two studies of ten seeds each, one whose bases solve 5 % of the hard questions and one with 50 %."""
    contrasts = [{"a": "own", "b": "vanilla|brute"}]
    arms = {"own": {"strategy": "own_prefix"}, "brute": {"strategy": "brute_force"}}
    paths = []
    for name, base, gain, epochs in (("tail", 0.05, 0.3, 3), ("none", 0.5, 0.01, 6)):
        config = {"train": {"kind": "scripted", "epochs": epochs, "learning_rate": 1e-3}}
        made = {}
        for seed in range(10):
            made["vanilla", seed] = run((base, base, base))
            made["brute", seed] = run((base, base, base + 0.02))
            made["own", seed] = run((base, base, base + 0.02 + gain))
        paths.append(study(tmp_path, name, made, seeds=range(10), arms=arms, strategies=["vanilla"], contrasts=contrasts, config=config))
    text = findings.write(paths, "", tmp_path / "images", tmp_path)
    assert "points [95 %] (seeds). Trained otherwise than the rest: `none` (epochs 6)." in text
    table = text.partition("### chain, by what the initial model solves")[2]
    assert "| initial model, hard, % | 0 to 10 | 10 to 20 | 20 to 30 | 30 to 45 | 45 to 100 |" in table
    assert "| own - vanilla | +32.0 [32.0, 32.0] (10) | - | - | - | +3.0 [3.0, 3.0] (10) |" in table
    assert "| own - brute | +30.0 [30.0, 30.0] (10) | - | - | - | +1.0 [1.0, 1.0] (10) |" in table
    assert "![chain: own - brute](images/findings-by-base-chain.svg)" in table
    assert "<svg" in (tmp_path / "images" / "findings-by-base-chain.svg").read_text()
    assert "by what the initial model solves" not in findings.write(paths[:1])  # ten seeds are too few for it
