"""The house stands as designed: imports point one way, `import gsi` is light, the config and the example hold."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.strategies import PAPER, STRATEGIES

ROOT = Path(__file__).parent.parent
GSI = ROOT / "gsi"

BASIC = {"types", "config", "strategies", "prompts", "seeds", "weights", "hub", "wire", "wording"}
# what each part may import of ours; a folder may always import itself
ALLOWED = {
    "types": set(), "seeds": set(), "stats": set(), "strategies": set(), "presets": set(), "wording": {"types"}, "config": {"types", "strategies", "presets", "wording"}, "prompts": {"types"}, "shuffle": {"types", "seeds"},
    "allocation": BASIC, "guidance": BASIC, "engines": BASIC,
    "tasks": BASIC | {"lab"}, "verify": BASIC | {"lab"},  # the registries name the lab's task
    "ledger": BASIC, "curate": BASIC, "controls": BASIC, "metrics": BASIC | {"ledger", "stats"}, "progress": {"sampling"},
    "sampling": BASIC | {"ledger", "attempts", "recording"}, "attempts": BASIC | {"shuffle"}, "recording": BASIC | {"ledger", "attempts"},
    "checksums": set(), "disks": set(), "mirror": {"types"}, "faults": {"types"}, "interrupts": set(), "stall": {"types", "interrupts"}, "salvage": {"ledger", "files"},
    "files": {"types"}, "runfolder": BASIC | {"files", "ledger", "checksums", "disks", "mirror"}, "parquet": {"types"}, "train": BASIC | {"stall", "dimensions"},
    "report": BASIC | {"ledger", "metrics", "progress", "stats", "tasks", "verify"},
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Parts of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gsi":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("gsi.")}
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_point_one_way(part):
    files = [GSI / f"{part}.py"] if (GSI / f"{part}.py").exists() else sorted((GSI / part).glob("*.py"))
    assert files
    for path in files:
        assert imports(path) - {part} <= ALLOWED[part], path


def test_lab_tasks_are_leaves():
    assert imports(GSI / "lab" / "chain.py") == imports(GSI / "lab" / "dag.py") == imports(GSI / "lab" / "multiply.py") == {"types"}


def test_import_gsi_loads_neither_torch_nor_transformers():
    code = "import sys, gsi, gsi.cli, gsi.config, gsi.tasks, gsi.verify; print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'sympy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_what_every_command_starts_with_is_light():
    """`import gsi` and `gsi --version` take a fraction of a second because they load next to nothing (`gsi bench start` measures it)."""
    heavy = ("pydantic", "numpy", "yaml", "rich", "gsi.config", "gsi.verify", "asyncio", "multiprocessing")
    code = f"import sys, gsi; print([m for m in {heavy} if m in sys.modules]); import gsi.cli; gsi.cli.make_parser(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")[:2] == ["[]", "[]"]


def test_the_loop_is_short_enough_to_read():
    assert len((GSI / "loop.py").read_text().splitlines()) < 160


def test_the_papers_settings_are_the_defaults():
    c = load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k"}]})
    assert (c.iterations, c.sample.k, c.sample.wanted, c.sample.temperature, c.sample.max_new_tokens) == (4, 8, 4, 0.7, 1024)
    assert (c.train.from_, c.train.data, c.train.epochs, c.train.learning_rate, c.train.batch_size, c.train.warmup) == (
        "base",
        "replace",
        1,
        1e-5,
        64,
        0.1,
    )
    assert (c.train.schedule, c.train.clip, c.curate.cap, c.curate.distinct) == ("linear", 1.0, 0, False)
    extras = {
        name: load_config(
            {**c.dump(), "sample": {}, "allocation": {}, "guidance": {}, "strategy": name, "teacher": {"url": "u", "model": "m"}}
        ).sample.max_extra
        for name in PAPER
    }
    assert extras == {"vanilla": 0, "brute_force": 128, "answer_driven": 8, "rationale_driven": 8, "interactive": 8, "state_reset": 8}


BASE = {"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k", "path": "x.jsonl"}]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["smaple.k=4"], "unknown key 'smaple' (did you mean 'sample'?)"),
        (["sample.kk=4"], "unknown key 'sample.kk' (did you mean 'k'?)"),
        (["sample.k=many"], "sample.k: "),
        (["sample.temperature=-1"], "sample.temperature: "),
        (["engine.kind=vllmm"], "engine: "),
        (["engine.max_row=3"], "did you mean 'max_rows'?"),
        (["strategy=state-reset"], "did you mean 'state_reset'?"),
        (["train.from=middle"], "train.from: "),
        (["tasks.0.pth=y"], "did you mean 'path'?"),
        (["tasks.3.path=y"], "no index of a list of 1"),
        (["tasks.0.hub=a/b"], "tasks[0]: has both path and hub"),
        (["tasks=[]"], "tasks: "),
        (["evaluate.validation=.inf"], "evaluate.validation: input should be a finite number"),
        (["strategy=interactive"], "teacher: "),
        (["iterations"], "expected key=value"),
        (["train.kind=scripted"], "train.function"),
    ],
)
def test_config_errors_name_the_key_and_the_fix(overrides, message):
    with pytest.raises(ConfigError) as e:
        load_config(BASE, overrides)
    assert message in str(e.value)


def test_config_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("model: [unclosed")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(tmp_path / "list.yaml")


def test_a_config_that_holds_itself_is_refused_and_one_that_repeats_itself_is_not(tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text("model: m\noutput_dir: o\ntasks: [{name: chain, args: &a {levels: [1], more: [*a]}}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tasks\.0\.args\.more\.0 holds itself"):
        load_config(path)
    path.write_text("model: m\noutput_dir: o\ntasks: [&a {name: chain, args: {levels: [1]}}]\nevaluate: {tasks: [*a]}\n", encoding="utf-8")
    assert load_config(path).evaluate.tasks[0].name == "chain"
    with pytest.raises(ConfigError, match=r"prompt\.instruction holds half of a surrogate pair"):
        load_config(BASE | {"prompt": {"instruction": "\ud800"}})
    with pytest.raises(ConfigError, match=r"evaluate\.avg_at_k is a whole number beyond 64 bits"):
        load_config(BASE | {"evaluate": {"avg_at_k": 10**400}})
    with pytest.raises(ConfigError, match="strategy: unknown"):
        load_config(BASE | {"strategy": [[]]})


def test_a_resolved_config_reads_back_as_itself():
    for name in STRATEGIES:
        config = load_config(
            {**BASE, "strategy": name, "teacher": {"url": "u", "model": "m"}, "control": True, "curate": {"like": "run"}},
            ["sample.stop=['\\n\\n']", "warm_start={}"],
        )
        assert load_config(config.dump()) == config


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
def test_shipped_configs_load_and_plan(name, data_dir, capsys):
    from gsi.plan import print_plan

    file = data_dir / "train" / "gsm8k_cot.jsonl.gz"
    config = load_config(ROOT / "configs" / name, [f"tasks.0.path={file}", f"evaluate.tasks.0.path={data_dir / 'test' / 'gsm8k.jsonl.gz'}"])
    print_plan(config)
    out = capsys.readouterr().out
    assert "attempts" in out
    assert "2,8" in out, "about 2,850 training queries remain beside the validation split"


def test_exit_code_2_and_nothing_half_written(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    for text, message in {
        f"model: {tmp_path}/none\noutput_dir: {tmp_path}/run\ntasks: [{{name: chain, args: {{seed: 1, per_level: 2}}}}]": "is no directory",
        f"model: m\noutput_dir: {tmp_path}/run\ntasks: [{{name: gsm8k, path: {tmp_path}/none.jsonl}}]": "none.jsonl",
        f"model: m\noutput_dir: {tmp_path}/run\ntsks: []": "tsks",
        f"model: lab:nothing\noutput_dir: {tmp_path}/run\ntasks: [{{name: chain, args: {{seed: 1, per_level: 2}}}}]": "no lab model",
    }.items():
        path.write_text(text)
        assert main(["run", str(path), "--log", "quiet"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_grade_keeps_order_and_names_bad_lines(monkeypatch, capsys):
    import io

    rows = [{"response": f"so the answer is {i}", "answer": str(i if i % 3 else i + 1), "n": i} for i in range(30)]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(r) + "\n" for r in rows)))
    assert main(["grade", "--task", "gsm8k"]) == 0
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["n"] for r in out] == list(range(30))
    assert [r["correct"] for r in out] == [bool(i % 3) for i in range(30)]
    assert {r["status"] for r in out} == {"correct", "wrong"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"response": "4", "answer": "4"}\n{"response": "4"}\n'))
    assert main(["grade", "--task", "gsm8k"]) == 2
    captured = capsys.readouterr()
    assert "line 2" in captured.err
    assert json.loads(captured.out.splitlines()[0])["correct"] is True


def test_the_quickstart_is_short():
    assert len((ROOT / "examples" / "quickstart.py").read_text().splitlines()) < 35
