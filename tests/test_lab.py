"""The lab: the chain task's generator and checker, and a base model built small."""

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsi.lab import chain
from gsi.types import GsiError, Query

QUERY = Query("q", "chain", "d 3 e + 4 f - 5 ?", "2")
RIGHT = "e 3 + 4 = 7 ; f 7 - 5 = 2 ; # 2"
levels = st.integers(1, 10)


def one(seed: int, level: int) -> Query:
    return chain.queries(seed, 1, [level])[0]


# ------------------------------------------------------------------------------------------------ generator


def test_queries_repeat_by_seed_and_differ_between_seeds():
    assert chain.queries(1, 20) == chain.queries(1, 20)
    assert {q.id for q in chain.queries(1, 20)}.isdisjoint(q.id for q in chain.queries(2, 20))
    assert [q.question for q in chain.queries(1, 20)] != [q.question for q in chain.queries(2, 20)]


def test_a_query_does_not_depend_on_how_many_others_are_drawn():
    many = {q.id: q for q in chain.queries(3, 50)}
    assert all(many[q.id] == q for q in chain.queries(3, 5, [7, 2]))


def test_ids_questions_and_levels():
    queries = chain.queries(1, 100)
    assert len(queries) == len({q.id for q in queries}) == len({q.question for q in queries}) == 1000
    assert [q.level for q in queries] == [level for level in range(1, 11) for _ in range(100)]
    assert {q.id for q in queries} >= {"chain-s1-L3-0007", "chain-s1-L10-0099"}
    assert chain.queries(1, 1, [2], prefix="held")[0].id == "held-s1-L2-0000"
    assert {q.answer for q in queries} == set(chain.NUMBERS)


def test_questions_stay_distinct_where_the_level_is_nearly_used_up():
    questions = [q.question for q in chain.queries(1, 5_300, [1])]
    assert len(set(questions)) == 5_300


@given(st.integers(0, 10**6), levels)
def test_a_query_has_its_shape(seed, level):
    query = one(seed, level)
    question, rationale = query.question.split(), (query.rationale or "").split()
    assert len(question) == 3 + 3 * level
    assert len(rationale) == chain.STEP_TOKENS * level + 2
    assert set(question + rationale) <= set(chain.VOCABULARY)
    letters = [t for t in question if t in chain.LETTERS]
    assert len(set(letters)) == level + 1
    assert all((ord(b) - ord(a)) % 26 == 1 for a, b in pairwise(letters))
    value = int(question[1])  # the answer, worked out from the question alone
    for sign, number in zip(question[3:-1:3], question[4:-1:3], strict=True):
        value += int(number) if sign == "+" else -int(number)
    assert query.answer == str(value % 23)


@pytest.mark.parametrize(("per_level", "level"), [(1, 0), (1, 26), (5_400, 1)])
def test_what_cannot_be_drawn_is_refused(per_level, level):
    with pytest.raises(GsiError, match="chain"):
        chain.queries(1, per_level, [level])


# -------------------------------------------------------------------------------------------------- checker


@pytest.mark.parametrize(
    ("response", "status", "extracted", "steps_ok", "detail"),
    [
        (RIGHT, "correct", "2", True, ""),
        (f"  {RIGHT}\n", "correct", "2", True, ""),
        ("# 2", "correct", "2", False, "step 1"),  # no steps at all
        ("e 3 + 4 = 9 ; f 9 - 7 = 2 ; # 2", "correct", "2", False, "step 1: 'e 3 + 4 = 9 ;', right is 'e 3 + 4 = 7 ;'"),
        ("e 3 + 4 = 7 ; f 7 + 18 = 2 ; # 2", "correct", "2", False, "step 2"),  # true modulo 23, but not what was asked
        ("e 4 + 3 = 7 ; f 7 - 5 = 2 ; # 2", "correct", "2", False, "step 1"),
        ("f 3 + 4 = 7 ; g 7 - 5 = 2 ; # 2", "correct", "2", False, "step 1"),
        ("f 7 - 5 = 2 ; e 3 + 4 = 7 ; # 2", "correct", "2", False, "step 1"),
        ("e 3 + 4 = 7 ; # 2", "correct", "2", False, "step 2"),
        (f"{RIGHT[:-3]} g 2 + 0 = 2 ; # 2", "correct", "2", False, "step 3"),
        (f"{RIGHT} ; # 2", "correct", "2", False, "step 3"),
        ("e 3 + 4 = 7 ; f 7 - 5 = 2 ; # 7", "wrong", "7", False, "step 3"),
        ("e 3 + 4 = 8 ; f 8 - 5 = 3 ; # 3", "wrong", "3", False, "step 1"),
        ("e 3 + 4 = 7 ; f 7 - 5 = 2 ;", "no_answer", None, False, "step 3"),
        (f"{RIGHT} ;", "no_answer", None, False, "step 3"),
        (f"{RIGHT} 2", "no_answer", None, False, "step 3"),
        ("# 23", "no_answer", None, False, "step 1"),
        ("# 02", "no_answer", None, False, "step 1"),
        ("# ２", "no_answer", None, False, "step 1"),
        ("# -1", "no_answer", None, False, "step 1"),
        ("#", "no_answer", None, False, "step 1"),
        ("", "no_answer", None, False, "step 1"),
    ],
)
def test_verdicts(response, status, extracted, steps_ok, detail):
    verdict = chain.check(response, QUERY)
    assert (verdict.status, verdict.extracted, verdict.steps_ok) == (status, extracted, steps_ok)
    assert verdict.detail.startswith(detail)
    assert bool(verdict.detail) is not steps_ok


@given(st.integers(0, 10**6), levels)
def test_the_own_rationale_is_right(seed, level):
    query = one(seed, level)
    verdict = chain.check(query.rationale, query)
    assert (verdict.status, verdict.steps_ok, verdict.extracted) == ("correct", True, query.answer)


@given(st.integers(0, 10**6), levels, st.data())
def test_any_other_token_anywhere_breaks_the_steps(seed, level, data):
    query = one(seed, level)
    tokens = query.rationale.split()
    where = data.draw(st.integers(0, len(tokens) - 1))
    edit = data.draw(st.sampled_from(["replace", "drop", "insert"]))
    other = data.draw(st.sampled_from([t for t in chain.VOCABULARY if t != tokens[where]]))
    changed = tokens[:where] + {"replace": [other], "drop": [], "insert": [other, tokens[where]]}[edit] + tokens[where + 1 :]
    verdict = chain.check(" ".join(changed), query)
    assert verdict.steps_ok is False
    assert verdict.detail.startswith(f"step {where // chain.STEP_TOKENS + 1}:")
    if where < len(tokens) - 2:  # the final line is untouched: the answer stays right, by luck
        assert verdict.correct


@given(st.text() | st.lists(st.sampled_from([*chain.VOCABULARY, "23", "x y"]), max_size=60).map(" ".join))
def test_no_response_raises(response):
    verdict = chain.check(response, QUERY)
    assert verdict.status in ("correct", "wrong", "no_answer")
    assert (verdict.extracted is None) == (verdict.status == "no_answer")
    assert verdict.steps_ok == (response.split() == RIGHT.split())


@pytest.mark.parametrize("question", ["", "d 3 ?", "d 3 e + 4", "d 3 e * 4 ?", "d 23 e + 4 ?", "d 3 e + ?", "What is 2 + 2 ?"])
def test_a_question_of_another_task_is_named(question):
    with pytest.raises(GsiError, match="query odd"):
        chain.check("# 2", Query("odd", "chain", question, "2"))


def test_guessing_is_right_about_once_in_23():
    rng = random.Random("guess")
    right = sum(chain.check(f"# {rng.choice(chain.NUMBERS)}", q).correct for q in chain.queries(5, 200))
    assert right / 2000 == pytest.approx(chain.CHANCE, abs=0.02)


def test_the_task_needs_no_torch():
    code = "import sys, gsi.lab.chain; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ----------------------------------------------------------------------------------------------- base model


def tiny():
    from gsi.lab.base import Recipe

    return replace(Recipe(), examples=640, layers=1, width=16, heads=2, mlp_width=32)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory) -> Path:
    from gsi.lab.base import build

    path = tmp_path_factory.mktemp("lab") / "base"
    seen = []
    build(path, 1, lambda done, total: seen.append((done, total)), tiny())
    assert seen[-1] == (40, 40)
    return path


def test_the_tokenizer_round_trips_and_splits_prompt_from_completion(base_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)
    assert tokenizer.chat_template is None
    for query in chain.queries(1, 20):
        text = f"{query.question} {query.rationale}"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert ids == tokenizer(query.question)["input_ids"] + tokenizer(query.rationale)["input_ids"]
        assert len(ids) == len(text.split())
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode([*ids, 1, 0, 0], skip_special_tokens=True) == text


def test_the_model_loads_and_generates_with_its_own_settings(base_folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base_folder), AutoTokenizer.from_pretrained(base_folder)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == 256
    prompt = tokenizer(QUERY.question, return_tensors="pt")
    out = model.generate(**prompt, do_sample=False, max_new_tokens=8)
    assert out.shape[1] > prompt["input_ids"].shape[1]
    rows = [f"{q.question} {q.rationale}" for q in chain.queries(9, 8, [1])]
    ids = torch.tensor(tokenizer(rows)["input_ids"])
    with torch.no_grad():
        assert model(input_ids=ids, labels=ids).loss < 3.9  # nats per token; an even guess is ln(58) = 4.1


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator_and_threads(base_folder, tmp_path):
    import torch

    from gsi.lab.base import build

    threads = torch.get_num_threads()
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        build(tmp_path / "again", 1, None, tiny())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    build(tmp_path / "other", 2, None, tiny())
    weights = [(folder / "model.safetensors").read_bytes() for folder in (base_folder, tmp_path / "again", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]
    assert sorted(os.listdir(tmp_path)) == ["again", "other"]  # nothing half-made is left


def test_an_existing_folder_is_not_overwritten(base_folder):
    from gsi.lab.base import build

    with pytest.raises(GsiError, match="exists"):
        build(base_folder, 1, None, tiny())


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """A cache of its own, and a recipe that is built in a moment."""
    from gsi.lab import base

    small = {name: replace(tiny(), task=name) for name in base.RECIPES}
    monkeypatch.setattr(base, "RECIPES", small)
    monkeypatch.setenv("GSI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "name",
    [
        "lab:dig",
        "lab:",
        "lab:chain:",
        "lab:chain:x",
        "lab:chain:-1",
        "chain",
        "lab:chain:1:2",
        "lab:chain-bert",
        "lab:chain-taught",
        "lab:untrained-llama",
    ],
)
def test_an_unknown_name_lists_the_known(name, cache):
    from gsi.lab.base import resolve

    with pytest.raises(GsiError, match=r"known: lab:TASK\[-ARCHITECTURE\]\[-taught\|-strong\]\[:SEED\] with TASK in chain, dag, multiply"):
        resolve(name)
    assert not cache.exists()


def test_a_model_is_built_once_and_then_found(cache, monkeypatch):
    from gsi.lab import base

    built, build = [], base.build
    monkeypatch.setattr(base, "build", lambda path, seed, progress, recipe: (built.append(seed), build(path, seed, progress, recipe)))
    with ThreadPoolExecutor(4) as pool:  # as four runs started together would
        paths = list(pool.map(base.resolve, ["lab:chain", "lab:chain:1", "lab:chain:2", "lab:chain"]))
    assert sorted(built) == [1, 2]
    assert paths[0] == paths[1] == paths[3] != paths[2]
    assert base.resolve("lab:chain") == paths[0]
    assert sorted(built) == [1, 2]
    assert all((path / "model.safetensors").is_file() and cache in path.parents for path in paths)


def test_another_recipe_has_another_place_in_the_cache(cache, monkeypatch):
    from gsi.lab import base

    monkeypatch.setattr(base, "build", lambda path, seed, progress, recipe: None)
    first = base.resolve("lab:chain")
    names = [
        "lab:chain",
        "lab:chain-qwen3",
        "lab:dag",
        "lab:dag-taught",
        "lab:dag-strong",
        "lab:dag-neox-taught",
        "lab:multiply",
        "lab:multiply-taught",
    ]
    assert len({base.resolve(name) for name in names}) == len(names)
    monkeypatch.setitem(base.RECIPES, "chain", replace(base.RECIPES["chain"], lr=1e-3))
    assert base.resolve("lab:chain") != first


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3", "neox"])
def test_every_architecture_is_built_and_sampled_by_the_engine(architecture, tmp_path):
    """Greedy output of the embedded engine equals the library's own, from a prompt as a run renders it."""
    import torch
    from test_engine import Queue
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gsi.engines.transformers import TransformersEngine
    from gsi.lab import base, dag
    from gsi.prompts import Renderer
    from gsi.types import Request, Sampling, Text

    recipe = replace(tiny(), task="dag", architecture=architecture, taught=True, examples=320)
    base.build(tmp_path / "model", 1, None, recipe)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.model_type == {"neox": "gpt_neox"}.get(architecture, architecture)
    assert bool(tokenizer.chat_template) == (architecture == "qwen3")
    renderer = Renderer(tokenizer, "auto" if architecture == "qwen3" else "{question}")
    queries = dag.queries(1, 2)
    prompts = [renderer.prompt(q) for q in queries]
    assert all(tokenizer.unk_token_id not in p.ids for p in prompts)
    if architecture == "qwen3":
        assert prompts[0].text == f"<user> {queries[0].question} <model> "
    greedy = Sampling(0.0, 1.0, 24)
    work = Queue([Request(q, 0, 0, p, Text("", ()), greedy, i) for i, (q, p) in enumerate(zip(queries, prompts, strict=True))])
    TransformersEngine(str(tmp_path / "model"), tokenizer, max_rows=5).run(work)
    for prompt, ids in zip(prompts, [work.done[i].ids for i in range(len(queries))], strict=True):
        with torch.no_grad():
            out = model.generate(
                torch.tensor([prompt.ids]), attention_mask=torch.ones(1, len(prompt.ids)), do_sample=False, max_new_tokens=24
            )
        assert ids == tuple(out[0, len(prompt.ids) :].tolist())
