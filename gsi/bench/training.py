"""`gsi bench training`: what length-bucketed batches (packing on a GPU) give over TRL's default collator, on one machine, in one run.

Same random model (about 1M parameters), same rows (20-400 tokens, uniform, half of them prompt), same batches of 64 rows in micro-batches
of 8, same arithmetic: TRL's SFTTrainer with its default sampler and collator against ours, in alternation, the faster of two runs
each. Counted are tokens that are no padding. On a CPU the clock is the processor time of the one thread that computes, which on an
idle core is the time on the wall and on a shared one does not measure the neighbours; on a GPU it is the time on the wall.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROWS, BATCH, MICRO = 256, 64, 8
SHORTEST, LONGEST, VOCABULARY = 20, 400, 512


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(ROWS):
        n = int(rng.integers(SHORTEST, LONGEST + 1))
        ids = rng.integers(3, VOCABULARY, n).tolist()
        made.append({"input_ids": ids, "loss_mask": [0] * (n // 2) + [1] * (n - n // 2), "weight": 1.0, "query_id": str(i), "attempt": 0})
    return made


def training() -> dict[str, Any]:
    """Runs both and returns the line that the command prints."""
    import torch

    torch.set_num_threads(1)
    table = rows()
    tokens = sum(len(r["input_ids"]) for r in table)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model = _model(Path(folder) / "model")
        seconds: dict[str, list[float]] = {"ours": [], "trl": []}
        for turn in range(3):  # the first warms up
            for name, run in (("ours", _ours), ("trl", _trl)):
                took = run(Path(folder) / f"{name}{turn}", model, table)
                if turn:
                    seconds[name].append(took)
    ours, trl = (tokens / min(seconds[name]) for name in ("ours", "trl"))
    return {
        "ours_tokens_per_s": round(ours, 1),
        "trl_default_tokens_per_s": round(trl, 1),
        "ratio": round(ours / trl, 3),
        "how": "packing" if torch.cuda.is_available() else "bucketing",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "rows": ROWS,
    }


def _model(path: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=512,
        eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    core = Tokenizer(models.WordLevel({"?": 0, "</s>": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(path)
    return path


def _ours(folder: Path, model: Path, table: list[dict[str, Any]]) -> float:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from gsi.config.training import Train
    from gsi.train.sft import train
    from gsi.types import TrainJob

    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(table), folder / "train.parquet")
    settings = Train(epochs=1, batch_size=BATCH, micro_batch_size=MICRO).model_dump(mode="json", by_alias=True)
    job = TrainJob(str(folder / "train.parquet"), str(model), str(model), str(folder / "out"), str(folder / "work"), 0, settings)
    figures = train(job)
    return figures["seconds_training" if torch.cuda.is_available() else "seconds_processor"]


def _trl(folder: Path, model: Path, table: list[dict[str, Any]]) -> float:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    labels = [[t if m else -100 for t, m in zip(r["input_ids"], r["loss_mask"], strict=True)] for r in table]
    data = Dataset.from_dict({"input_ids": [r["input_ids"] for r in table], "labels": labels})
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    gpu = torch.cuda.is_available()
    args = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=MICRO, gradient_accumulation_steps=BATCH // MICRO, num_train_epochs=1, learning_rate=1e-5,
        use_cpu=not gpu, bf16=gpu, gradient_checkpointing=False, save_strategy="no", report_to="none", max_length=None, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, use_safetensors=True),
        args=args,
        train_dataset=data,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    clock = time.perf_counter if gpu else time.process_time
    started = clock()
    trainer.train()
    return clock() - started


if __name__ == "__main__":
    print(json.dumps(training()))
