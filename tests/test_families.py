"""Tiny models of the families' architectures with a tokenizer made here and the family's own kind of template."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import transformers as t
from tokenizers import processors
from tokenizers_of_kinds import byte_level, sentencepiece

import gsi
from gsi import advice, metrics
from gsi.allocation import Fixed
from gsi.config import ConfigError, load_config
from gsi.config.engines import TransformersEngine
from gsi.curate import curate
from gsi.engines.transformers import TransformersEngine as Embedded
from gsi.guidance.state_reset import StateReset
from gsi.ledger import Ledger
from gsi.presets import PRESETS
from gsi.progress import Reporter
from gsi.prompts import Renderer
from gsi.sampling import Sampler
from gsi.strategies import PAPER
from gsi.types import GsiError, Query, Sampling
from gsi.verify import make_grader

SMOLLM3 = (  # of its kind: a system turn that states the mode, an empty section where thinking is off
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{{ '<|start|>system\nReasoning Mode: ' + ('/think' if enable_thinking else '/no_think') + '<|end|>\n' }}"
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' + ('' if enable_thinking else '<think>\n\n</think>\n') }}{% endif %}"
)


def template(name: str) -> str:
    return files("trl").joinpath("chat_templates", f"{name}.jinja").read_text()


def tokenizer(family: str):
    if family in ("llama2", "mistral"):
        return sentencepiece()
    if family == "qwen3":
        return byte_level(chat_template=template("qwen3"))
    if family == "smollm3":
        return byte_level(chat_template=SMOLLM3)
    made = byte_level(bos_token="<|bos|>", chat_template=template({"llama3": "llama3_2", "gemma3": "gemma3"}[family]))
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 1)])
    return made


FAMILIES = {
    "llama2": ("Llama", {}), "mistral": ("Mistral", {"sliding_window": 512}), "llama3": ("Llama", {"num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}), "smollm3": ("SmolLM3", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "sliding_window": 512, "num_hidden_layers": 6, "tie_word_embeddings": True}),
}  # fmt: skip


def build(path: Path, family: str) -> Path:
    kind, extra = FAMILIES[family]
    tok = tokenizer(family)
    torch.manual_seed(3)
    shared = {"vocab_size": len(tok), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
              "max_position_embeddings": 512, "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "pad_token_id": None}  # fmt: skip
    config = getattr(t, kind + "Config")(**shared | extra)
    getattr(t, kind.replace("Text", "") + "ForCausalLM")(config).save_pretrained(path)
    tok.save_pretrained(path)
    return path


def draw(queries, engine, renderer, ledger, sampling):
    grader = make_grader({"gsm8k": None})
    settings = {"iteration": 0, "seed": 1, "strategy": "vanilla", "model": "m"}
    with Sampler(
        queries,
        allocation=Fixed(3),
        guidance=None,
        renderer=renderer,
        grader=grader,
        ledger=ledger,
        sampling=lambda n: sampling,
        **settings,
    ) as work:
        engine.run(work)
    grader.close()
    return list(ledger.rows())


BASE = {"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k", "path": "x"}]}
QUERY = Query("q1", "gsm8k", "What is 2 + 2?", "4", "Two and two.\nThat is 4.\nThe answer is 4")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_prompted_sampled_and_trained_with_the_same_tokens(family, tmp_path):
    path = build(tmp_path / "model", family)
    tok = t.AutoTokenizer.from_pretrained(path)
    assert tok.pad_token is None
    renderer = Renderer(tok)
    prompt = renderer.prompt(QUERY)
    assert prompt.ids.count(tok.bos_token_id) == (1 if tok.bos_token else 0), "one BOS, whoever writes it"
    assert (prompt.text.startswith("Question:")) == (tok.chat_template is None)
    engine = Embedded(str(path), tok, "cpu", "float32", 8, 4096, 512)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    rows = draw([QUERY], engine, renderer, ledger, Sampling(1.0, 1.0, 12))
    engine.close()
    assert [r.prompt_ids for r in rows] == [prompt.ids] * len(rows)
    result = curate(rows, {"q1": QUERY}, renderer, control=True)
    for example in result.examples:
        assert example.input_ids[: len(prompt.ids)] == prompt.ids
        assert example.input_ids[-1] == tok.eos_token_id
        assert sum(example.loss_mask) == len(example.input_ids) - len(prompt.ids)
    cut = [r.status == "truncated" for r in rows]  # a random model of any family rarely ends
    said = advice.after_sampling(ledger, 0, load_config({**BASE, "sample": {"max_new_tokens": 12}}))
    assert [w for w in said if "cut off at 12 tokens" in w and "raise sample.max_new_tokens" in w] == (said if any(cut) else [])
    assert any(cut) == bool(said)
    ledger.close()


# ---------------------------------------------------------------------------------------------------- thinking


def chat(family: str, thinking: str | None = None, **kwargs) -> Renderer:
    return Renderer(tokenizer(family), "chat", "", kwargs, thinking)


@pytest.mark.parametrize("family", ["qwen3", "smollm3"])
def test_thinking_is_switched_by_the_template(family):
    on, off = chat(family), chat(family, enable_thinking=False)
    assert (on.may_think, off.may_think) == (True, False)
    assert off.prompt(QUERY).text.rstrip().endswith("</think>")
    assert not on.prompt(QUERY).text.rstrip().endswith("</think>")
    with pytest.raises(GsiError, match="closes the thinking section"):
        chat(family, "keep", enable_thinking=False)


def test_what_is_trained_on():
    keep, strip = chat("qwen3", "keep"), chat("qwen3", "strip")
    response = "<think>\nTwo and two.\n</think>\n\nThe answer is 4"
    assert (keep.trained(response), strip.trained(response)) == (response, "The answer is 4")
    assert strip.trained("<think>\nIt never ends") == ""
    assert strip.trained("The answer is 4") == "The answer is 4"
    opened = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}"
    with pytest.raises(GsiError, match="opens the section"):
        Renderer(byte_level(chat_template=opened), "chat", thinking="strip")
    assert Renderer(byte_level(chat_template=opened), "chat", thinking="keep").opening() == ""


def test_state_reset_opens_the_thinking_section_or_is_refused(tmp_path):
    hint = StateReset(chat("qwen3", "keep")).hint(QUERY, [], 0)
    assert hint.given.text.startswith("<think>\n")
    assert QUERY.rationale.startswith(hint.given.text.removeprefix("<think>\n"))
    assert chat("qwen3", "keep").decode(hint.given.ids) == hint.given.text
    assert not StateReset(chat("qwen3", enable_thinking=False)).hint(QUERY, [], 0).given.text.startswith("<think>")
    base = {
        "model": str(build(tmp_path / "m", "qwen3")),
        "output_dir": "o",
        "tasks": [{"name": "gsm8k", "path": "x"}],
        "strategy": "state_reset",
    }
    with pytest.raises(ConfigError, match="opening stands in the thinking section"):
        load_config({**base, "prompt": {"thinking": "strip"}})
    from gsi import build as parts

    for prompt, refused in (({}, True), ({"thinking": "keep"}, False), ({"chat_template_kwargs": {"enable_thinking": False}}, False)):
        config = load_config({**base, "prompt": prompt})
        if refused:
            with pytest.raises(GsiError, match=r"prompt\.thinking: this model's template knows thinking sections"):
                parts.make_renderer(config, tokenizer("qwen3"))
        else:
            parts.make_renderer(config, tokenizer("qwen3"))


FAMILY_OF = {"qwen3": "qwen3", "qwen3-thinking": "qwen3", "smollm3": "smollm3", "smollm3-thinking": "smollm3", "llama3": "llama3", "gemma3": "gemma3", "paper": "llama2"}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_what_its_family_needs(preset):
    """Every strategy either knows where an opening stands with a tokenizer of the family, or is refused by the name of the key."""
    from gsi import build as parts

    tok = tokenizer(FAMILY_OF[preset])
    thinks = preset.endswith("-thinking")
    for strategy in (*PAPER, "adaptive", "ladder", "own_prefix", "own_correction"):
        data = {**BASE, "preset": preset, "strategy": strategy, "teacher": {"kind": "self"}}
        kind = load_config({**data, "preset": None}).guidance
        if thinks and kind.continues and kind.kind != "state_reset":
            with pytest.raises(ConfigError, match=r"prompt\.thinking"):
                load_config(data)
            continue
        config = load_config(data)
        renderer = parts.make_renderer(config, tok)
        text = renderer.prompt(QUERY).text
        assert renderer.may_think == thinks
        assert ("boxed" in text) == (preset != "paper")
        if kind.kind == "state_reset":
            given = StateReset(renderer).hint(QUERY, [], 0).given.text
            assert given.startswith("<think>\n") == thinks
            assert QUERY.rationale.startswith(given.removeprefix("<think>\n"))
    assert (config.evaluate.avg_at_k > 0) == thinks, "a mode whose makers discourage greedy decoding is evaluated by samples"
    assert config.sample.max_new_tokens == {"paper": 1024}.get(preset, 16384 if thinks else 2048)
    assert config.train.max_length >= config.sample.max_new_tokens


@pytest.mark.parametrize("family", ["qwen3", "smollm3"])
@pytest.mark.parametrize("strategy", ["state_reset", "adaptive", "ladder", "own_prefix"])
def test_an_opening_that_could_stand_in_two_places_is_refused(family, strategy):
    from gsi import build as parts

    data = {**BASE, "strategy": strategy, "teacher": {"kind": "self"}}
    with pytest.raises(GsiError, match=rf"prompt\.thinking: .* guidance {strategy} must know where its opening stands"):
        parts.make_renderer(load_config(data), tokenizer(family))
    parts.make_renderer(load_config({**data, "prompt": {"chat_template_kwargs": {"enable_thinking": False}}}), tokenizer(family))


def think(request, model: str) -> str:
    """Thinks, then answers; sometimes it never stops thinking."""
    return "<think>\nIt might be 5.\n" + ("" if request.attempt == 1 else f"</think>\n\nThe answer is {request.query.answer}")


def test_a_run_trains_on_what_follows_the_thinking(tmp_path):
    import scripted

    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(6)))
    config = scripted.config(
        tmp_path / "run", iterations=1, tasks=[{"name": "gsm8k", "path": str(path)}], engine={"kind": "scripted", "function": f"{__file__}:think"},
        prompt={"template": "{question} ", "thinking": "strip"}, evaluate={"validation": 0, "avg_at_k": 0},
    )  # fmt: skip
    run = gsi.run(config, reporter=Reporter("quiet")).path
    with_ledger = Ledger(run / "ledger.sqlite", read_only=True)
    rows = list(with_ledger.rows())
    with_ledger.close()
    assert all(r.response.startswith("<think>") for r in rows)
    import pyarrow.parquet as pq

    trained = pq.read_table(run / "iter_1" / "train.parquet").to_pylist()
    assert {r["completion"] for r in trained} == {f"The answer is {i + 1}" for i in range(6)}
    assert {r["correct"] for r in trained if "correct" in r} == set()
    assert {(r.attempt, r.correct) for r in rows if r.attempt == 1} == {(1, False)}


# ---------------------------------------------------------------------------------------------------- what it says


def easy(request, model: str) -> str:
    return f"The answer is {request.query.answer}"


def long(request, model: str):
    from gsi.types import Completion

    return Completion("on and on", (1, 2, 3), "length", 3) if request.attempt % 2 else f"The answer is {request.query.answer}"


@pytest.mark.parametrize(
    ("function", "said"),
    [("easy", "100% of the plain responses right: there is no tail"), ("long", "50% of the plain responses were cut off")],
)
def test_warnings_name_the_way_out(tmp_path, capsys, function, said):
    import scripted

    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(6)))
    config = scripted.config(
        tmp_path / "run", iterations=1, tasks=[{"name": "gsm8k", "path": str(path)}], engine={"kind": "scripted", "function": f"{__file__}:{function}"},
        evaluate={"validation": 0},
    )  # fmt: skip
    gsi.run(config, reporter=Reporter("lines"))
    out = "".join(capsys.readouterr())
    assert said in out
    assert ("Omni-MATH" in out) == (function == "easy")


def test_accuracy_is_the_mean_over_samples_where_greedy_is_discouraged(tmp_path):
    import scripted

    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(40)))
    config = scripted.config(
        tmp_path / "run", iterations=1, tasks=[{"name": "gsm8k", "path": str(path)}], engine={"kind": "scripted", "function": f"{scripted.HERE}:tell"},
        evaluate={"validation": 20, "avg_at_k": 4, "pass_at_k": [2]},
    )  # fmt: skip
    run = gsi.run(config, reporter=Reporter("quiet")).path
    result = json.loads((run / "iter_0" / "eval.json").read_text())["validation"]["gsm8k"]
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    rows = list(ledger.rows(0, "validation"))
    ledger.close()
    assert (len(rows), result["n"], result["samples"]) == (80, 20, 4)
    assert result["pass@1"] == pytest.approx(sum(r.correct for r in rows) / 80)
    assert 0.5 < result["pass@1"] < 1 == round(result["pass@2"])
    assert result["interval"][0] < result["pass@1"] < result["interval"][1]

    def vote(*answers: str | None) -> bool:  # `3` is right
        return metrics.majority_right([replace(rows[0], extracted=a, correct=a == "3") for a in answers])

    assert vote("3", "4", "3", "4", "3")
    assert not vote("3", "4", "4")
    assert vote("3", "4")
    assert not vote("4", "3"), "of equals the earliest"
    assert vote(None, None, "3"), "what has no answer has no vote"
    assert not vote(None)
    first_two = [r for r in rows if r.attempt < 2]
    assert result["maj@2"] == sum(r.correct for r in first_two if r.attempt == 0) / 20, "of two draws the first decides"


def test_the_embedded_engine_is_what_small_recipes_ask_for():
    assert isinstance(load_config(Path(__file__).parent.parent / "configs" / "small" / "smollm3-3b-24gb.yaml").engine, TransformersEngine)
