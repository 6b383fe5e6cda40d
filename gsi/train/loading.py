"""Model, arguments and saving for the training child, for one process or many."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from gsi.train import packing as packed
from gsi.train.parallel import read_layout
from gsi.train.rows import Plan
from gsi.types import GsiError, TrainJob


def arguments(job: TrainJob, plan: Plan, device: str) -> SFTConfig:
    s, layout = job.settings, read_layout(job.settings)
    bf16 = s["dtype"] == "bfloat16" or (s["dtype"] == "auto" and device != "cpu")
    return SFTConfig(
        output_dir=job.work,
        per_device_train_batch_size=s["micro_batch_size"],
        gradient_accumulation_steps=plan.accumulation,
        max_steps=plan.steps,  # the plan spans all epochs
        learning_rate=s["learning_rate"],
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(s["schedule"], s["schedule"]),
        warmup_steps=s["warmup"],  # below 1: a share of the steps
        weight_decay=s["weight_decay"],
        max_grad_norm=s["clip"],
        seed=job.seed % 2**32,
        bf16=bf16,
        use_cpu=device == "cpu",
        gradient_checkpointing=s["gradient_checkpointing"],
        deepspeed=layout.get("deepspeed"),
        use_liger_kernel=s["liger"],
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,  # ours: see gsi/train/packing.py
        logging_steps=10,
        logging_nan_inf_filter=False,
        save_strategy="no",  # ours: see Report
        report_to="none",  # ours: see gsi/train/tracking.py
        **({"run_name": track["name"], "project": track["project"]} if (track := s.get("tracking")) else {}),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        ddp_timeout=1800,
    )


def model(job: TrainJob, args: SFTConfig, device: str, packing: bool) -> tuple[Any, Any, torch.dtype]:
    """The model to train, its peft config or None, and the dtype its files have.

    A model that cannot be packed is refused with train.packing=true, and loaded to be padded where the choice is ours (`packed.packs` tells).
    """
    s, layout = job.settings, read_layout(job.settings)
    config = AutoConfig.from_pretrained(job.model)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    options: dict[str, Any] = {}
    if packing:
        options["attn_implementation"] = packed.register()
    sharded = "fsdp" in layout and s["processes"] > 1
    if sharded:
        from transformers.distributed import DistributedConfig

        _ = args.device  # starts the process group
        options["distributed_config"] = DistributedConfig(fsdp_size=s["processes"], **layout["fsdp"])
    if s["method"] == "qlora":
        from transformers import BitsAndBytesConfig

        compute = torch.bfloat16 if args.bf16 else torch.float32
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
        options["device_map"] = {"": args.device}
    # master weights in float32; autocast does the rest on GPU. LoRA keeps the frozen base as it is stored.
    keep = s["method"] != "full" and device != "cpu"
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            job.model, dtype=stored if keep else torch.float32, **options, use_safetensors=True
        )
    except (OSError, ValueError) as e:
        hint = "; train.packing=false may help" if packing else ""
        raise GsiError(f"{job.model} cannot be loaded for training ({s['method']}, {s['parallel']}): {e}{hint}") from e
    # a pad token that is also the end of a text (models have one from earlier versions of ours) would get no gradient where it is read
    loaded.get_input_embeddings().padding_idx = None
    if packing:
        if not sharded and s["method"] != "qlora":  # those two are where they belong
            loaded.to(args.device)
        if not packed.isolates(loaded, str(args.device), bool(args.bf16)):
            if s["packing"]:
                raise GsiError(
                    f"train.packing: packed rows would see each other in this architecture ({type(loaded).__name__}), or it takes none; set train.packing=false"
                )
            loaded.set_attn_implementation(loaded.get_correct_attn_implementation(None))  # transformers' choice for this model
    if s["method"] == "full":
        return loaded, None, stored
    from peft import LoraConfig, prepare_model_for_kbit_training

    if s["method"] == "qlora":
        loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=s["gradient_checkpointing"])
    return loaded, LoraConfig(r=s["lora_r"], lora_alpha=s["lora_alpha"], target_modules="all-linear", task_type="CAUSAL_LM"), stored


def part(trainer: Any) -> dict[str, Any]:
    """What this process did and held: its rank, the rows it trained on, parameters here and in the whole model."""
    wrapped = trainer.model_wrapped
    local = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in wrapped.parameters())
    rank, rows = trainer.args.process_index, trainer.collate.rows
    return {
        "rank": rank,
        "rows": rows,
        "kind": type(wrapped).__name__,
        "local": local,
        "whole": sum(p.numel() for p in wrapped.parameters()),
    }


def save(job: TrainJob, trainer: Any, stored: torch.dtype, merge: bool) -> None:
    """Writes job.output in plain transformers form, in the dtype the model came in, with its own tokenizer and nothing of the training."""
    output, first = Path(job.output), os.environ.get("RANK", "0") == "0"
    trained = trainer.accelerator.unwrap_model(trainer.model)
    sharded = trainer.is_distributed_loading_by_transformers or trainer.is_deepspeed_enabled
    if merge:  # into the base as it is stored, loaded afresh: the same for LoRA, QLoRA and sharded bases
        adapter = Path(job.work) / "adapter"
        trained.save_pretrained(adapter)
        trainer.accelerator.wait_for_everyone()
        if first:
            from peft import PeftModel

            base = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, use_safetensors=True)
            _write(PeftModel.from_pretrained(base, adapter).merge_and_unload(), output, stored)
            shutil.rmtree(adapter)
    elif sharded:
        whole = Path(job.work) / "whole"
        trainer.save_model(str(whole))  # every process gives its shards, the first writes
        trainer.accelerator.wait_for_everyone()
        if first:
            _write(AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32, use_safetensors=True), output, stored)
            shutil.rmtree(whole)
    elif first:
        _write(trained, output, stored)
    if first:
        AutoTokenizer.from_pretrained(job.tokenizer).save_pretrained(output)  # as it was: no pad token of our making
    trainer.accelerator.wait_for_everyone()


def _write(model: Any, output: Path, stored: torch.dtype) -> None:
    model.config.use_cache = True
    if packed.packs(model):
        model.config._attn_implementation = "sdpa"
    model.to(stored).save_pretrained(output)
