"""What the README and docs/*.md say is typed in here: every command parses, and `make docs` (marker `docs`) runs it in a small made-up world.

In that world models are scripted (a run takes a second), names of the docs (RUN, DATA, config.yaml, ...) stand for prepared files, and code
blocks with a title are files of their page. What is not run there is in ELSEWHERE, with the reason and the test that does run it.
"""

import importlib.util
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scripted
import yaml

import gsi
from gsi import cli
from gsi.bench import BENCHES
from gsi.config import Config, load_config
from gsi.progress import Reporter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()

# beginning of a command -> why it is not run here; all of them are parsed
ELSEWHERE = {
    "gsi view": "serves until it is stopped; tests/test_view.py",
    "gsi bench": "minutes; its name is checked here",
    "gsi study": "core-hours; its --dry-run is run here, tests/test_study.py",
    "gsi push RUN --repo": "uploads; tests/test_push.py has a stand-in for the hub",
    "gsi push runs/mine --repo": "uploads; tests/test_push.py has a stand-in for the hub",
    "gsi compare RUN --controls": "seven runs; tests/test_controls.py",
    "gsi compare --controls": "seven runs; tests/test_controls.py",
    "gsi grade --programs": "needs bubblewrap; tests/test_programs.py",
    "gsi report RUN --figures": "draws every plot; tests/test_report.py",
    "gsi evaluate": "needs a real model; with --harness tests/test_harness.py, without tests/test_loop.py",
    "gsi import samples.jsonl RUN --task math --model": "needs a real model; tests/test_import_export.py",
    "gsi cluster": "starts processes on machines; the tests of the cluster",
    "gsi bench cluster": "minutes",
}  # fmt: skip
PLACES = {  # a name in the docs -> what stands for it
    "RUN": "runs/gsm8k", "RUN...": "runs/gsm8k", "RUN_OR_DIR": "runs", "A": "runs/vanilla", "B": "runs/first", "C": "runs/second", "MODEL": "model", "DATA": "data.jsonl", "DATA.jsonl": "data.jsonl",
    "FILE": "data.jsonl", "TRAIN": "data.jsonl", "TEST": "test.jsonl", "CONFIG.yaml": "small.yaml", "CONFIG": "small.yaml", "STUDY.yaml": "studies/check.yaml", "T": "gsm8k", "N": "1",
    "DIR": "out", "NAME": "name", "TASK": "gsm8k", "RUN/config.yaml": "runs/gsm8k/config.yaml", "aqua_cot.jsonl.gz": "data.jsonl", "mathqa.jsonl.gz": "test.jsonl",
}  # fmt: skip
RUNS = ("gsm8k", "vanilla", "state_reset", "other", "first", "second")


@dataclass(frozen=True)
class Command:
    page: Path
    line: int
    text: str  # as it stands there, without comment and redirection

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}: {self.text}"


def blocks(page: Path):
    """(line, language, title, text) of code blocks, fenced and indented; inline code has language `inline`."""
    lines = page.read_text().splitlines()
    number, language, title, held, start = 0, None, "", [], 0
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*```(\w*)(?:.*title=\"([^\"]+)\")?", line)
        if fence:
            if language is None:
                language, title, held, start = fence.group(1) or "text", fence.group(2) or "", [], number + 1
            else:
                yield start, language, title, "\n".join(held)
                language = None
        elif language is not None:
            held.append(line)
        elif line.startswith("    ") and not line.lstrip().startswith(("-", "*")):
            yield number, "indent", "", line.strip()
        else:
            for code in re.findall(r"`([^`]+)`", line):
                yield number, "inline", "", code


def commands(page: Path) -> list[Command]:
    found = []
    for start, language, title, text in blocks(page):
        if title or language in ("yaml", "json", "python", "mermaid"):
            continue
        for i, line in enumerate(text.splitlines()):
            for part in line.split(";"):
                part = re.split(r"\s+#|\s{3,}|\s>\s", part.strip())[0].strip()
                part = inner.group(1) if (inner := re.match(r'eval "\$\((.*)\)"', part)) else part
                words = part.split()
                known = len(words) > 1 and (words[0] != "gsi" or words[1] in NAMES or words[1].startswith("--"))
                if known and words[0] in ("gsi", "make", "python", "python3", "pip", "docker"):
                    found.append(Command(page, start + i, part))
    return found


PARSER = cli.make_parser()
NAMES = next(a for a in PARSER._actions if hasattr(a, "choices") and a.choices).choices
ALL = [c for page in PAGES for c in commands(page)]


def words_of(command: Command) -> list[str]:
    return [PLACES.get(w, w) for w in shlex.split(command.text.replace("[...]", ""))]


def complete(words: list[str]) -> bool:
    """Whether it is meant to be typed: `gsi run`, `gsi export` or `gsi tasks check` alone is a mention."""
    return len(words) > (3 if words[1:2] == ["tasks"] and words[2:] != ["list"] else 2) or (
        len(words) == 2 and words[1] in ("env", "schema", "--version")
    )


def test_there_are_commands_to_check():
    assert len([c for c in ALL if c.text.startswith("gsi ")]) > 60
    assert {c.page.name for c in ALL} >= {
        "README.md",
        "quickstart.md",
        "your_data.md",
        "your_checker.md",
        "data.md",
        "one_gpu.md",
        "report.md",
    }


def test_no_page_and_no_command_is_overlooked():
    """All Markdown that people read is in PAGES, and what reads `gsi COMMAND ARGUMENT` anywhere in it has been collected."""
    known = {p.resolve() for p in PAGES}
    written = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("studies/*.md")]
    assert {p.resolve() for p in written} - known <= {
        ROOT / "CHANGELOG.md",
        ROOT / "studies" / "heading.md",
    }  # history; a part of docs/findings.md
    for page in PAGES:
        text = re.sub(r"```(?:yaml|json|python|mermaid).*?```|```\w* title=.*?```", "", page.read_text(), flags=re.DOTALL)
        found = " \n ".join(c.text for c in ALL if c.page == page)
        for name, argument in re.findall(
            r"(?<![\w./-])gsi ([a-z]+) +([\w./-]+)", "\n".join(re.findall(r"(?:^|\n) {4}(?=gsi ).*|`gsi [^`]+`|\ngsi .*", text))
        ):
            if name in NAMES:
                assert f"gsi {name} {argument}" in re.sub(r" +", " ", found), f"{page.name}: gsi {name} {argument} is not collected"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_one(page, capsys):
    wrong = []
    for command in (c for c in ALL if c.page == page):
        words = words_of(command)
        if words[0] == "gsi" and complete(words) and words[1] != "--version":
            try:
                args, rest = PARSER.parse_known_args(words[1:])
                if any(r.startswith("-") or "=" not in r for r in rest):
                    wrong.append(f"{command}: unknown: {rest}")
                if words[1] == "bench" and args.name not in BENCHES:
                    wrong.append(f"{command}: no such bench")
            except SystemExit:
                wrong.append(f"{command}: {capsys.readouterr().err.splitlines()[-1]}")
        elif words[0] == "make":
            target = next((w for w in words[1:] if "=" not in w), "")
            if not re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE) and "Not there yet" not in line_of(command):
                wrong.append(f"{command}: the Makefile has no target {target}")
        elif words[0].startswith("python") and words[1:2] == ["-m"] and words[2].startswith("gsi"):
            spec = importlib.util.find_spec(words[2])
            if spec is None or not spec.origin:
                wrong.append(f"{command}: no such module")
                continue
            source = Path(spec.origin).read_text()
            wrong += [f"{command}: {w} is no option of {words[2]}" for w in words[3:] if w.startswith("--") and f'"{w}"' not in source]
        elif words[0] == "pip" and (extras := re.search(r"guided-self-improvement\[(\w+)\]", command.text)):
            if f"\n{extras.group(1)} = [" not in (ROOT / "pyproject.toml").read_text():
                wrong.append(f"{command}: no such extra")
        elif words[:2] == ["docker", "build"] and not (ROOT / words[words.index("-f") + 1]).exists():
            wrong.append(f"{command}: no such file")
    assert not wrong, "\n".join(wrong)


def line_of(command: Command) -> str:
    return command.page.read_text().splitlines()[command.line - 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_piece_of_config_loads(page):
    base = {"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k", "path": "x.jsonl"}], "teacher": {"kind": "self"}}
    base |= {"keep_models": "all", "evaluate": {"validation": 0.1}}
    keys = {info.alias or name for name, info in Config.model_fields.items()}
    for line, language, _, text in blocks(page):
        data = yaml.safe_load(text) if language == "yaml" else None
        if isinstance(data, dict) and set(data) <= keys:
            assert load_config(base | data), f"{page.name}:{line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_the_repository_lead_somewhere(page):
    """Those of docs/ to one another, with their headings, are checked by mkdocs too (`make docs`)."""
    dead = []
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        made = path in ("commands.md", "config.md") and page.parent.name == "docs"
        file = page.parent / path
        if not made and not file.exists():
            dead.append(target)
        elif heading and not made:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            if heading not in {re.sub(r"[^\w\s-]", "", t.replace("`", "")).strip().lower().replace(" ", "-") for t in titles}:
                dead.append(target)
    assert not dead


# --------------------------------------------------------------------------------------- run


QUESTIONS = [
    {"question": f"What is {i} plus {i + 1}?", "problem": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1), "rationale": f"{i} + {i + 1} = {2 * i + 1}.\nThe answer is {2 * i + 1}", "level": 1 + i % 5}
    for i in range(12)
]  # fmt: skip
SCRIPTED = [
    f"engine={{kind: scripted, function: '{scripted.HERE}:tell'}}", f"train={{kind: scripted, function: '{scripted.HERE}:make_folder'}}",
    "prompt={template: '{question} '}",
]  # fmt: skip


def lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with what the docs take for granted."""
    from models import build

    folder = tmp_path_factory.mktemp("world")
    for name in ("data", "mine", "theirs", "train"):
        lines(folder / f"{name}.jsonl", QUESTIONS)
    lines(
        folder / "test.jsonl", [{**q, "question": q["question"].replace("What", "And what"), "answer": q["answer"]} for q in QUESTIONS[:3]]
    )
    samples = [
        {"question": q["question"], "answer": q["answer"], "response": [f"The answer is {q['answer']}", "The answer is 999"]}
        for q in QUESTIONS
    ]
    lines(folder / "samples.jsonl", samples)
    paper = [{"item_id": f"gsm8k_{i}", "question": q["question"], "answer_cot": "x", "answer_value": q["answer"], "pred": [f"The answer is {q['answer']}"]} for i, q in enumerate(QUESTIONS)]  # fmt: skip
    (folder / "results.json").write_text(json.dumps(paper))
    trl = [{"prompt": q["question"], "completion": f"The answer is {q['answer']}"} for q in QUESTIONS]
    pq.write_table(pa.Table.from_pylist(trl), folder / "sft.parquet")
    for name in ("configs", "studies", "docker"):
        (folder / name).symlink_to(ROOT / name)
    config = scripted.config(
        folder / "runs" / "gsm8k", tasks=[{"name": "gsm8k", "path": str(folder / "data.jsonl")}],
        train={"kind": "scripted", "function": f"{scripted.HERE}:make_folder"},
    )  # fmt: skip
    for name in ("small.yaml", "config.yaml"):
        (folder / name).write_text(yaml.safe_dump(config | {"output_dir": "runs/small", "model": "model"}))
    gsi.run(config, reporter=Reporter("quiet"))
    for name in RUNS[1:]:
        shutil.copytree(folder / "runs" / "gsm8k", folder / "runs" / name)
    build(folder / "model")
    return folder


def prepared(words: list[str], number: int, page_files: set[str]) -> list[str]:
    """The words as they are run: with scripted models, local data in place of the hub's, folders that do not exist yet where one is made."""
    name, rest = words[1], words[2:]
    if name == "run":
        config = rest[0]
        words = [*words, *SCRIPTED]
        if config.startswith("configs/lab/"):  # generated tasks, which the scripted model cannot answer
            words += ["--dry-run"]
        elif config.startswith("configs/"):
            found = load_config(config)
            words += [f"tasks.{i}.path=data.jsonl" for i in range(len(found.tasks))] + [
                f"evaluate.tasks.{i}.path=test.jsonl" for i in range(len(found.evaluate.tasks))
            ]
            words += [f"output_dir=runs/command-{number}", "iterations=1", "evaluate.validation=2"]
        elif config not in page_files:
            words += [f"output_dir=runs/command-{number}"]
    elif name == "profile":
        words = [*words, *SCRIPTED[::2], "--output", f"profile-{number}"]
    elif name == "import":
        target = rest[1] if rest[1].startswith("runs/imported") else f"runs/imported-{number}"
        words = [
            *words[:3],
            target,
            *("data.jsonl" if w == "gsm8k" and words[i - 1] == "--questions" else w for i, w in enumerate(words) if i > 3),
        ]
    elif name == "export":
        words[3] = f"rows-{number}.jsonl"
    elif name in ("push", "merge"):
        words = [*words[:2], "model", "model", *words[4:]] if name == "merge" else words
        words = [f"out-{number}" if words[i - 1] in ("--to", "--output") else w for i, w in enumerate(words)]
    elif name == "study" and "--dry-run" not in words:
        words = [*words, "--dry-run"]
    elif name in ("sample", "curate", "train") and "runs/gsm8k" in words:
        words = ["runs/second" if w == "runs/gsm8k" else w for w in words]
    return words


@pytest.mark.docs
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(c.text.startswith("gsi ") and complete(c.text.split()) for c in commands(p))], ids=lambda p: p.name
)
def test_every_command_runs(page, world, tmp_path, monkeypatch, capsys):
    import io

    here = tmp_path / "here"
    shutil.copytree(world, here, symlinks=True)
    monkeypatch.chdir(here)
    files = {title: text for _, _, title, text in blocks(page) if title}
    for title, text in files.items():
        Path(title).write_text(text + "\n")
    failed, ran = [], 0
    for number, command in enumerate(c for c in ALL if c.page == page and c.text.startswith("gsi ")):
        words = words_of(command)
        plain = " ".join(w.replace("...", "") for w in command.text.split())
        if not complete(words) or any(plain.startswith(beginning) for beginning in ELSEWHERE if beginning != "gsi study"):
            continue
        words = prepared(words, number, set(files))
        answer = {"response": "The answer is 4", "answer": "4"}
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(answer) + "\n"))
        try:
            code = cli.main(words[1:])
        except SystemExit as e:  # --version
            code = int(e.code or 0)
        said = capsys.readouterr()
        ran += 1
        if code:
            failed.append(f"{command}\n    {shlex.join(words)}\n    exit code {code}: {said.err.strip()[-600:]}")
    assert not failed, "\n".join(failed)
    print(f"{page.name}: {ran} commands run")
