"""Training rows, their order, the loss beside TRL's own, and the labels of every kind of tokenizer. In this process, on tiny models."""

import json
import math
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import gsi
from gsi.config.training import Train
from gsi.train.launch import events
from gsi.train.rows import Order, Plan, read_rows, shown
from gsi.types import GsiError, TrainJob

pytestmark = pytest.mark.slow
NOISE = 2e-4  # of weights after two steps of 1e-2: Adam's first steps turn a last bit of a tiny gradient into much of a step


def settings(**changes):
    few = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 12, "micro_batch_size": 12, "warmup": 0.0}
    return Train(**few | changes).model_dump(mode="json", by_alias=True)


def rows(n: int = 12, weights=(1.0,), seed: int = 0) -> list[dict]:
    """Rows of 4 to 23 tokens over the vocabulary of `models`, a prompt of 1 to 3 tokens, a masked token in the middle of some."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        ids = [*rng.integers(2, 90, 3 + int(rng.integers(1, 20))).tolist(), 0]
        mask = [0] * (1 + i % 3) + [1] * (len(ids) - 1 - i % 3)
        mask[len(ids) // 2] = int(i % 4 != 0)
        made.append({"input_ids": ids, "loss_mask": mask, "weight": weights[i % len(weights)], "query_id": f"q{i % 5}", "attempt": i})
    return made


def write(path: Path, table: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def job(folder: Path, table: list[dict], model: Path, **changes) -> TrainJob:
    data = write(folder / "train.parquet", table)
    return TrainJob(str(data), str(model), str(model), str(folder / "out"), str(folder / "work"), 1, settings(**changes))


def train(*args, **changes):
    """In this process; (figures, the trained model)."""
    from gsi.train import sft

    made = job(*args, **changes)
    return sft.train(made), AutoModelForCausalLM.from_pretrained(made.output)


def difference(a, b) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True))


def weighted_loss(model, table) -> float:
    """The definition, in plain torch, one row at a time."""
    total = sum(r["weight"] * sum(r["loss_mask"][1:]) for r in table)
    trained = sum(sum(r["loss_mask"][1:]) for r in table)
    loss = 0.0
    for r in table:
        ids = torch.tensor([r["input_ids"]])
        with torch.inference_mode():
            logp = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        loss -= r["weight"] * (logp * torch.tensor(r["loss_mask"][1:])).sum().item()
    return loss / total * trained / trained


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return models.build(tmp_path_factory.mktemp("model"), std=0.1)


# --------------------------------------------------------------------------------------- the loss


def trl(folder: Path, model: Path, table, **changes):
    """TRL's SFTTrainer as it is, on the same rows in one batch per step."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    labels = [[t if m else -100 for t, m in zip(r["input_ids"], r["loss_mask"], strict=True)] for r in table]
    data = Dataset.from_dict({"input_ids": [r["input_ids"] for r in table], "labels": labels})
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    args = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=12, num_train_epochs=2, learning_rate=1e-2, warmup_steps=0.0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, save_strategy="no", report_to="none", max_length=None, logging_steps=1, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True}, **changes,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), args=args, train_dataset=data, processing_class=tokenizer
    )
    trainer.train()
    return [x["loss"] for x in trainer.state.log_history if "loss" in x], trainer.model


@pytest.mark.parametrize("micro", [12, 5, 1])
def test_weights_of_one_are_trls_own_loss(tmp_path, model, micro):
    """However the batch is cut: same losses, same weights after two steps."""
    losses, theirs = trl(tmp_path / "trl", model, rows())
    figures, ours = train(tmp_path, rows(), model, micro_batch_size=micro)
    assert figures["loss"] == pytest.approx(sum(losses) / 2, abs=1e-5)
    assert difference(ours, theirs) < NOISE
    assert figures["tokens"] == 2 * sum(sum(r["loss_mask"]) for r in rows())


def test_example_weights_and_masks_are_in_the_loss(tmp_path, model):
    before = AutoModelForCausalLM.from_pretrained(model)
    weighted = rows(weights=(0.25, 1.0, 3.0))
    plain, _ = train(tmp_path / "plain", rows(), model, epochs=1)
    ours, a = train(tmp_path / "ours", weighted, model, epochs=1, micro_batch_size=5)
    scaled, b = train(tmp_path / "scaled", [r | {"weight": 7 * r["weight"]} for r in weighted], model, epochs=1, micro_batch_size=5)
    assert ours["loss"] == pytest.approx(weighted_loss(before, weighted), abs=1e-5)
    assert plain["loss"] == pytest.approx(weighted_loss(before, rows()), abs=1e-5)
    assert abs(ours["loss"] - plain["loss"]) > 1e-3
    assert scaled["loss"] == pytest.approx(ours["loss"], abs=1e-6), "only the proportions of the weights count"
    assert difference(a, b) < NOISE


def test_the_loss_is_over_the_whole_batch_whatever_the_models_own_loss_takes(tmp_path, model, monkeypatch):
    """Gemma 3n and Gemma 4 say that their own loss takes no count of the tokens; ours does, also where a batch is cut."""
    weighted = rows(weights=(0.25, 1.0, 3.0))
    expected, a = train(tmp_path / "usual", weighted, model, epochs=1)
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    for micro in (12, 5, 1):
        figures, b = train(tmp_path / str(micro), weighted, model, epochs=1, micro_batch_size=micro)
        assert figures["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert difference(a, b) < NOISE


@pytest.mark.parametrize("packing", [False, True])
def test_batches_can_be_pinned_for_a_gpu(packing):
    """Pinning copies every tensor into storage with the same strides, which takes an entry of its own for every element."""
    from gsi.train.trainer import Collator

    batch = Collator(0, packing)([{"input_ids": np.arange(n), "labels": np.arange(n), "weight": 0.5 * n} for n in (3, 5)])
    for name, tensor in batch.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor), tensor), name


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_packed_rows_do_not_see_each_other(tmp_path, family):
    """Packing gives the loss and the weights of padded batches; mistral has a sliding window of 16 tokens."""
    base = models.build(tmp_path / "model", family, std=0.1)
    table = rows(weights=(1.0, 2.0))
    padded, a = train(tmp_path / "padded", table, base)
    packed, b = train(tmp_path / "packed", table, base, packing=True, micro_batch_size=6)
    assert packed["loss"] == pytest.approx(padded["loss"], abs=1e-5)
    assert difference(a, b) < NOISE
    assert json.loads((tmp_path / "packed" / "out" / "config.json").read_text()).get("_attn_implementation") is None


def test_packing_is_refused_where_rows_would_see_each_other(tmp_path):
    """A recurrent model carries its state over the border of two rows."""
    from transformers import MambaConfig, MambaForCausalLM

    tokenizer = models.tokenizer()
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "initializer_range": 0.5}
    MambaForCausalLM(MambaConfig(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=None, pad_token_id=None, **shape)).save_pretrained(
        tmp_path / "model"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(GsiError, match=r"train.packing.*false"):
        train(tmp_path, rows(), tmp_path / "model", packing=True)


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


MORE = {
    "gemma2": {"attn_logit_softcapping": 2.0},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("kind", MORE)
def test_packing_is_refused_where_attention_is_more_than_packed_attention_does(tmp_path, kind, monkeypatch, capsys):
    """Capped logits and sinks would be left out without a word. Padded they train, which is what happens where the choice is ours."""
    tokenizer = models.tokenizer()
    ends = {"eos_token_id": 0, "bos_token_id": None, "pad_token_id": None}
    more = SMALL | MORE[kind]
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=128, **more, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(GsiError, match=r"train.packing.*false"):
        train(tmp_path / "packed", rows(), tmp_path / "model", packing=True)
    figures, padded = train(tmp_path / "padded", rows(), tmp_path / "model", epochs=1)
    assert figures["steps"] == 1

    capsys.readouterr()
    monkeypatch.setattr("gsi.train.packing.wanted", lambda packing, device: True)  # as on a GPU
    loads, load = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: loads.append(str(a[0])) or load(*a, **k))
    figures, chosen = train(tmp_path / "chosen", rows(), tmp_path / "model", epochs=1)
    assert loads.count(str(tmp_path / "model")) == 1
    assert "rows are padded, not packed" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(padded.parameters(), chosen.parameters(), strict=True))


def test_an_architecture_that_trls_head_does_not_know_is_refused_by_name_before_anything_is_sampled(tmp_path):
    """Llama 4: its attention in chunks is not packed either."""
    tokenizer = models.tokenizer()
    more = {"num_local_experts": 2, "intermediate_size_mlp": 32, "attention_chunk_size": 8, "eos_token_id": 0, "bos_token_id": None}
    config = AutoConfig.for_model("llama4_text", vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=None, **SMALL, **more)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(GsiError, match=r"train.packing.*Llama4ForCausalLM.*false"):
        train(tmp_path / "packed", rows(), tmp_path / "model", packing=True)
    with pytest.raises(GsiError, match=r"Llama4ForCausalLM cannot be trained here"):
        train(tmp_path / "padded", rows(), tmp_path / "model")
    chain = [{"name": "chain", "args": {"seed": 1, "per_level": 1}}]
    with pytest.raises(GsiError, match=r"Llama4ForCausalLM cannot be trained here"):
        gsi.run(
            {"model": str(tmp_path / "model"), "output_dir": str(tmp_path / "run"), "tasks": chain, "prompt": {"template": "{question}"}}
        )
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        assert db.execute("select count(*) from rollouts").fetchone() == (0,)


# --------------------------------------------------------------------------------------- the model's own settings


def change(file: Path, **values) -> dict:
    content = (json.loads(file.read_text()) if file.exists() else {}) | values
    file.write_text(json.dumps(content))
    return content


def test_a_base_whose_generation_settings_transformers_only_tolerates_is_trained_and_keeps_them(tmp_path):
    """Sampling flags without `do_sample` (Llama 2's mirrors, vicuna): saved as they are, or refused once anything in them changed."""
    base = models.build(tmp_path / "model", std=0.1)
    config = change(base / "config.json", eos_token_id=[0, 7])
    wanted = change(base / "generation_config.json", eos_token_id=[0, 7], temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1)
    figures, _ = train(tmp_path, rows(), base, checkpoint_steps=1)
    assert figures["steps"] == 2
    assert list((tmp_path / "work").glob("checkpoint-*/complete"))
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    kept.pop("transformers_version"), wanted.pop("transformers_version", None)
    assert kept == wanted
    trained = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {k: v for k, v in trained.items() if k.endswith("_token_id")} == {k: v for k, v in config.items() if k.endswith("_token_id")}


def test_the_next_iteration_trains_as_the_first_did(tmp_path):
    """A pad token in the config keeps gradients from where it is read: ours, the end of a text, is not written, and where it was, it does nothing."""
    base = models.build(tmp_path / "model", std=0.1)
    table = [r | {"input_ids": [*r["input_ids"][:2], 0, *r["input_ids"][2:]], "loss_mask": [*r["loss_mask"], 1]} for r in rows()]
    _, first = train(tmp_path / "first", table, base)
    assert first.get_input_embeddings().padding_idx is None
    assert first.config.pad_token_id is None
    assert first.generation_config.pad_token_id is None
    for file in ("config.json", "generation_config.json"):  # as earlier versions wrote them
        change(base / file, pad_token_id=0)
    _, second = train(tmp_path / "second", table, base)
    assert difference(first, second) == 0


# --------------------------------------------------------------------------------------- rows that cannot be trained on


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_mask": [0, 0, 0]}, r"1 rows with nothing to train on .*q7, attempt 3"),
        ({"loss_mask": [1, 0, 0]}, "nothing to train on"),  # a first token is never predicted
        ({"loss_mask": [0, 1]}, "q7, attempt 3: loss_mask has 2 entries for 3 tokens"),
        ({"weight": -1.0}, "q7, attempt 3: weight -1.0"),
        ({"weight": math.nan}, "q7, attempt 3: weight nan"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_by_name(tmp_path, change, message):
    bad = {"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1], "weight": 1.0, "query_id": "q7", "attempt": 3} | change
    with pytest.raises(GsiError, match=message):
        read_rows(write(tmp_path / "train.parquet", [*rows(3), bad]))


def test_no_rows_and_no_weight_are_refused(tmp_path):
    with pytest.raises(GsiError, match="all weights are 0"):
        read_rows(write(tmp_path / "a.parquet", rows(3, weights=(0.0,))))
    pq.write_table(pa.Table.from_pylist(rows(3)).slice(0, 0), tmp_path / "b.parquet")
    with pytest.raises(GsiError, match="no rows"):
        read_rows(tmp_path / "b.parquet")


# --------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize(
    ("n", "batch", "micro", "processes"), [(50, 16, 4, 1), (50, 16, 16, 2), (7, 16, 2, 2), (33, 8, 3, 3), (1, 4, 4, 2)]
)
@pytest.mark.parametrize("packing", [False, True])
def test_every_row_is_trained_once_per_epoch_whatever_the_cut(n, batch, micro, processes, packing):
    lengths = np.random.default_rng(n).integers(5, 400, n)
    plan = Plan(lengths, batch, micro, 2, 7, processes, packing)
    one = Plan(lengths, batch, 1, 2, 7)
    parts = [list(Order(plan, p)) for p in range(processes)]
    assert all(len(p) == plan.steps * plan.accumulation for p in parts), "every process takes part in every forward pass"
    for step in range(plan.steps):
        at = slice(step * plan.accumulation, (step + 1) * plan.accumulation)
        seen = sorted(i for p in parts for micro_batch in p[at] for i in micro_batch)
        assert seen == sorted(one.batch(step).tolist()), "the batch of a step does not depend on how it is cut"
        if not packing:
            assert all(len(micro_batch) <= micro for p in parts for micro_batch in p[at])
    epoch = [i for step in range(plan.steps_per_epoch) for i in plan.batch(step)]
    assert sorted(epoch) == list(range(n))
    assert n == 1 or epoch != [i for step in range(plan.steps_per_epoch) for i in plan.batch(plan.steps_per_epoch + step)]


def test_micro_batches_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).integers(20, 401, 640)

    def padding(micro_batches):
        return 1 - sum(lengths[m].sum() for m in micro_batches) / sum(len(m) * lengths[m].max() for m in micro_batches)

    plan = Plan(lengths, 64, 8, 1, 0)
    shuffled = np.random.default_rng(1).permutation(640).reshape(-1, 8).tolist()
    assert padding(list(Order(plan))) < 0.12
    assert padding(shuffled) > 0.35
    packs = [lengths[m].sum() for m in Order(Plan(lengths, 64, 8, 1, 0, packing=True))]
    assert max(packs) < 1.2 * np.mean(packs)


def test_a_fraction_of_an_epoch():
    lengths = np.full(100, 5)
    assert Plan(lengths, 10, 10, 0.25, 0).steps == 3
    assert Plan(lengths, 10, 10, 0.001, 0).steps == 1


def test_the_first_batch_is_shown_decoded_with_its_mask(tmp_path, model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = [*tokenizer("Q: 1+1? A: 2")["input_ids"], 0]
    table = [{"input_ids": ids, "loss_mask": [0] * 10 + [1] * 3, "weight": 1.0, "query_id": "sum", "attempt": 2}]
    (row,) = shown(read_rows(write(tmp_path / "train.parquet", table)), [0], tokenizer.decode)
    assert row["row"] == "sum, attempt 2"
    assert [(p["trained"], p["text"]) for p in row["pieces"]] == [(False, "Q: 1+1? A:"), (True, " 2</s>")]
    train(tmp_path, table, model, epochs=1)
    written = json.loads((tmp_path / "first_batch.json").read_text())
    assert written["rows"] == [row]


# --------------------------------------------------------------------------------------- checkpoints


def test_all_processes_agree_on_the_last_whole_checkpoint_while_the_first_removes_the_interrupted_one(tmp_path):
    from gsi.train.trainer import DONE, last_checkpoint

    for i in range(10):
        work, start = tmp_path / str(i), threading.Barrier(4)
        for name in ("checkpoint-2", "checkpoint-4/shards"):
            (work / name).mkdir(parents=True)
        for n in range(40):
            (work / "checkpoint-4" / f"part{n}").write_bytes(b"half")
        (work / "checkpoint-2" / DONE).touch()

        def look(rank, work=work, start=start):
            start.wait()
            return last_checkpoint(work, clean=rank == 0)

        with ThreadPoolExecutor(4) as processes:
            found = set(processes.map(look, range(4)))
        assert found == {work / "checkpoint-2"}
        assert [p.name for p in work.iterdir()] == ["checkpoint-2"]


# --------------------------------------------------------------------------------------- mixing


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_merge_lies_between_two_models(tmp_path, capsys):
    from gsi.cli import main

    a, b = models.build(tmp_path / "a", seed=1), models.build(tmp_path / "b", seed=2)
    for weight in (0.0, 0.25, 1.0):
        assert main(["merge", str(a), str(b), "--weight", str(weight), "--output", str(tmp_path / f"m{weight}")]) == 0
        x, y, mixed = tensors(a), tensors(b), tensors(tmp_path / f"m{weight}")
        assert all(torch.allclose(mixed[k], (1 - weight) * x[k] + weight * y[k], atol=1e-7) for k in x)
    assert AutoTokenizer.from_pretrained(tmp_path / "m0.25")("ab")["input_ids"] == AutoTokenizer.from_pretrained(a)("ab")["input_ids"]
    for command, message in {
        (str(a), str(b), "0.5", str(tmp_path / "m1.0")): "exists",
        (str(a), str(b), "1.5", str(tmp_path / "x")): "not between 0 and 1",
        (str(a), str(models.build(tmp_path / "g", "gpt2")), "0.5", str(tmp_path / "x")): "not of the same architecture",
        (str(a), str(tmp_path), "0.5", str(tmp_path / "x")): "no safetensors files",
    }.items():
        assert main(["merge", *command[:2], "--weight", command[2], "--output", command[3]]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


def test_interpolation_takes_the_weight_that_validates_best(tmp_path):
    from gsi.mixing import interpolate

    a, b = models.build(tmp_path / "a", seed=1), models.build(tmp_path / "b", seed=2)
    x, y = tensors(a), tensors(b)
    seen = []

    def score(folder: Path) -> tuple[float, int]:
        w = next(iter(tensors(folder).values()))
        seen.append(w)
        return (0.5 if len(seen) in (2, 3) else 0.1), 10

    figures = interpolate(a, str(b), (0.8, 0.0, 0.2, 0.4), score)
    assert figures["interpolate/weight"] == 0.2, "of equals the one nearer to the trained model"
    assert figures["interpolate/tokens"] == 40
    assert all(torch.allclose(v, 0.8 * x[k] + 0.2 * y[k], atol=1e-6) for k, v in tensors(a).items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"], "no leftovers"


def twice(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Qwen3 on the hub: the head is the embedding, and stored all the same."""
    return stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()}


def without_prefix(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """GPT-2 on the hub, with the causal masks of its time."""
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 128, 128).tril() for i in range(2)}
    return {name.removeprefix("transformer."): x for name, x in stored.items()} | masks


def with_frequencies(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return stored | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}


LAYOUTS = {
    "tied": ("qwen3", twice),
    "gpt2": ("gpt2", without_prefix),
    "frequencies": ("llama", with_frequencies),
    "consolidated": ("mistral", None),
    "shards": ("llama", None),
}


def laid_out(folder: Path, kind: str, seed: int) -> Path:
    """A model whose files are as published ones are, and not as transformers writes them."""
    from safetensors.torch import load_file, save_file

    family, change = LAYOUTS[kind]
    base = models.build(folder, family, seed=seed)
    file = base / "model.safetensors"
    stored = load_file(file)
    if change:
        save_file(change(stored), file, metadata={"format": "pt"})
    elif kind == "consolidated":  # the same weights once more, under Mistral's own names
        save_file({f"layers.{name}": x for name, x in stored.items()}, base / "consolidated.safetensors")
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
        file.unlink()
        model.save_pretrained(base, max_shard_size="40KB")
        save_file({"left.over": torch.ones(3)}, base / "other.safetensors")
        assert len(list(base.glob("model-*.safetensors"))) > 1
    return base


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_base_is_mixed_and_counted_however_its_files_are_laid_out(tmp_path, kind):
    from gsi.mixing import interpolate
    from gsi.train.merge import merge
    from gsi.weights import count_parameters

    base, other = laid_out(tmp_path / "base", kind, 1), laid_out(tmp_path / "other", kind, 2)
    trained = AutoModelForCausalLM.from_pretrained(other)
    trained.save_pretrained(tmp_path / "trained")
    trained.save_pretrained(tmp_path / "mixed")
    x, y = tensors(other), tensors(base)
    assert interpolate(tmp_path / "mixed", str(base), 0.25, lambda model: (0.0, 0)) == {"interpolate/weight": 0.25}
    merge(base, tmp_path / "trained", 0.75, tmp_path / "turned")
    for mixed in ("mixed", "turned"):
        assert all(torch.allclose(v, 0.75 * x[k] + 0.25 * y[k], atol=1e-6) for k, v in tensors(tmp_path / mixed).items())
    assert AutoTokenizer.from_pretrained(tmp_path / "turned")("ab")["input_ids"] == AutoTokenizer.from_pretrained(base)("ab")["input_ids"]
    assert [count_parameters(str(tmp_path / m)) for m in ("base", "trained", "mixed", "turned")] == [trained.num_parameters()] * 4


def test_models_that_differ_are_not_merged_whatever_their_files_say(tmp_path, capsys):
    from gsi.cli import main

    tied, gpt2 = laid_out(tmp_path / "tied", "tied", 1), laid_out(tmp_path / "gpt2", "gpt2", 2)
    longer = models.build(tmp_path / "longer", "gpt2", context=64)
    broken = laid_out(tmp_path / "broken", "gpt2", 3)
    models.build(tmp_path / "whole", "gpt2")
    remove(broken / "model.safetensors", "wpe.weight")
    for a, b, message in (
        (tied, gpt2, "not of the same architecture"),
        (gpt2, longer, r"transformer.wpe.weight is (128, 32)"),
        (tmp_path / "whole", broken, "broken lacks 1 tensors of its architecture, first transformer.wpe.weight"),
    ):
        assert main(["merge", str(a), str(b), "--output", str(tmp_path / "x")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


def remove(file: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    save_file({k: v for k, v in load_file(file).items() if k != name}, file, metadata={"format": "pt"})


def test_a_base_that_cannot_be_mixed_is_refused_before_anything_is_sampled_or_trained(tmp_path, model):
    import scripted

    base = models.build(tmp_path / "base")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    mix = {"interpolate": {"with": "base", "weight": 0.3}, "kind": "scripted", "function": f"{scripted.HERE}:train"}
    for i in range(2):
        with pytest.raises(GsiError, match=r"train.interpolate.*has no safetensors files"):
            gsi.run(scripted.config(tmp_path / "run", model=str(base), iterations=1, train=mix))
        assert not (tmp_path / "run" / "iter_1").exists(), i
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        assert db.execute("select count(*) from rollouts").fetchone() == (0,)


def test_early_stopping_keeps_the_best_weights(tmp_path, model):
    """Trained on one thing, held out another: the held-out loss soon rises, and the weights of the best step come back."""
    table = [
        {"input_ids": [5, 6, 7, 8, 0], "loss_mask": [0, 1, 1, 1, 1], "weight": 1.0, "query_id": f"q{i}", "attempt": 0} for i in range(24)
    ]
    held = [r | {"input_ids": [5, 6, 50 + i, 9, 0]} for i, r in enumerate(table[:5])]
    changes = {"epochs": 30, "micro_batch_size": 3, "learning_rate": 3e-3, "schedule": "constant"}
    write(tmp_path / "a" / "validation.parquet", held)
    stopping = {"share": 0.1, "evaluations": 20, "patience": 2}
    figures, ours = train(tmp_path / "a", table, model, early_stopping=stopping, **changes)
    assert figures["best_step"] < figures["steps"] < 60
    assert figures["tokens"] == figures["steps"] * 12 * 4
    assert figures["validation_loss"] == pytest.approx(weighted_loss(ours, held), abs=1e-4)
    # the best step's weights are those of a training that ends there
    _, short = train(tmp_path / "b", table, model, **changes | {"epochs": figures["best_step"] / 2})
    assert difference(ours, short) < NOISE


def test_qlora_trains_a_quantized_base_and_merges_into_the_stored_one(tmp_path, model):
    """On a CPU, in bitsandbytes' own 4-bit arithmetic: that it loads, trains and merges; speed and memory are a GPU's matter."""
    pytest.importorskip("bitsandbytes")
    wide = models.build(tmp_path / "model", std=0.1)
    before = AutoModelForCausalLM.from_pretrained(wide)
    lora, _ = train(tmp_path / "lora", rows(), wide, method="lora", epochs=6)
    qlora, ours = train(tmp_path / "qlora", rows(), wide, method="qlora", epochs=6)
    assert qlora["loss"] == pytest.approx(lora["loss"], rel=0.05)
    assert not list((tmp_path / "qlora" / "out").glob("adapter*"))
    assert "quantization_config" not in json.loads((tmp_path / "qlora" / "out" / "config.json").read_text())
    assert difference(ours, before) > 1e-3
    assert torch.equal(ours.model.embed_tokens.weight, before.model.embed_tokens.weight), "not a rounded copy of the base"


@pytest.mark.parametrize(("layout", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_layouts_are_read_by_deepspeed(layout, stage):
    """As far as they can be checked without GPUs."""
    from gsi.train.parallel import read_layout

    found = read_layout({"parallel": layout})["deepspeed"]
    assert found["zero_optimization"]["stage"] == stage
    config = pytest.importorskip("deepspeed.runtime.config").DeepSpeedConfig
    numbers = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2, "gradient_clipping": 1.0}
    assert config(found | numbers | {"bf16": {"enabled": False}}).zero_config.stage == stage


def test_what_this_machine_lacks_is_said_before_anything_is_sampled(tmp_path, capsys):
    import scripted
    import yaml

    from gsi.cli import main

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for change, message in {
        ("device", "cuda"): "train.device: 'cuda', but torch sees no GPU",
        ("parallel", "zero3"): "needs GPUs and the package deepspeed, and there is no GPU",
        ("liger", True): "train.liger: needs a GPU",
        ("parallel", "fsdp3"): "neither one of single, ddp, fsdp2, zero2, zero3 nor a YAML file",
    }.items():
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(scripted.config(tmp_path / "run", train=dict([change]))))
        assert main(["run", str(path), "--log", "quiet"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"gradient_checkpointing": True}, {"gradient_checkpointing": True, "method": "lora"}], ids=["full", "lora"]
)
def test_gradient_checkpointing_changes_nothing(tmp_path, model, changes):
    plain, a = train(tmp_path / "a", rows(), model, **changes | {"gradient_checkpointing": False})
    checked, b = train(tmp_path / "b", rows(), model, **changes)
    assert checked["loss"] == pytest.approx(plain["loss"], abs=1e-6)
    assert difference(a, b) < NOISE


def test_bfloat16_keeps_master_weights(tmp_path, model):
    """Autocast: the loss is close, and steps far below what bfloat16 can hold still add up."""
    plain, _ = train(tmp_path / "a", rows(), model, learning_rate=1e-5, epochs=1)
    half, ours = train(tmp_path / "b", rows(), model, learning_rate=1e-5, epochs=1, dtype="bfloat16")
    assert half["loss"] == pytest.approx(plain["loss"], rel=0.01)
    assert 0 < difference(ours, AutoModelForCausalLM.from_pretrained(model)) < 2e-5
    packed, _ = train(tmp_path / "c", rows(), model, learning_rate=1e-5, epochs=1, dtype="bfloat16", packing=True)
    assert packed["loss"] == pytest.approx(half["loss"], rel=0.01)


def test_events_are_found_behind_a_library_s_own_print_and_behind_one_another():
    """Several processes share the pipe, and `print` writes its end of line by itself."""
    one, two = (json.dumps({"gsi": "log", "text": "gsi " + json.dumps({"rank": rank, "gsi": 1})}) for rank in (0, 1))
    assert [e["text"] for e in events(f"Loading weights{one}\n")] == ['gsi {"rank": 0, "gsi": 1}']
    assert [json.loads(e["text"][4:])["rank"] for e in events(f"{one}{two}\n")] == [0, 1]
    assert list(events("a print\n")) == []
