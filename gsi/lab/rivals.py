"""`python -m gsi.lab.rivals STUDY.yaml --arm ARM`: today's other ways to use the same questions, at the FLOPs that an arm of the study spent.

    grpo        TRL's GRPOTrainer, groups of 8, reward 1 where every step is right (arXiv 2402.03300)
    grpo_hint   the same; a group without a right response is drawn again behind half of its reference's steps, which are given and not trained
                (in the spirit of NuRL and Scaf-GRPO, which hint where plain sampling fails)
    sdft        TRL's SDFTTrainer (arXiv 2601.19897): the base, reading the reference, corrects the responses of the model that does not read it;
                starts from the study's base taught to read hints, since others cannot

Each runs on the base, the pool and the fresh questions of the study's cell of the same seed; sampling is by the embedded engine on the live weights, which
draws what `generate` would. One line per run is added to the results; what is there is not run again. FLOPs: 2 per parameter and token read, generated or
scored by a teacher, 6 per trained token, as everywhere, but a prompt counts once for the responses that share its prefill, where an arm's counts each time.
LEARNING_RATE was chosen on seed 2 of the lab, at the FLOPs of `own_prefix` with 12 extras there, by hard accuracy: of 1e-4, 3e-4, 1e-3 and 2e-3 for grpo
(27.2, 31.4, 20.8, 0 %; the base has 21.1), of 1e-4, 3e-4 and 1e-3 for grpo_hint (31.4, 29.7, 19.7), of 1e-5, 1e-4, 3e-4 and 1e-3
for sdft at 1e12 FLOPs (28.3, 29.7, 30.8, 27.2; its base, taught to read hints, has 25.3; with a teacher that follows the model, `ema`, 3e-4 gave 6.4). Temperature 1 and groups of 8
are TRL's own. Tried after that on seeds 1 and 2, at half those FLOPs (`studies/tuning.yaml`, own_search_0.7), temperatures 0.7, 1 and 1.3 gave 24.2, 28.1 and 27.4 % for grpo and 27.2, 26.8 and 25.4 for
grpo_hint, groups of 4, 8 and 16 gave 28.3, 28.1 and 20.4 %, and 26.9, 26.8 and 25.3. sdft draws at 1, as in TRL; no other temperature was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from gsi.config import load_config
from gsi.engines.transformers import TransformersEngine
from gsi.files import write_text
from gsi.guidance.steps import split_steps
from gsi.lab import dag, dag_check, greedy
from gsi.lab.base import resolve
from gsi.lab.command import end
from gsi.lab.matrix import Cell, cells, load_study
from gsi.lab.outcomes import cost
from gsi.lab.rivals_table import read, results
from gsi.lab.study import Results
from gsi.metrics import flops
from gsi.queries import load_data
from gsi.seeds import seed_of
from gsi.types import Completion, GsiError, Query, Request, Sampling, Text

GROUP, BATCH = 8, 128  # responses per question, per optimizer step
LEARNING_RATE = {"grpo": 3e-4, "grpo_hint": 1e-4, "sdft": 3e-4}
LONGEST = 128  # tokens of a response


@dataclass
class Listed:
    """A workload that is known beforehand."""

    left: list[Request]
    done: dict[int, Completion] = field(default_factory=dict)  # by attempt, which here numbers the requests

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        taken, self.left = self.left[:n], self.left[n:]
        return taken or None

    def put(self, request: Request, completion: Completion) -> None:
        self.done[request.attempt] = completion


class Drawing:
    """The engine on the live weights of a trainer, and what it has cost."""

    def __init__(self, base: str, tokenizer: Any, seed: int):
        self.engine = TransformersEngine(base, tokenizer, device="cpu", dtype="float32", max_rows=256)  # where the live weights are
        self.tokenizer, self.seed = tokenizer, seed
        self.round = self.scored = 0
        self._before = dict(self.engine.stats)  # the engine's check of itself is not counted

    def draw(self, model: Any, items: Sequence[tuple[Query, Text, Text]], temperature: float) -> list[Completion]:
        """A response to each (question, prompt, given), in order."""
        self.round += 1
        self.engine.model = model
        model.config.use_cache = True  # trainers switch it off
        sampling = Sampling(temperature, 1.0, LONGEST)
        work = Listed(
            [
                Request(q, self.round, i, prompt, given, sampling, seed_of(self.seed, "rival", self.round, q.id, i))
                for i, (q, prompt, given) in enumerate(items)
            ]
        )
        self.engine.run(work)
        return [work.done[i] for i in range(len(items))]

    def text(self, text: str) -> Text:
        return Text(text, tuple(self.tokenizer(text)["input_ids"])) if text else Text("", ())

    def counted(self, what: str) -> int:
        return int(self.engine.stats[what] - self._before[what])

    def spent(self, trained: int) -> float:
        return flops(self.engine.parameters, self.counted("prefill_tokens") + self.scored, self.counted("decode_tokens"), trained)


def right(query: Query, response: str) -> bool:
    return dag_check.check(response, query).steps_ok is True


def accuracy(model: Any, tokenizer: Any, queries: Sequence[Query]) -> dict[int, float]:
    """Greedy, every step right, by level. Evaluation costs nothing, as in the studies."""
    by_level: dict[int, list[Query]] = defaultdict(list)
    for query in queries:
        by_level[query.level or 0].append(query)
    return {level: greedy.right(model, tokenizer, qs, dag_check.check, LONGEST) / len(qs) for level, qs in sorted(by_level.items())}


def opening(query: Query) -> str:
    """The first half of the reference's steps."""
    steps = split_steps(query.rationale or "")
    return "".join(steps[: len(steps) // 2])


def run(
    rival: str,
    base: str,
    pool: Sequence[Query],
    fresh: Sequence[Query],
    budget: float,
    seed: int,
    rate: float,
    temperature: float,
    group: int = GROUP,
) -> dict[str, Any]:
    """One rival, `group` responses per question, until `budget` FLOPs are spent. Returns accuracies by level before and after, FLOPs, tokens, steps, seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(1)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True).eval()
    before = accuracy(model, tokenizer, fresh)
    drawing = Drawing(base, tokenizer, seed)
    asked = {q.question: q for q in pool}
    trained = 0

    class Budget(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = drawing.spent(trained) >= budget

    def answers(model: Any, prompts: Sequence[str], given: Sequence[str]) -> tuple[list[list[int]], list[list[int]], list[str]]:
        """(prompt ids, generated ids, whole responses)."""
        items = [(asked[p], drawing.text(p), drawing.text(g)) for p, g in zip(prompts, given, strict=True)]
        drawn = drawing.draw(model, items, temperature)
        ids = [list(c.ids or (tokenizer.eos_token_id,)) for c in drawn]
        texts = [str(tokenizer.decode([*(g.ids or ()), *i], skip_special_tokens=True)) for (_, _, g), i in zip(items, ids, strict=True)]
        return [list(p.ids or ()) for _, p, _ in items], ids, texts

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        nonlocal trained
        model = trainer.accelerator.unwrap_model(trainer.model)
        given = [""] * len(prompts)
        prompt_ids, ids, texts = answers(model, prompts, given)
        if rival == "grpo_hint":
            good = [right(asked[p], t) for p, t in zip(prompts, texts, strict=True)]
            failed = [i for i in range(len(prompts)) if not any(good[i // group * group : (i // group + 1) * group])]
            if failed:
                openings = [opening(asked[prompts[i]]) for i in failed]
                _, again, _ = answers(model, [prompts[i] for i in failed], openings)
                for i, text, own in zip(failed, openings, again, strict=True):
                    given[i], ids[i] = text, own
        opened = [list(drawing.text(g).ids or ()) for g in given]
        trained += sum(map(len, ids))
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": [o + i for o, i in zip(opened, ids, strict=True)],
            "logprobs": None,
            "env_mask": [[0] * len(o) + [1] * len(i) for o, i in zip(opened, ids, strict=True)],
        }

    def reward(completions: list[str], prompts: list[str], **kwargs: Any) -> list[float | None]:
        return [float(right(asked[p], c)) for p, c in zip(prompts, completions, strict=True)]

    shared: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "num_generations": group,
        "max_completion_length": LONGEST,
        "temperature": temperature,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "max_steps": 100_000,  # the budget ends it
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as scratch:
        from datasets import Dataset

        if rival == "sdft":
            from trl.experimental.sdft import SDFTConfig, SDFTTrainer

            class Sdft(SDFTTrainer):
                def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
                    nonlocal trained
                    prompts = tokenizer.batch_decode(prompt_ids, skip_special_tokens=True)
                    _, ids, _ = answers(self.accelerator.unwrap_model(self.model), prompts, [""] * len(prompts))
                    trained += sum(map(len, ids))
                    drawing.scored += sum(
                        len(p) + len(drawing.text(asked[t].rationale or "").ids or ()) + len(i)
                        for p, t, i in zip(prompt_ids, prompts, ids, strict=True)
                    )
                    return prompt_ids, ids

            config: Any = SDFTConfig(
                output_dir=scratch,
                distillation_mode="full_logits",
                teacher_prompt_template="solution {privileged_context} {prompt}",
                **shared,
            )
            rows = Dataset.from_list([{"prompt": q.question, "privileged_context": q.rationale} for q in pool])
            trainer: Any = Sdft(model=model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[Budget()])
        else:
            from trl import GRPOConfig, GRPOTrainer

            os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
            config = GRPOConfig(output_dir=scratch, **shared)
            rows = Dataset.from_list([{"prompt": q.question} for q in pool])
            trainer = GRPOTrainer(
                model=model,
                reward_funcs=reward,
                args=config,
                train_dataset=rows,
                processing_class=tokenizer,
                rollout_func=rollout,
                callbacks=[Budget()],
            )
        trainer.train()
        spent = drawing.spent(trained)
        final = trainer.accelerator.unwrap_model(trainer.model).eval()
        final.config.use_cache = True
        after = accuracy(final, tokenizer, fresh)
    seconds = round(time.perf_counter() - started, 1)
    return {
        "before": before,
        "after": after,
        "flops": spent,
        "tokens": drawing.counted("decode_tokens"),
        "trained": trained,
        "steps": trainer.state.global_step,
        "seconds": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Other methods on a study's questions, at the FLOPs that one of its arms spent.")
    parser.add_argument("study")
    parser.add_argument("--arm", required=True, help="whose FLOPs are the budget; its results have to be there")
    parser.add_argument("--rivals", nargs="+", choices=list(LEARNING_RATE), default=["grpo", "grpo_hint"])
    parser.add_argument("--seeds", nargs="+", type=int, help="default: all of the study that have the arm's result")
    parser.add_argument("--learning-rate", type=float, help="instead of the chosen one")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument(
        "--group", type=int, choices=[2, 4, 8, 16, 32], default=GROUP, help="responses per question; a step takes 128 whatever it is"
    )
    parser.add_argument("--results", type=Path, help="default: STUDY-rivals.jsonl beside the study's results")
    args = parser.parse_args()
    study, _ = load_study(args.study)
    found = Results(study.results)
    out = args.results or results(study)
    lines = read(out)
    todo = [
        c for c in cells(study, args.study) if c.arm == args.arm and c.key in found.records and (not args.seeds or c.seed in args.seeds)
    ]
    if not todo:
        raise GsiError(f"{study.results}: no result of arm {args.arm} yet; run gsi study {args.study} first")
    for cell in todo:
        for rival in args.rivals:
            rate = args.learning_rate or LEARNING_RATE[rival]
            name = {"rival": rival, "seed": cell.seed, "learning_rate": rate, "temperature": args.temperature, "group": args.group}
            if any(line.items() >= name.items() for line in lines):
                continue
            line = name | {"arm": args.arm} | _one(rival, cell, cost(found.records[cell.key]), rate, args.temperature, args.group)
            lines.append(line)
            write_text(out, "".join(json.dumps(x, separators=(",", ":")) + "\n" for x in lines))
            before, after = (fmean(v for k, v in line[t].items() if k in dag.HARD_LEVELS) for t in ("before", "after"))
            print(
                f"seed {cell.seed}, {rival} (rate {rate:g}, temperature {args.temperature:g}, groups of {args.group}): hard {before:.1%} -> {after:.1%}, {line['tokens']} tokens, {line['steps']} steps, {line['seconds']:.0f} s",
                flush=True,
            )
    return 0


def _one(rival: str, cell: Cell, budget: float, rate: float, temperature: float, group: int) -> dict[str, Any]:
    data = load_data(load_config(cell.config))
    data.grader.close()
    task = data.train[0].task
    fresh = [q for q in data.test if q.task == task]
    base = resolve(cell.config["model"].replace("lab:dag:", "lab:dag-taught:") if rival == "sdft" else cell.config["model"])
    return run(rival, str(base), data.train, fresh, budget, cell.seed, rate, temperature, group)


if __name__ == "__main__":
    end(main)
