"""For every kind of tokenizer: what a model is trained on is what it sampled, token for token, behind the prompt it was sampled with."""

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import scripted
import tokenizers_of_kinds
from transformers import AutoTokenizer

import gsi
from gsi import trainset
from gsi.config import load_config
from gsi.loop import open_run
from gsi.progress import Reporter
from gsi.train.rows import read_rows
from gsi.types import GsiError, Query

pytestmark = pytest.mark.slow
QUERIES = [
    Query(f"q{i}", "mine", f"  Ann has {i} apples and buys {i} more – how many?\n", str(2 * i), f"She has {i}.\nThen {i} + {i} = {2 * i}.\nThe answer is {2 * i}.", 1 + i % 2)
    for i in range(6)
]  # fmt: skip


def run(folder: Path, kind: str, **changes):
    model = tokenizers_of_kinds.build(folder / "model", kind)
    config = {
        "model": str(model), "output_dir": str(folder / "run"), "iterations": 1, "strategy": "state_reset", "tasks": [{"name": "mine"}],
        "sample": {"k": 24, "wanted": 24, "max_extra": 6, "max_new_tokens": 96, "temperature": 1.0},
        "train": {"kind": "scripted", "function": f"{scripted.HERE}:copy_model"}, "evaluate": {"validation": 2, "perplexity_rows": 0},
    }  # fmt: skip
    gsi.run(config | changes, QUERIES, f"{scripted.HERE}:anything", reporter=Reporter("quiet"))
    with sqlite3.connect(folder / "run" / "ledger.sqlite") as db:
        names = "query_id, attempt, prompt, prompt_ids, response, response_ids, given, given_tokens, correct"
        drawn = db.execute(f"select {names} from rollouts").fetchall()
        evaluated = db.execute("select query_id, prompt, prompt_ids from evaluations").fetchall()
    return AutoTokenizer.from_pretrained(model), drawn, evaluated, folder / "run" / "iter_1" / "train.parquet"


@pytest.mark.parametrize("on_given", [True, False], ids=["given_trained", "given_is_context"])
@pytest.mark.parametrize("kind", tokenizers_of_kinds.KINDS)
def test_the_labels_are_the_sampled_tokens_and_nothing_else(tmp_path, kind, on_given):
    train = {"kind": "scripted", "function": f"{scripted.HERE}:copy_model", "on_given": on_given}
    tokenizer, drawn, evaluated, path = run(tmp_path, kind, train=train)
    stored = {(q, a): rest for q, a, *rest in drawn}
    kept = pq.read_table(path).to_pylist()
    dropped = pq.read_table(path.with_name("dropped.parquet")).to_pylist()
    assert len(kept) + len(dropped) == sum(row[-1] for row in drawn) > 12
    assert {row["reason"] for row in dropped} <= {"empty"}
    labels = read_rows(path)
    guided = 0
    for i, row in enumerate(kept):
        prompt, prompt_ids, response, response_ids, given, given_tokens, _ = stored[row["query_id"], row["attempt"]]
        prompt_ids, response_ids = json.loads(prompt_ids), json.loads(response_ids)
        assert row["input_ids"] == prompt_ids + response_ids, "the very ids that were read and drawn"
        assert row["input_ids"][-1] == tokenizer.eos_token_id
        assert row["input_ids"].count(tokenizer.eos_token_id) == 1 + prompt_ids.count(tokenizer.eos_token_id)
        trained = [t for t in labels[i]["labels"].tolist() if t != -100]
        assert trained == response_ids[0 if on_given else given_tokens :]
        text = tokenizer.decode(trained[:-1], skip_special_tokens=True)  # a random model draws any token
        assert text == (response if on_given or not given else tokenizer.decode(response_ids[given_tokens:-1], skip_special_tokens=True))
        assert "Ann has" in prompt
        assert "apples and buys" not in text, "nothing of the prompt"
        bos = tokenizer.bos_token_id
        assert bos is None or (prompt_ids[0] == bos and prompt_ids.count(bos) == 1)
        guided += bool(given)
    assert guided
    assert evaluated
    questions = {q.id: q.question for q in QUERIES}
    from gsi.prompts import Renderer

    renderer = Renderer(tokenizer)
    for query_id, prompt, ids in evaluated:
        again = renderer.prompt(Query(query_id, "mine", questions[query_id], ""))
        assert (again.text, list(again.ids)) == (prompt, json.loads(ids)), "evaluation reads prompts as sampling does"


def test_a_template_that_writes_another_prompt_than_was_sampled_is_refused(tmp_path):
    """A date in the template, a library update: the stored tokens no longer stand behind the prompt they were drawn from."""
    run(tmp_path, "chat")
    config = load_config(tmp_path / "run" / "config.yaml")
    with open_run(config, QUERIES, f"{scripted.HERE}:anything", reporter=Reporter("quiet")) as ctx:
        ctx.tokenizer.chat_template = "{{ 'Today is Monday. ' }}" + ctx.tokenizer.chat_template
        with pytest.raises(GsiError, match=r"query q\d.*the prompt is rendered differently now"):
            trainset.curate_rows(ctx, 1)
    file = tmp_path / "model" / "chat_template.jinja"
    file.write_text("{{ 'Today is Monday. ' }}" + file.read_text())
    with pytest.raises(GsiError, match="is not the model that this run began with"):  # where it is the file, it is found at once
        open_run(config, QUERIES, f"{scripted.HERE}:anything", reporter=Reporter("quiet")).__enter__()


def test_a_template_that_rewrites_the_question_once_it_is_answered_does_no_harm(tmp_path):
    """Templates that strip thinking or mark the last turn render [user, assistant] unlike [user]; stored ids never meet them."""
    model = tokenizers_of_kinds.build(tmp_path / "model", "chat")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% if messages[-1]['role'] == 'assistant' %}ANSWERED {% endif %}" + tokenizers_of_kinds.CHAT
    from gsi.curate import reference_examples
    from gsi.prompts import Renderer

    for example in reference_examples(QUERIES, Renderer(tokenizer), "warm_start", 999).examples:
        trained = [t for t, m in zip(example.input_ids, example.loss_mask, strict=True) if m]
        assert tokenizer.decode(trained[:-1]) == example.completion
        assert "ANSWERED" not in tokenizer.decode(example.input_ids)
