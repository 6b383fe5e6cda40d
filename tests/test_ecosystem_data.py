"""Data as others keep it: conversations, TRL's columns, mixtures, test questions that are trained on, a hub that refuses."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import scripted

import gsi
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.config.data import Task
from gsi.progress import Reporter
from gsi.queries import load_data
from gsi.tasks import load, mix
from gsi.tasks.endings import final_answer
from gsi.tasks.overlap import overlaps
from gsi.types import GsiError, Query

ROOT = Path(__file__).parent.parent


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def turns(*texts: str, roles: tuple[str, ...] = ("user", "assistant")) -> list[dict]:
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


ROWS = {  # a row as others have it, the mapping it needs -> question, answer, rationale
    "TRL prompt and completion": ({"prompt": "2+2?", "completion": "It is 4.\n#### 4"}, {}, ("2+2?", "4", "It is 4.\n#### 4")),
    "TRL conversational": (
        {"prompt": turns("2+2?"), "completion": turns("So \\boxed{4}.", roles=("assistant",))},
        {},
        ("2+2?", "4", "So \\boxed{4}."),
    ),
    "TRL solution": ({"prompt": turns("2+2?"), "solution": "$4$"}, {}, ("2+2?", "$4$", None)),
    "a whole solution": ({"prompt": "2+2?", "solution": "2+2 is $\\boxed{4}$."}, {}, ("2+2?", "4", "2+2 is $\\boxed{4}$.")),
    "messages": ({"messages": turns("2+2?", "The answer is 4.")}, {}, ("2+2?", "4", "The answer is 4.")),
    "messages with an answer": ({"messages": turns("2+2?", "Four."), "answer": 4}, {}, ("2+2?", "4", "Four.")),
    "a system turn": ({"messages": turns("Be short.", "2+2?", "The answer is 4.", roles=("system", "user", "assistant"))}, {}, ("Be short.\n\n2+2?", "4", "The answer is 4.")),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "The answer is **4**."}]},
        {},
        ("2+2?", "4", "The answer is **4**."),
    ),
    "DAPO": (
        {"prompt": turns("2+2?"), "reward_model": {"ground_truth": "4", "style": "rule"}, "data_source": "math_dapo"},
        {"answer": "reward_model.ground_truth"},
        ("2+2?", "4", None),
    ),
    "AIME": (
        {"id": 60, "problem": "Find x.", "solution": "It is $\\boxed{204}$.", "answer": "204", "url": "u", "year": "2024"},
        {"question": "problem", "rationale": "solution"},
        ("Find x.", "204", "It is $\\boxed{204}$."),
    ),
    "Omni-MATH": (
        {"domain": ["Mathematics -> Algebra"], "difficulty": 7.5, "problem": "Find y.", "solution": "So $y = 1$.", "answer": "1", "source": "imo"},
        {"question": "problem", "rationale": "solution", "level": "difficulty"},
        ("Find y.", "1", "So $y = 1$."),
    ),
    "Big-Math": ({"problem": "Find z.", "answer": "12", "source": "s", "domain": ["x"], "llama8b_solve_rate": 0.31}, {"question": "problem"}, ("Find z.", "12", None)),
    "parts": ({"q": [{"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]}], "a": ["4"]}, {"question": "q", "answer": "a.0"}, ("2+2?", "4", None)),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_others_become_queries(tmp_path, case):
    row, columns, expected = ROWS[case]
    (query,) = load(Task(name="mine", path=write(tmp_path / "d.jsonl", row), columns=columns)).queries
    assert (query.question, query.answer, query.rationale) == expected


def test_built_in_tasks_read_conversations_too(tmp_path):
    path = write(tmp_path / "d.jsonl", {"messages": turns("How many?", "2+2=<<2+2=4>>4\n#### 1,204")})
    (query,) = load(Task(name="gsm8k", path=path, columns={"question": "messages", "answer": "messages"})).queries
    assert (query.question, query.answer) == ("How many?", "1204")
    assert query.rationale is not None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("first \\boxed{1} then #### 2", "1"),
        ("so #### 1,200", "1200"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is: $x = 2$. That is all.", "$x = 2$"),
        ("the answer is 4\nbut no, the answer is 5", "5"),
        ("it is 4", None),
        ("#### 1,234", "1234"),
        ("#### $1,234.50", "$1234.50"),
        ("#### 1,50,000 rupees", "150000 rupees"),
        ("#### (1,2)", "(1,2)"),
        ("#### [2,500)", "[2,500)"),
        ("#### 1, 2, 3", "1, 2, 3"),
        ("####", None),
    ],
)
def test_the_answer_at_the_end_of_a_solution(text, answer):
    assert final_answer(text) == answer


def test_rows_without_an_answer_are_listed_and_left_out(tmp_path, capsys):
    rows = [
        {"question": "2+2?", "answer": "4"}, {"question": "3?", "answer": None}, {"question": " ", "answer": "4"}, {"question": "4?"},
        {"messages": turns("5?", "Five.")}, {"messages": turns("a", "b", "c", roles=("user", "assistant", "user")), "answer": "1"},
    ]  # fmt: skip
    path = write(tmp_path / "d.jsonl", *rows)
    data = load(Task(name="mine", path=path))
    assert [q.question for q in data.queries] == ["2+2?"]
    assert [(p.line, p.field) for p in data.problems] == [(2, "answer"), (3, "question"), (4, "answer"), (5, "answer"), (6, "question")]
    assert "2 turns of the user" in str(data.problems[-1])
    assert main(["tasks", "check", path]) == 0
    out = capsys.readouterr().out
    assert f"{path}:2: auto-00002: answer: empty" in out
    assert "1 of 6 questions are usable" in out


def test_options_of_others_are_shown_with_their_letters(tmp_path):
    row = {"question": "Which?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"}
    columns = {"options": "choices", "answer": "answerKey"}
    (query,) = load(Task(name="mine", path=write(tmp_path / "d.jsonl", row), columns=columns)).queries
    assert (query.question, query.options, query.answer) == ("Which?\nAnswer Choices: (A) red (B) blue", ("red", "blue"), "B")
    shown = {**row, "question": "Which?\nA. red\nB. blue"}
    assert load(Task(name="mine", path=write(tmp_path / "d.jsonl", shown), columns=columns)).queries[0].question == shown["question"]


def test_solutions_in_words_are_no_references_for_programs(tmp_path):
    path = write(tmp_path / "d.jsonl", *[{"question": "q", "answer": "4", "rationale": r} for r in ("print(2 + 2)", "Two and two are 4.")])
    assert [q.rationale for q in load(Task(name="gsm8k", path=path, programs=True)).queries] == ["print(2 + 2)", None]
    assert None not in [q.rationale for q in load(Task(name="gsm8k", path=path)).queries]


def test_math500_is_read_out_of_the_whole_test_set(data_dir, tmp_path):
    data = load(Task(name="math500", path=str(data_dir / "test" / "math.jsonl.gz"), split="test"))
    assert 300 < len(data.queries) <= 500
    assert data.hard_levels == (5,)
    row = {"problem": "P", "solution": "\\boxed{2}", "answer": "2", "subject": "Algebra", "level": 3, "unique_id": "test/algebra/1.json"}
    (query,) = load(Task(name="math500", path=write(tmp_path / "d.jsonl", row))).queries  # as the hub has it
    assert (query.id, query.answer, query.level) == ("test/algebra/1.json", "2", 3)


# ---------------------------------------------------------------------------------------------------- mixtures


def questions(task: str, n: int) -> list[Query]:
    return [Query(f"{task}-{i}", task, f"{task} {i}?", str(i)) for i in range(n)]


def test_a_mixture_has_its_proportions_and_repeats_nothing():
    pool = questions("a", 100) + questions("b", 30) + questions("c", 50)
    mixed = mix(pool, {"a": 2, "b": 1, "c": 0.5}, seed=1)
    assert Counter(q.task for q in mixed) == {"a": 60, "b": 30, "c": 15}
    assert len({q.id for q in mixed}) == len(mixed)
    assert [q for q in pool if q in mixed] == mixed
    assert mix(pool[::-1], {"a": 2, "b": 1, "c": 0.5}, seed=1)[::-1] == mixed, "who is in it depends on seed and ids alone"
    assert mix(pool, {"a": 2, "b": 1, "c": 0.5}, seed=2) != mixed
    assert mix(pool, {}, seed=1) == pool


def test_a_run_trains_on_the_mixture_of_its_config(tmp_path):
    weights = {"gsm8k": 3, "svamp": 1}
    files = {
        t: write(tmp_path / f"{t}.jsonl", *({"id": q.id, "question": q.question, "answer": q.answer} for q in questions(t, 40)))
        for t in weights
    }
    tasks = [{"name": t, "path": path, "weight": weights[t]} for t, path in files.items()]
    config = {"model": "m", "output_dir": "o", "tasks": tasks, "evaluate": {"validation": 0}}
    data = load_data(load_config(config))
    data.grader.close()
    assert Counter(q.task for q in data.train) == {"gsm8k": 40, "svamp": 13}
    for change, message in {
        "tasks.0.weight=null": "every task a name and a weight",
        "tasks.1.name=gsm8k": "a name",
        "evaluate.tasks=[{name: x, weight: 1}]": "not mixed",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config(config, [change])


# ---------------------------------------------------------------------------------------------------- overlap


LONG = "A train leaves the station at noon with 12 passengers and picks up 30 more at every one of its seven stops"


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("What is 2 + 2?", "what is  2+2 ?", "exact"),
        ("What is $2 - 2$?", "What is 2 \u2212 2?", "exact"),
        ("What is 2 - 2?", "What is 2 + 2?", None),
        ("Who? Answer Choices: (A) 1 (B) 2", "Who?\nAnswer Choices: a ) 3 , b ) 4", "exact"),
        (LONG + ". How many are there?", LONG + ", how many people are on it?", "ngram"),
        (LONG.replace("12", "13"), LONG, None),  # another number in the middle breaks eight of the fourteen runs
        ("How many are 5 and 7?", "How many are 5 and 8?", None),
    ],
)
def test_overlap(train, test, kind):
    found = overlaps([Query("t", "x", train, "1"), Query("u", "x", "Something else?", "1")], [Query("q", "y", test, "1")])
    assert [(o.kind, o.train.id) for o in found] == ([(kind, "t")] if kind else [])


def test_overlap_of_real_data(data_dir, capsys):
    """MathQA is built on AQuA; the data marks the test questions whose letters and digits stand in its train files."""
    with gzip.open(data_dir / "test/mathqa.jsonl.gz", "rt") as f:
        seen = {row["id"] for row in map(json.loads, f) if row.get("seen_in_train")}
    assert main(["tasks", "overlap", str(data_dir / "train/aqua_cot.jsonl.gz"), str(data_dir / "test/mathqa.jsonl.gz"), "--json"]) == 0
    *lines, counts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    exact = {line["test"] for line in lines if line["kind"] == "exact"}
    assert 100 < len(exact) == counts["exact"]
    assert exact <= seen
    assert 0 < len(lines) - len(exact) == counts["ngram"] < 100


def test_a_run_leaves_test_questions_out_that_it_trains_on(tmp_path, capsys):
    config = scripted.overlapping(tmp_path, iterations=1)
    run = gsi.run(config, reporter=Reporter("lines")).path
    said = "".join(capsys.readouterr())
    results = json.loads((run / "iter_1" / "eval.json").read_text())["test"]["gsm8k"]
    assert (results["n"], results["overlap/exact"], results["overlap/ngram"], results["overlap/left_out"]) == (5, 1, 0, 1)
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["test/gsm8k/overlap/left_out"] == 1
    assert [json.loads(x)["test"] for x in (run / "overlap.jsonl").read_text().splitlines()] == ["seen"]
    assert "1 questions are also training questions (1 the same text, 0 nearly): left out" in said

    quiet = Reporter("quiet")
    counted = gsi.run(
        {**config, "output_dir": str(tmp_path / "counted"), "evaluate": config["evaluate"] | {"overlap": "count"}}, reporter=quiet
    ).path
    results = json.loads((counted / "iter_1" / "eval.json").read_text())["test"]["gsm8k"]
    assert (results["n"], results["overlap/exact"], results["overlap/left_out"]) == (6, 1, 0)

    with pytest.raises(GsiError, match="every test question of gsm8k is also a training question"):
        gsi.run({**config, "output_dir": str(tmp_path / "same"), "evaluate": {"tasks": config["tasks"]}}, reporter=quiet)


# ---------------------------------------------------------------------------------------------------- commands and the hub


def test_commands_show_what_a_run_would_read(tmp_path, capsys):
    path = write(tmp_path / "d.jsonl", {"problem": "2+2?", "gold": 4, "difficulty": 5.5})
    assert main(["tasks", "show", path]) == 2
    assert "columns: {question: problem, answer: gold}" in capsys.readouterr().err
    assert main(["tasks", "show", path, "--columns", "question=problem,answer=gold,level=difficulty"]) == 0
    out = capsys.readouterr().out
    assert '"question": "2+2?"' in out
    assert "levels: 5: 1" in out
    assert main(["tasks", "list"]) == 0
    assert "HuggingFaceH4/MATH-500" in capsys.readouterr().out
    assert main(["tasks", "show", "math500"]) == 0
    assert "only split test" in capsys.readouterr().out
    assert main(["tasks", "overlap", path]) == 2
    assert "expected TRAIN and TEST" in capsys.readouterr().err
    assert main(["tasks", "check", path, "--columns", "nothing=problem"]) == 2
    assert "expected FIELD=COLUMN" in capsys.readouterr().err


@pytest.fixture
def gated_hub():
    """A stand-in for the hub that answers every request as the real one does for something gated."""

    class Hub(BaseHTTPRequestHandler):
        def answer(self):
            self.send_response(200 if self.path == "/" else 403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def outside(code: str, hub: str) -> str:
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT)
    return done.stdout + done.stderr


CODE = """
from gsi import build
from gsi.config import load_config
from gsi.config.data import Task
from gsi.tasks import load
from gsi.types import GsiError
config = load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k"}]})
for ask in (lambda: load(Task(name="mine", hub="some/data")), lambda: build.load_tokenizer(config, "some/model")):
    try:
        ask()
    except GsiError as e:
        print(e)
"""


def test_something_gated_says_how_to_log_in(gated_hub):
    said = outside(CODE, gated_hub)
    for page in ("some/model", "datasets/some/data"):
        assert f"accept its conditions at https://huggingface.co/{page} and log in with `hf auth login`" in said


def test_a_hub_that_cannot_be_reached_names_the_local_way():
    said = outside(CODE, "http://127.0.0.1:9")
    assert "model: some/model is no directory here, and the hub cannot be reached" in said
    assert "set model to a directory that has it" in said
    assert "use a local file instead with tasks.N.path=FILE.jsonl" in said
    assert "Retry" not in said
