"""Every shipped recipe loads and plans without a hub; its dimensions are the model's."""

import json
from pathlib import Path

import pytest
import torch

from gsi import cost, dimensions
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.config.cost import Dimensions
from gsi.presets import PRESETS
from gsi.strategies import PAPER

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs" / "paper").glob("*.yaml")) + sorted((ROOT / "configs" / "small").glob("*.yaml"))
PARAMETERS = {  # of the checkpoints, as their safetensors indices add up
    "meta-llama/Llama-2-7b-hf": 6_738_415_616, "meta-llama/Meta-Llama-3-8B": 8_030_261_248, "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "deepseek-ai/deepseek-math-7b-base": 6_910_365_696, "Qwen/Qwen3-0.6B": 596_049_920, "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096, "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400, "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624, "google/gemma-3-1b-it": 999_885_952,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[str, str]:
    """(training rows, test rows) that any task can read; programs as rationales, which are text too."""
    folder = tmp_path_factory.mktemp("data")
    choices = "Answer Choices: (A) 1 (B) 2 (C) 3 (D) 4 (E) 5"
    for name, ask in (("train", "What is {} plus 2?"), ("test", "And what of {} times 3?")):
        rows = []
        for i in range(20):
            rows.append(
                {
                    "question": ask.format(i) + f"\n{choices}",
                    "answer": "A",
                    "rationale": "print('A')",
                    "level": 1 + i % 5,
                    "options": list("12345"),
                }
            )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(folder / "train.jsonl"), str(folder / "test.jsonl")


def local(recipe: Path, files: tuple[str, str]) -> list[str]:
    config = load_config(recipe)
    paths = [f"tasks.{i}.path={files[0]}" for i in range(len(config.tasks))]
    return paths + [f"evaluate.tasks.{i}.path={files[1]}" for i in range(len(config.evaluate.tasks))]


def test_all_recipes_are_there():
    paper = {f"{m}-{mode}" for m in ("llama2-7b", "llama3-8b", "mistral-7b", "deepseek-math-7b") for mode in ("cot", "pot")}
    small = {
        f"{m}-{on}"
        for m in ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "llama-3.2-1b", "llama-3.2-3b", "smollm3-3b", "gemma-3-1b")
        for on in ("24gb", "8gpu")
    }
    assert {p.stem for p in RECIPES} == paper | small


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_plans_without_a_hub(recipe, files, capsys):
    assert main(["run", str(recipe), "--dry-run", *local(recipe, files), "cost.price_per_gpu_hour=2"]) == 0
    out = capsys.readouterr().out
    for line in ("sample: tokens, estimated", "memory per GPU, training", "FLOPs, estimated", "money, at 2 per GPU hour"):
        assert line in out
    assert "unknown" not in out
    assert "more memory than" not in out, "a recipe fits the GPU it is for"


@pytest.mark.parametrize("offline", [False, True], ids=["nobody answers", "offline"])
def test_a_recipe_as_it_is_plans_where_no_hub_answers(offline, monkeypatch, capsys):
    """Built-in data counts as large as it is on the hub, and the plan says that it was not read; what is not built in is refused."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", offline)  # first: importing `datasets` copies what the hub's constants say
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    cot, math = str(ROOT / "configs" / "paper" / "mistral-7b-cot.yaml"), str(ROOT / "configs" / "small" / "qwen3-1.7b-24gb.yaml")
    assert main(["run", cot, "--dry-run", "strategy=state_reset", "strata.draws=2"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "queries │ 9,500 │" in out  # 3000 + 4000 + 3000, less 5 %
    assert "validation queries │ 500 │" in out
    assert f"test queries (at the end) │ │ {1319 + 5000 + 254 + 300 + 800 + 2985:,} │" in out
    assert f"strata: responses (once) │ │ {2 * (3000 + 3000 + 1319 + 254 + 300 + 800 + 2985):,} │" in out, "math has levels"
    assert "warning: tasks.0: openai/gsm8k:main (split train): cannot be loaded" in out
    assert "neither read nor checked" in out
    if offline:
        assert main(["run", math, "--dry-run", "tasks.0.weight=1", "tasks.0.limit=100", "evaluate.validation=10"]) == 0
        assert "queries │ 90 │" in " ".join(capsys.readouterr().out.split())
    for refused in (["tasks.0.hub=some/data"], ["tasks.0.split=dev"], ["--probe", "5"])[:: 2 if offline else 1]:
        assert main(["run", math, "--dry-run", *refused]) == 2
        assert "cannot be loaded from the Hugging Face hub" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", PAPER)
def test_one_key_changes_the_strategy_of_a_paper_recipe(strategy):
    for mode in ("cot", "pot"):
        config = load_config(ROOT / "configs" / "paper" / f"mistral-7b-{mode}.yaml", [f"strategy={strategy}"])
        brute = {"cot": 128, "pot": 32}[mode]
        assert config.sample.max_extra == {"vanilla": 0, "brute_force": brute}.get(strategy, 8)
        assert config.output_dir == f"runs/paper/mistral-7b-{mode}-{strategy}"
        assert (config.guidance.mode, config.train.learning_rate, config.sample.k, config.sample.wanted) == ("paper", 1e-5, 8, 4)
        assert load_config(config.dump()) == config


def test_a_mixture_of_experts_is_not_taken_for_a_dense_model(tmp_path):
    """Its weights are counted in its files, or it is not known; the dimensions would count one expert."""
    from transformers import Qwen3Config, Qwen3MoeConfig

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 500}
    Qwen3Config(**sizes).save_pretrained(tmp_path / "dense")
    Qwen3MoeConfig(**sizes, num_experts=8).save_pretrained(tmp_path / "mixture")
    assert dimensions.read(str(tmp_path / "dense"))
    assert dimensions.read(str(tmp_path / "mixture")) is None


def test_dimensions_add_up_to_the_checkpoints():
    for recipe in RECIPES:
        config = load_config(recipe)
        assert dimensions.parameters(config.dimensions) == PARAMETERS[config.model], recipe


def architecture(name: str, d: Dimensions):
    import transformers as t

    kind = {"mistralai": "Mistral", "Qwen": "Qwen3", "HuggingFaceTB": "SmolLM3", "google": "Gemma3Text"}.get(name.split("/")[0], "Llama")
    shared = {
        "vocab_size": d.vocabulary, "hidden_size": d.hidden, "intermediate_size": d.intermediate, "num_hidden_layers": d.layers,
        "num_attention_heads": d.heads, "num_key_value_heads": d.kv_heads, "head_dim": d.head_dim or d.hidden // d.heads,
        "tie_word_embeddings": d.tied, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    config = getattr(t, kind + "Config")(**shared)
    return config, getattr(t, kind.replace("Text", "") + "ForCausalLM")


@pytest.mark.parametrize("model", sorted(PARAMETERS))
def test_the_formula_counts_what_the_architecture_has(model, tmp_path):
    d = next(c.dimensions for c in map(load_config, RECIPES) if c.model == model)
    d = d.model_copy(update={"layers": 4})  # each layer is as the others
    config, build = architecture(model, d)
    with torch.device("meta"):
        made = build(config)
    made.tie_weights()
    assert sum(p.numel() for p in made.parameters()) == dimensions.parameters(d)
    config.save_pretrained(tmp_path)
    assert dimensions.parameters(dimensions.read(str(tmp_path))) == dimensions.parameters(d), "read from the model's own config"
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(made, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sum(p.numel() for p in lora.parameters() if p.requires_grad) == dimensions.lora_parameters(d, 8)


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma3Text"])
@pytest.mark.parametrize(("method", "checkpointing"), [("full", False), ("full", True), ("lora", False), ("lora", True)])
def test_the_memory_formula_counts_what_a_training_pass_keeps(family, method, checkpointing):
    """All tensors that autograd holds between forward and backward of the real architectures, within 30 %; transients of the logits apart."""
    import transformers as t
    from peft import LoraConfig, get_peft_model

    more = {"Qwen3": {"qk_norm": True}, "Gemma3Text": {"qk_norm": True, "norms": 4}}.get(family, {})
    d = Dimensions(layers=4, hidden=128, heads=4, kv_heads=2, head_dim=48, intermediate=448, vocabulary=64, tied=True, **more)
    config = getattr(t, f"{family}Config")(
        vocab_size=d.vocabulary, hidden_size=d.hidden, intermediate_size=d.intermediate, num_hidden_layers=d.layers, num_attention_heads=d.heads,
        num_key_value_heads=d.kv_heads, head_dim=d.head_dim, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(t, family.replace("Text", "") + "ForCausalLM")(config).to(torch.float32 if method == "full" else torch.bfloat16)
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.config.use_cache = False
    model.train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept(tokens: int) -> int:
        held: dict[int, tuple[int, torch.Tensor]] = {}  # by storage, kept alive so that no address comes twice

        def pack(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = (storage.nbytes(), x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
            model(input_ids=torch.zeros(1, tokens, dtype=torch.long)).logits.sum()
        return sum(size for size, _ in held.values())

    per_token = (kept(192) - kept(64)) / 128  # what does not grow with the tokens are bfloat16 copies of the weights
    own = dimensions.activations(d, method, checkpointing) - 10.0 * d.vocabulary
    if checkpointing:  # one layer at a time comes back in the backward pass
        without = dimensions.activations(d, method, False) - 10.0 * d.vocabulary
        own -= without / d.layers
    assert per_token == pytest.approx(own, rel=0.3)
    if method == "full" and not checkpointing:
        copies = kept(64) - 64 * per_token
        assert copies == pytest.approx(2 * (dimensions.parameters(d) - d.vocabulary * d.hidden), rel=0.1)


def test_presets_fill_what_is_not_said():
    base = {"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k"}]}
    for name in PRESETS:
        config = load_config({**base, "preset": name, "sample": {"k": 2}})
        assert config.sample.k == 2
        assert load_config(config.dump()) == config
    thinking = load_config({**base, "preset": "qwen3-thinking", "train": {"method": "lora"}, "warm_start": {}}, ["sample.temperature=0.5"])
    assert (thinking.sample.temperature, thinking.sample.top_p, thinking.evaluate.avg_at_k, thinking.prompt.thinking) == (
        0.5,
        0.95,
        4,
        "keep",
    )
    assert (thinking.train.learning_rate, thinking.warm_start.learning_rate) == (1e-4, 1e-4)
    assert load_config({**base, "train": {"method": "lora", "learning_rate": 3e-5}}).train.learning_rate == 3e-5
    with pytest.raises(ConfigError, match=r"unknown 'qwen-3' \(did you mean 'qwen3'\?\)"):
        load_config({**base, "preset": "qwen-3"})


def test_costs_grow_as_they_should():
    config = load_config(ROOT / "configs" / "small" / "qwen3-4b-24gb.yaml", ["cost.price_per_gpu_hour=1"])
    d, n = config.dimensions, dimensions.parameters(config.dimensions)
    load = cost.Load(1000, 50, 100, cost.Range(8000, 16000), cost.Range(2000, 16000), 100, 200, 180)
    found = cost.estimate(config, load, n, d)
    assert found.generated == (8000 * 200 * 3, 16000 * 200 * 3)
    assert found.trained == (2000 * 180 * 3, 16000 * 180 * 3)
    assert found.money == found.hours
    twice = cost.estimate(config.model_copy(update={"iterations": 6}), load, n, d)
    assert 1.8 < twice.hours.low / found.hours.low < 2.1
    full = load_config(ROOT / "configs" / "small" / "qwen3-4b-24gb.yaml", ["train.method=full"])
    assert cost.memory(full, d, n, 100)[1] > 16 * n > 24e9, "all weights of 4B do not fit there"
