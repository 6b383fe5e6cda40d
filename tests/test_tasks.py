import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scripted
from hypothesis import given
from hypothesis import strategies as st

import gsi
from gsi.cli import main
from gsi.config import load_config
from gsi.config.data import Task
from gsi.progress import Reporter
from gsi.queries import load_data
from gsi.report.read import read_run
from gsi.tasks import TASKS, check_golds, checks_steps, from_queries, last_boxed, load, split_validation
from gsi.types import GsiError, Query, Verdict
from gsi.verify import make_grader

ROOT = Path(__file__).parent.parent


def write(path: Path, *rows: object) -> str:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def qa(**fields: object) -> dict:
    return {"question": "2+2?", "answer": "4", **fields}


# ---------------------------------------------------------------------------------------------------- local files


LEVELS = {
    "train/math_cot.jsonl.gz": {1: 301, 2: 691, 3: 853, 4: 898, 5: 1255, None: 2},
    "train/math_pot.jsonl.gz": {1: 538, 2: 1084, 3: 938, 4: 792, 5: 645, None: 3},
    "train/math_full.jsonl.gz": {1: 564, 2: 1348, 3: 1592, 4: 1690, 5: 2302, None: 2},
    "test/math.jsonl.gz": {1: 290, 2: 604, 3: 754, 4: 771, 5: 914},
}


@pytest.mark.parametrize(
    ("file", "task", "rows", "lettered"),  # lettered: rows whose options carry their letters in the file, `A) 452000`
    [
        ("train/gsm8k_cot.jsonl.gz", "gsm8k", 3000, 0),
        ("train/math_cot.jsonl.gz", "math", 4000, 0),
        ("train/aqua_cot.jsonl.gz", "aqua", 2995, 31),
        ("train/gsm8k_pot.jsonl.gz", "gsm8k", 3000, 0),
        ("train/math_pot.jsonl.gz", "math", 4000, 0),
        ("train/aqua_pot.jsonl.gz", "aqua", 1955, 41),
        ("train/gsm8k_full.jsonl.gz", "gsm8k", 7473, 0),
        ("train/math_full.jsonl.gz", "math", 7498, 0),
        ("test/gsm8k.jsonl.gz", "gsm8k", 879, 0),
        ("test/svamp.jsonl", "svamp", 667, 0),
        ("test/mathqa.jsonl.gz", "mathqa", 1990, 0),
        ("test/theoremqa.jsonl", "theoremqa", 533, 0),
        ("test/aqua.jsonl", "aqua", 169, 1),
        ("test/math.jsonl.gz", "math", 3333, 0),
    ],
)
def test_real_files(data_dir, file, task, rows, lettered):
    data = load(Task(name=task, path=str(data_dir / file)))
    content = (data_dir / file).read_bytes()
    raw = [json.loads(line) for line in (gzip.decompress(content) if file.endswith("gz") else content).splitlines()]
    assert len(data.queries) == rows
    assert (data.hard_levels, data.problems) == ((5,) if task == "math" else (), [])
    assert Counter(q.level for q in data.queries) == LEVELS.get(file, {None: rows})
    # data in our own form is taken as it is, whatever the built-in task would cut out of the hub's form
    assert [(q.id, q.question, q.answer, q.rationale) for q in data.queries] == [
        (r["id"], r["question"], r["answer"], r.get("rationale")) for r in raw
    ]
    changed = [(q.options, r["options"]) for q, r in zip(data.queries, raw, strict=True) if list(q.options or []) != r.get("options", [])]
    assert len(changed) == lettered
    assert all(
        old.replace(" ", "") == f"{letter}){new}".replace(" ", "")
        for pair in changed
        for letter, new, old in zip("ABCDE", *pair, strict=True)
    )


def test_answers_cut_out_of_real_solutions_are_the_stored_ones(data_dir):
    queries = load(Task(name="math", path=str(data_dir / "train/math_full.jsonl.gz"))).queries
    assert [q.id for q in queries if last_boxed(q.rationale) != q.answer] == []


def test_a_row_becomes_a_query_and_blank_lines_count(tmp_path):
    row = {"uid": 7, "problem": "x?", "gold": 3, "why": "because", "difficulty": "Level 4", "choices": '["a", 3]'}
    columns = {"id": "uid", "question": "problem", "answer": "gold", "rationale": "why", "level": "difficulty", "options": "choices"}
    path = write(
        tmp_path / "d.jsonl", b"\xef\xbb\xbf", row, b"  ", {**row, "uid": "b", "gold": 0.5, "why": "", "difficulty": None, "choices": []}
    )
    data = load(Task(name="mine", path=path, columns=columns, hard_levels=[4]))
    assert data.queries == [
        Query("7", "mine", "x?\nAnswer Choices: (A) a (B) 3", "B", "because", 4, ("a", "3")),
        Query("b", "mine", "x?", "0.5"),
    ]
    assert data.hard_levels == (4,)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(5.5, 5), ("2.5", 2), (3, 3), ("5", 5), ("Level 5", 5), ("level 12", 12), (2.0, 2), ("Level ?", None), ("", None), (None, None),
     (0, 0), ("0.0", 0), (999_999, 999_999), (999_999.9, 999_999)],
)  # fmt: skip
def test_levels(tmp_path, level, expected):
    assert load(Task(name="mine", path=write(tmp_path / "d.jsonl", qa(level=level)))).queries[0].level == expected


def test_ids_are_made_from_name_split_and_line_where_no_row_has_one(tmp_path):
    path = write(tmp_path / "d.jsonl", qa(), b"", qa(id=None), qa(id=""))
    assert [q.id for q in load(Task(name="mine", path=path)).queries] == ["mine-00001", "mine-00003", "mine-00004"]
    assert load(Task(name="mine", path=path, split="test", limit=1)).queries[0].id == "mine-test-00001"


def test_limit_reads_no_further(tmp_path):
    path = write(tmp_path / "d.jsonl", qa(id="a"), qa(id="b"), b"{broken")
    assert [q.id for q in load(Task(name="mine", path=path, limit=2)).queries] == ["a", "b"]


def test_the_same_rows_in_any_file_format_are_the_same_data(tmp_path):
    rows = [qa(id=str(i)) for i in range(3)]
    lines = write(tmp_path / "d.jsonl", *rows)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(Path(lines).read_bytes()))
    (tmp_path / "f.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "g.json.gz").write_bytes(gzip.compress((tmp_path / "f.json").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "h.parquet")
    (tmp_path / "i.csv").write_text("id,question,answer,level\n" + "".join(f"{i},2+2?,4,\n" for i in range(3)))
    (tmp_path / "j.tsv.gz").write_bytes(gzip.compress(b'id\tquestion\tanswer\n0\t"2+2?"\t4\n1\t2+2?\t4\n2\t2+2?\t4\n'))
    names = ("d.jsonl", "e.jsonl.gz", "f.json", "g.json.gz", "h.parquet", "i.csv", "j.tsv.gz")
    found = [load(Task(name="mine", path=str(tmp_path / f))) for f in names]
    assert all(data == found[0] for data in found)
    assert len(found[0].queries) == 3


def test_columns_without_a_name_and_blank_lines_are_passed_over(tmp_path):
    (tmp_path / "d.csv").write_text(",question,answer,,\n\n0,2+2?,4,,\n\n1,3+3?,6,,\n")
    assert [q.answer for q in load(Task(name="mine", path=str(tmp_path / "d.csv"))).queries] == ["4", "6"]


@pytest.mark.parametrize(
    "change", [{"question": "3?"}, {"answer": "5"}, {"id": "z"}, {"rationale": "r"}, {"level": 2}, {"options": ["a", "4"]}]
)
def test_the_fingerprint_follows_the_content(tmp_path, change):
    rows = [qa(id="a"), qa(id="b")]
    one = load(Task(name="mine", path=write(tmp_path / "one.jsonl", *rows)))
    same = load(Task(name="mine", path=write(tmp_path / "two.jsonl", *rows)))
    other = load(Task(name="mine", path=write(tmp_path / "one.jsonl", rows[0], {**rows[1], **change})))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert from_queries(one.queries[::-1], Task(name="mine")).fingerprint != one.fingerprint


ROWS = {  # name: (rows, pieces of the message; FILE stands for the path)
    "not JSON": ([qa(), b'{"question": '], ["FILE:2", "not valid JSON", "one JSON object per line"]),
    "not UTF-8": ([qa(), qa(), b'{"question": "caf\xe9"}'], ["FILE:3", "not valid UTF-8", "iconv"]),
    "endless number": ([b'{"question": "q", "answer": ' + b"1" * 5000 + b"}"], ["FILE:1", "not valid JSON"]),
    "deep": ([b"[" * 200_000], ["FILE:1", "JSON"]),
    "a list": ([qa(), [1, 2]], ["FILE:2", "expected a JSON object", "found list"]),
    "no rows": ([], ["FILE: no rows"]),
    "columns of others": (
        [{"problem": "q", "gold": "4", "n": 1}],
        ["FILE:1", "field `question`", "no column 'question'", "problem, gold, n", "columns: {question: problem, answer: gold}"],
    ),
    "strange columns": ([{"a": "q", "b": "4"}], ["FILE:1", "the columns are: a, b", "columns: {question: COLUMN, answer: COLUMN}"]),
    "no answers": ([{"question": "q", "gold": 1}] * 2, ["FILE:1", "field `answer`", "columns: {answer: gold}"]),
    "question a number": ([qa(question=3)], ["FILE:1", "field `question`", "expected text", "found int 3"]),
    "answer a list": ([qa(), qa(answer=[1])], ["FILE:2", "field `answer`", "text or a number", "found list [1]"]),
    "answer not a number": ([b'{"question": "q", "answer": NaN}'], ["FILE:1", "field `answer`", "found float nan"]),
    "rationale a list": ([qa(rationale=["a"])], ["FILE:1", "field `rationale`", "expected text", "found list"]),
    "level a word": ([qa(level="hard")], ["FILE:1", "field `level`", "`Level 5`", "found str 'hard'"]),
    "level no number": ([b'{"question": "q", "answer": "1", "level": NaN}'], ["FILE:1", "field `level`", "found float nan"]),
    "level true": ([qa(level=True)], ["FILE:1", "field `level`", "found bool True"]),
    "level below 0": ([qa(level=-1)], ["FILE:1", "field `level`: expected 0 to 999,999, found -1", "number the levels from 0 or 1"]),
    "level below 0 as text": ([qa(level="-2.5")], ["FILE:1", "field `level`: expected 0 to 999,999, found '-2.5'"]),
    "level too large": ([qa(), qa(level=10**30)], ["FILE:2", "field `level`: expected 0 to 999,999, found 1000"]),
    "level endless": ([qa(level="9" * 5000)], ["FILE:1", "field `level`: expected 0 to 999,999, found '999"]),
    "level a rate": ([qa(level=0.35)], ["FILE:1", "field `level`: 0.35 would become 0: levels are whole numbers", "write 0.35 as 35"]),
    "level a rate as text": ([qa(level=".5")], ["FILE:1", "field `level`: '.5' would become 0"]),
    "options a number": ([qa(options=3)], ["FILE:1", "field `options`", "list of texts", "found int 3"]),
    "options plain text": ([qa(options="A) 1 B) 2")], ["FILE:1", "field `options`", "as JSON text", "found str"]),
    "options of lists": ([qa(options=[["a"]])], ["FILE:1", "field `options`", "found list"]),
    "half a character": ([b'{"question": "\\ud83d?", "answer": "1"}'], ["FILE:1", "field `question`", "surrogate"]),
    "id a float": ([qa(id=1.5)], ["FILE:1", "field `id`", "found float 1.5"]),
    "id twice": ([qa(id="a"), qa(id="b"), qa(id="a")], ["FILE:3", "field `id`", "'a'", "line 1", "unique"]),
    "id twice as number": ([qa(id="1"), qa(id=1)], ["FILE:2", "field `id`", "'1'", "line 1"]),
    "id missing later": ([qa(id="a"), qa()], ["FILE:2", "field `id` is missing", "line 1 has one", "every row an id, or none"]),
    "id missing first": ([qa(), b"", qa(id="a")], ["FILE:3", "field `id` is 'a'", "line 1 has none", "every row an id, or none"]),
    "all empty": ([qa(answer=""), qa(answer=None)], ["FILE: no rows to use; 2 were left out, the first because empty"]),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_stop_a_run(tmp_path, case):
    rows, pieces = ROWS[case]
    path = str(tmp_path / "d.jsonl")
    (tmp_path / "d.jsonl").write_bytes(b"") if not rows else write(tmp_path / "d.jsonl", *rows)
    with pytest.raises(GsiError) as error:
        load(Task(name="mine", path=path))
    for piece in pieces:
        assert piece.replace("FILE", path) in str(error.value)


def test_check_lists_every_bad_row_and_goes_on(tmp_path):
    rows = [
        qa(),
        qa(answer=""),
        qa(question=" "),
        b"{not json",
        b"[1]",
        qa(question=3),
        {"question": "2+3?"},
        qa(answer="either 3 or 4"),
        qa(),
    ]
    path = write(tmp_path / "d.jsonl", *rows)
    done = subprocess.run(
        [sys.executable, "-m", "gsi", "tasks", "check", path, "--task", "gsm8k"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, "a run stops at three of these rows"
    assert f"gsi: {path}: a run stops at 3 rows, first {path}:4; mend or remove what is listed with `row:`" in done.stderr
    shown = " ".join(done.stdout.split())
    for piece in (
        f"{path}:2: gsm8k-00002: answer: empty",
        f"{path}:3: gsm8k-00003: question: empty",
        f"{path}:4: line 4: row: not valid JSON",
        f"{path}:5: line 5: row: expected a JSON object",
        f"{path}:6: gsm8k-00006: row: field `question`: expected text, found int 3",
        f"{path}:7: gsm8k-00007: answer: empty",
        "gsm8k-00008: answer: no_answer: 'either 3 or 4'",
        "2 of 9 questions are usable",
    ):
        assert piece.replace(" ", "") in shown.replace(" ", ""), shown


CHECKED = {  # file: (content, listed, the last word of a check that fails; None = a run goes on without these)
    "left.jsonl": (b'{"question": "q?", "answer": "1"}\n{"question": "r?"}\n', ["FILE:2: auto-00002: answer: empty"], None),
    "twice.jsonl": (
        b'{"id": "a", "question": "q?", "answer": "1"}\n{"id": "a", "question": "r?", "answer": "2"}\n',
        ["FILE:2: line 2: row: field `id`: 'a' is also the id of line 1", "1 of 2 questions are usable"],
        "FILE: a run stops at one row, FILE:2;",
    ),
    "ragged.csv": (
        b"question,answer\nx,1,extra\ny\n",
        ["FILE:2: line 2: row: another number of cells than the header's 2", "FILE:3: line 3: row: another number", "0 of 2 questions are"],
        "FILE: a run stops at 2 rows, first FILE:2;",
    ),
    "broken.csv": (
        b'question,answer\n"q?"x,1\ncaf\xe9,2\n\n"r?",3\n',
        ["FILE:2: line 2: row: not valid CSV", "FILE:3: line 3: row: byte 3 is not valid UTF-8", "1 of 3 questions are usable"],
        "FILE: a run stops at 2 rows, first FILE:2;",
    ),
    "list.json": (
        b'[3, {"question": "q?", "answer": "1"}, null]',
        ["FILE:1: row 1: row: ", "found int", "FILE:3: row 3: row: ", "found NoneType", "1 of 3 questions are usable"],
        "FILE: a run stops at 2 rows, first FILE:1;",
    ),
    "empty.jsonl": (
        b'{"question": "q?", "answer": ""}\n',
        ["FILE:1: auto-00001: answer: empty", "0 of 1 questions are usable"],
        "FILE: no rows to use",
    ),
}


@pytest.mark.parametrize("name", CHECKED)
def test_a_check_fails_where_a_run_would_stop(tmp_path, capsys, name):
    content, listed, last = CHECKED[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["tasks", "check", str(path)]) == (2 if last else 0)
    out, err = capsys.readouterr()
    assert [piece for piece in listed if piece.replace("FILE", str(path)) not in out] == []
    assert (last or "").replace("FILE", str(path)) in err
    assert "levels" not in out
    stopped = pytest.raises(GsiError, match=re.escape(str(path))) if last else nullcontext()
    with stopped:
        load(Task(name="auto", path=str(path)))


def test_a_check_names_questions_that_occur_again_with_another_answer(tmp_path, capsys):
    rows = [qa(), qa(answer="4.0"), qa(question="2+2? ", answer="5"), qa(question="3+3?", answer="6")]
    assert main(["tasks", "check", write(tmp_path / "d.jsonl", *rows)]) == 0
    out = capsys.readouterr().out
    assert "auto-00003: answer: '5', but auto-00001 asks the same and has '4'\n" in out
    assert "4 of 4 questions are usable\n" in out
    assert "questions that occur again: 2\n  questions that occur again with another answer: 1 (a run keeps them" in out
    assert main(["tasks", "check", write(tmp_path / "e.jsonl", *rows[:2])]) == 0
    assert "another answer" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "pieces"),
    [
        ("none.jsonl", None, ["no such file", "tasks.N.path"]),
        ("data.txt", b"a,b\n", [".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"]),
        ("data.csv", b"question,answer\n", ["no rows"]),
        ("short.csv", b"question,answer\n2+2?,4\n3?\n", [":3: another number of cells than the header's 2"]),
        ("long.csv", b"question,answer\n2+2?,4,5\n", [":2: another number of cells than the header's 2"]),
        ("quote.csv", b'question,answer\n"2+2?"x,4\n', [":2: not valid CSV"]),
        ("latin.csv", b"question,answer\nq,1\ncaf\xe9,4\n", [":3: byte 3 is not valid UTF-8"]),
        ("names.csv", b"Problem,Answer\n1,2\n", ["field `question`", "the columns are: Problem, Answer"]),
        ("semicolons.csv", b"question;answer\n1;2\n", [":1: the header has ';' and no ',': wrong separator?"]),
        ("quoted.csv", b'"question";"answer"\n"1";"2"\n', [":1: the header has ';' and no ',': wrong separator?"]),
        ("tabs.csv", b"question\tanswer\n1\t2\n", [":1: the header has '\\t' and no ','", "name a file with tabs .tsv"]),
        ("commas.tsv", b"question,answer\n1,2\n", [":1: the header has ',' and no '\\t': wrong separator?"]),
        ("twice.csv", b"question,answer,answer\n1,2,3\n", [":1: two columns are called 'answer'; rename one, or take it out"]),
        ("no.parquet", b"PAR1", ["cannot be read as Parquet"]),
        ("cut.parquet", b"PAR1" * 100, ["cannot be read as Parquet"]),
        ("plain.jsonl.gz", b'{"question": "q", "answer": "1"}\n', ["cannot be read", "gzip"]),
        ("cut.jsonl.gz", gzip.compress(json.dumps(qa(n=os.urandom(5000).hex())).encode())[:3000], ["cannot be read"]),
        ("object.json", b'{"question": "q"}', ["expected a JSON list", "found dict", ".jsonl"]),
        ("lines.json", b'{"question": "q"}\n{"question": "r"}\n', ["not valid JSON", "one object per line .jsonl"]),
        ("row.json", b'[{"question": "q", "answer": "1"}, 3]', ["row 2", "expected a JSON object", "found int"]),
    ],
)
def test_files_that_stop_a_run(tmp_path, name, content, pieces):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GsiError) as error:
        load(Task(name="mine", path=str(tmp_path / name)))
    assert str(error.value).startswith(str(tmp_path / name))
    for piece in pieces:
        assert piece in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(GsiError, match="is a folder, not a file"):
        load(Task(name="mine", path=str(tmp_path / "d.jsonl")))


@pytest.mark.parametrize("field", ["id", "rationale", "level", "options"])
def test_a_mapped_column_must_exist(tmp_path, field):
    path = write(tmp_path / "d.jsonl", qa(id="a"))
    with pytest.raises(GsiError, match=f"field `{field}`: no column 'nope'; the columns are: question, answer, id"):
        load(Task(name="mine", path=path, columns={field: "nope"}))


@pytest.mark.parametrize(
    ("task", "pieces"),
    [
        (Task(name="gms8k"), ["unknown task 'gms8k'", "did you mean 'gsm8k'?", *TASKS, "tasks.N.path=FILE.jsonl"]),
        (Task(name="chian", args={"per_level": 3}), ["unknown task 'chian'", "did you mean 'chain'?"]),
        (Task(name="gsm8k", path="x.jsonl", args={"seed": 1}), ["task gsm8k: `args` are for generated lab tasks", "chain"]),
        (Task(name="chain"), ["args.per_level", "got None", "per_level: 100"]),
        (Task(name="chain", args={"per_level": 0}), ["args.per_level", "got 0"]),
        (Task(name="chain", args={"per_levels": 3}), ["unknown 'per_levels'", "per_level, seed, levels"]),
        (Task(name="chain", args={"per_level": 3, "seed": "a"}), ["args.seed", "got 'a'"]),
        (Task(name="chain", args={"per_level": 3, "levels": 5}), ["args.levels", "got 5"]),
        (Task(name="chain", args={"per_level": 3, "levels": [99]}), ["level 99"]),
    ],
)
def test_tasks_that_stop_a_run(task, pieces):
    with pytest.raises(GsiError) as error:
        load(task)
    for piece in pieces:
        assert piece in str(error.value)


def test_the_least_and_the_largest_level_are_reported(tmp_path, capsys):
    rows = [{"question": f"{i}+1?", "answer": str(i + 1), "level": level} for i, level in enumerate((0, 0, 999_999, 999_999))]
    tasks = [{"name": "gsm8k", "path": write(tmp_path / "d.jsonl", *rows)}]
    config = scripted.config(
        tmp_path / "run", iterations=1, tasks=tasks, engine={"kind": "scripted", "function": f"{scripted.HERE}:tell"}, evaluate={"validation": 2}
    )  # fmt: skip
    run = gsi.run(config, reporter=Reporter("quiet")).path
    assert [set(by["levels"]) for by in json.loads((run / "iter_1" / "eval.json").read_text())["validation"].values()] == [{"0", "999999"}]
    assert main(["status", str(run)]) == 0
    assert read_run(run).missing == []


def test_lab_tasks_are_generated():
    data = load(Task(name="chain", args={"per_level": 3, "seed": 1, "levels": [1, 7]}))
    assert Counter(q.level for q in data.queries) == {1: 3, 7: 3}
    assert data.hard_levels == (7, 8, 9, 10)
    assert load(Task(name="chain", args={"per_level": 3, "seed": 1, "levels": [1, 7]})) == data
    assert load(Task(name="chain", args={"per_level": 3, "seed": 2, "levels": [1, 7]})).fingerprint != data.fingerprint
    assert len(load(Task(name="chain", args={"per_level": 2})).queries) == 20


def test_queries_made_in_python_are_checked_too(tmp_path):
    path = write(tmp_path / "d.jsonl", qa(id="a", level=5), qa(id="b"))
    data = load(Task(name="math", path=path))
    assert from_queries(data.queries, Task(name="math")) == data
    assert from_queries(tuple(data.queries), Task(name="math", limit=1)).queries == data.queries[:1]
    for queries, message in [
        ([], "task math: no queries"),
        ([*data.queries, data.queries[0]], "the id 'a' occurs twice"),
        ([replace(data.queries[0], answer=" ")], "query 'a': field `answer` is empty"),
        ([replace(data.queries[0], question=3)], "query 'a': field `question`: expected text, found int 3"),
        ([replace(data.queries[0], id=["a"])], r"queries\[0\]: field `id`: expected text, found list"),
        ([replace(data.queries[0], rationale=5)], "query 'a': field `rationale`: expected text, found int 5"),
        ([replace(data.queries[0], level="hard")], "query 'a': field `level`: expected a whole number or text such as `Level 5`"),
        ([replace(data.queries[0], level=10**5000)], "query 'a': field `level`: expected 0 to 999,999, found a number of over 60 digits"),
        ([replace(data.queries[0], options=3)], "query 'a': field `options`: expected a list of texts"),
        ([data.queries[0], qa(id="c")], r"queries\[1\]: expected a gsi.Query, found dict; make it one: gsi.Query\(id='q1', task='math'"),
        ("d.jsonl", "expected a list of gsi.Query, found str"),
        (3, "expected a list of gsi.Query, found int"),
    ]:
        with pytest.raises(GsiError, match=message):
            from_queries(queries, Task(name="math"))


def test_what_is_said_in_words_becomes_what_a_file_gives():
    said = Query("a", "other", "2+2?", "B", level="Level 5", options=["3", "4"])
    shown = "2+2?\nAnswer Choices: (A) 3 (B) 4"
    assert from_queries((q for q in [said]), Task(name="mine")).queries == [Query("a", "mine", shown, "B", level=5, options=("3", "4"))]


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("C", ["Mars", "Venus", "Jupiter"], "C"),
        ("c", ["Mars", "Venus", "Jupiter"], "c"),
        ("(C)", ["Mars", "Venus", "Jupiter"], "C"),
        ("C.", ["Mars", "Venus", "Jupiter"], "C"),
        ("Jupiter", ["Mars", "Venus", "Jupiter"], "C"),
        ("3", {"text": ["Mars", "Venus", "Jupiter"], "label": ["1", "2", "3"]}, "C"),
        ("3", {"text": ["1", "2", "3"], "label": ["3", "2", "1"]}, "A"),
        (36, [25, 36, 40], "B"),
        (2, ["Mars", "Venus", "Jupiter"], None),  # from 0 or from 1?
        (2, [1, 2, 3], None),
        ("D", ["Mars", "Venus", "Jupiter"], None),
        ("Saturn", ["Mars", "Venus", "Jupiter"], None),
        ("Mars", ["Mars", "Mars", "Jupiter"], None),
    ],
)
def test_the_right_option_is_named_by_letter_label_or_text(tmp_path, answer, options, letter):
    row = {"question": "Which is largest?", "answer": answer, "options": options}
    found = load(Task(name="auto", path=write(tmp_path / "d.jsonl", row, {"question": "2+2?", "answer": "4"})))
    if letter is None:
        assert "names none of the" in found.problems[0].reason
        assert [q.answer for q in found.queries] == ["4"]
    else:
        assert found.queries[0].answer == letter
        assert "\nAnswer Choices: (A)" in found.queries[0].question


@pytest.mark.parametrize("columns", [{}, {"rationale": "solution"}])
def test_a_column_of_whole_solutions_gives_the_answers(tmp_path, columns):
    solutions = ["She has 48/2 = 24.\nThe answer is 24", "So 5 + 6. The answer is 11.", "It is \\boxed{7}.", "9 + 1\n#### 10"]
    rows = [{"problem": "How many?", "solution": s} for s in solutions]
    task = Task(name="auto", path=write(tmp_path / "d.jsonl", *rows), columns={"question": "problem", **columns})
    found = load(task).queries
    assert [q.answer for q in found] == ["24", "11", "7", "10"]
    assert [q.rationale for q in found] == solutions


def test_several_entries_of_a_name_need_no_ids(tmp_path):
    paths = [write(tmp_path / f"{n}.jsonl", {"question": f"{n}+{n}?", "answer": str(2 * n)}) for n in (1, 2, 3)]
    config = scripted.config(tmp_path / "run", tasks=[{"name": "auto", "path": path} for path in paths], evaluate={"validation": 0})
    data = load_data(load_config(config))
    data.grader.close()
    assert [q.id for q in data.train] == ["auto-00001", "auto-2-00001", "auto-3-00001"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query("a", "gsm8k", "1+1?", "2", level="hard"), "query 'a': field `level`"),
        (Query("a", "gsm8k", "1+1?", "2", level=10**30), "query 'a': field `level`"),
        (Query("a", "gsm8k", "1+1?", "2", rationale=5), "query 'a': field `rationale`"),
        (qa(id="a"), r"queries\[0\]: expected a gsi.Query, found dict"),
    ],
)
def test_a_run_refuses_such_queries_before_it_draws(tmp_path, query, message):
    with pytest.raises(GsiError, match=message):
        gsi.run(scripted.config(tmp_path / "run", tasks=[{"name": "gsm8k"}]), [query], reporter=Reporter("quiet"))
    assert not (tmp_path / "run").exists()


def test_a_config_is_a_path_or_a_mapping():
    with pytest.raises(GsiError, match="config: expected the path of a YAML file or a mapping of keys to values, found NoneType"):
        gsi.run(None)


def test_lab_tasks_check_steps():
    assert [name for name in (*TASKS, "mine") if checks_steps(name)] == [
        "gsm8k", "svamp", "math", "math500", "aqua", "mathqa", "chain", "dag", "dag_long", "dag_joined", "dag_spare", "multiply", "multiply_long", "gsm_symbolic",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["gsm8k", "aqua"])
def test_the_papers_files_are_read_as_they_are(tmp_path, task):
    program = "print(30 * 0.5)\n"
    item = {"item_id": f"{task}_0", "question": "How much?\nAnswer Choices: (A) 15 (B) 2", "answer_cot": program, "answer_value": "A"}
    (tmp_path / "pot.json").write_text(json.dumps([item]))
    (query,) = load(Task(name=task, path=str(tmp_path / "pot.json"), programs=True)).queries
    assert (query.id, query.question, query.answer, query.rationale) == (f"{task}_0", item["question"], "A", program)


# ---------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that writes rows as a data set in a local folder, which `datasets` reads as it reads one of the hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def folder(*rows: dict, split: str = "train") -> str:
        (tmp_path / "data").mkdir(exist_ok=True)
        datasets.Dataset.from_list(list(rows)).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
        return str(tmp_path / "data")

    return folder


HUB_ROWS = {  # rows as the data sets of the hub hold them -> what becomes of them
    "gsm8k": (
        {"question": "How many?", "answer": "She has 2+2=<<2+2=4>>4.\nSo 1,200+4=<<1200+4=1204>>1,204.\n#### 1,204"},
        Query("gsm8k-00001", "gsm8k", "How many?", "1204", "She has 2+2=4.\nSo 1,200+4=1,204."),
    ),
    "svamp": (
        {"ID": "chal-1", "Body": "A.", "Question": "B?", "question_concat": "A. B?", "Answer": "5", "Type": "Subtraction"},
        Query("svamp-00001", "svamp", "A. B?", "5"),
    ),
    "math": (
        {"problem": "P", "level": "Level 5", "type": "Algebra", "solution": r"$\boxed{1}$, no: $\boxed{\frac{1}{2}}$."},
        Query("math-00001", "math", "P", r"\frac{1}{2}", r"$\boxed{1}$, no: $\boxed{\frac{1}{2}}$.", 5),
    ),
    "theoremqa": (
        {"Question": "Q", "Answer": "[0.333, 0.25]", "Answer_type": "list of float"},
        Query("theoremqa-00001", "theoremqa", "Q", "[0.333, 0.25]"),
    ),
    "aqua": (
        {"question": "Q", "correct": "E", "rationale": "R", "options": ["A)$61", "B)65", "C)67.40", "D)70", "E)78"]},
        Query(
            "aqua-00001",
            "aqua",
            "Q\nAnswer Choices: (A) $61 (B) 65 (C) 67.40 (D) 70 (E) 78",
            "E",
            "R",
            None,
            ("$61", "65", "67.40", "70", "78"),
        ),
    ),
    "mathqa": (
        {
            "Problem": "q",
            "Rationale": '"r . answer : c ."',
            "options": "a ) 24 , b ) 1 , 200 , c ) 625 , d ) rs . 72 , e ) none",
            "correct": "c",
        },
        Query(
            "mathqa-00001",
            "mathqa",
            "q\nAnswer Choices: (A) 24 (B) 1 , 200 (C) 625 (D) rs . 72 (E) none",
            "C",
            "r . answer : c .",
            None,
            ("24", "1 , 200", "625", "rs . 72", "none"),
        ),
    ),
}


@pytest.mark.parametrize("task", HUB_ROWS)
def test_hub_rows_become_queries(hub, tmp_path, task):
    row, query = HUB_ROWS[task]
    data = load(Task(name=task, hub=hub(row)))
    assert data.queries == [query]
    # the same rows in a local file are understood too
    assert load(Task(name=task, path=write(tmp_path / "raw.jsonl", row))).fingerprint == data.fingerprint


def test_hub_splits_columns_and_limit(hub):
    folder = hub(*[{"q": str(i), "a": i, "picture": b"\x00"} for i in range(1, 6)], split="test")
    task = Task(name="mine", hub=folder, split="test", columns={"question": "q", "answer": "a"}, limit=2)
    assert load(task).queries == [Query("mine-test-00001", "mine", "1", "1"), Query("mine-test-00002", "mine", "2", "2")]
    with pytest.raises(GsiError, match=r"row 1: field `question`: no column 'question' or 'prompt' or .*; the columns are: q, a, picture"):
        load(Task(name="mine", hub=folder, split="test"))
    with pytest.raises(GsiError, match=r"split dev.*tasks\.N\.path=FILE\.jsonl"):
        load(Task(name="mine", hub=folder, split="dev"))


def test_hub_solutions_without_an_answer_are_left_out_and_reported(hub):
    rows = [{"problem": "P", "solution": s} for s in (r"\boxed{2}", "no box", r"\boxed{}", r"\boxed{3")]
    data = load(Task(name="math", hub=hub(*rows)))
    assert [q.answer for q in data.queries] == ["2"]
    assert [(p.id, p.line, p.field) for p in data.problems] == [(f"math-0000{n}", n, "answer") for n in (2, 3, 4)]
    assert "math-00002: answer: the solution has no" in str(data.problems[0])
    with pytest.raises(GsiError, match="no rows to use; 3 were left out"):
        load(Task(name="math", hub=hub(*rows[1:])))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\fbox{ 3 }", "3"),
        (r"\boxed 5$", "5"),
        (r"$\boxed\frac12$", r"\frac12"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.} or {y}", r"\left\{ x \right."),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        ("none", None),
        (r"\boxed{open", None),
    ],
)
def test_last_boxed(text, answer):
    assert last_boxed(text) == answer


def test_every_built_in_task_has_data_and_columns_of_ours():
    assert [name for name, spec in TASKS.items() if bool(spec.hub) == bool(spec.generated)] == []


def test_offline_says_so_and_names_the_local_way():
    with pytest.raises(GsiError, match=r"openai/gsm8k:main \(split train\).*Offline.*tasks\.N\.path=FILE\.jsonl"):
        load(Task(name="gsm8k"))


def test_reading_tasks_needs_neither_torch_nor_datasets():
    code = "import gsi.tasks, sys; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------- reference answers


class FakeGrader:
    """Right is what `right(query, response)` says; `most` is the largest number of futures nobody had asked yet."""

    def __init__(self, right):
        self.right, self.asked, self.open, self.most = right, [], 0, 0

    def submit(self, query: Query, response: str) -> Future:
        self.asked.append(response)
        self.open += 1
        self.most = max(self.most, self.open)
        grader = self

        class Later(Future):
            def result(self, timeout=None):
                grader.open -= 1
                return super().result(timeout)

        future: Future = Later()
        future.set_result(
            Verdict("correct" if self.right(query, response) else "wrong", None, None, "" if query.id != "b" else "no number")
        )
        return future

    def close(self) -> None: ...


def test_answers_that_do_not_verify_are_left_out_and_reported():
    queries = [Query(i, "gsm8k", f"q{i}", a) for i, a in (("a", "1"), ("b", "oops"), ("c", "3"))]
    grader = FakeGrader(lambda query, response: response.split()[-1].isdigit())
    kept, problems = check_golds(queries, grader)
    assert kept == [queries[0], queries[2]]
    assert [str(p) for p in problems] == ["b: answer: wrong: 'oops' does not verify as its own answer (no number)"]
    assert grader.asked == ["The answer is 1", "The answer is oops", "The answer is 3"]
    assert grader.most == 3


@pytest.mark.parametrize(
    ("task", "own_check", "accepts", "asked"),
    [
        ("mine", (), "4", ["4"]),  # a checker of one's own: bare first
        ("mine", (), "The answer is 4", ["4", "The answer is 4"]),
        ("gsm8k", ("gsm8k",), "4", ["4"]),
        ("gsm8k", (), "The answer is 4", ["The answer is 4"]),
        ("chain", (), "steps # 4", ["steps # 4"]),
    ],
)
def test_how_a_reference_answer_is_stated(task, own_check, accepts, asked):
    query = Query("a", task, "q", "4", "steps # 4" if task == "chain" else None)
    grader = FakeGrader(lambda _, response: response == accepts)
    assert check_golds([query], grader, own_check) == ([query], [])
    assert grader.asked == asked


def test_a_task_with_no_right_answer_stops_the_run():
    queries = [Query("a", "gsm8k", "q", "1"), Query("b", "svamp", "r", "2"), Query("c", "svamp", "s", "3")]
    with pytest.raises(GsiError, match="task svamp: none of its reference answers verifies, first b: answer: wrong: '2'"):
        check_golds(queries, FakeGrader(lambda query, _: query.task == "gsm8k"))
    assert check_golds([], FakeGrader(lambda *_: False)) == ([], [])


# ---------------------------------------------------------------------------------------------------- validation split

SIZES = st.one_of(st.sampled_from([0, 0.05, 0.5, 0.99, 1, 3, 1000]), st.floats(0, 1, exclude_max=True), st.integers(1, 70))


@st.composite
def pools(draw) -> list[Query]:
    """Queries of several tasks and levels, many with the text of another one up to white space."""
    row = st.tuples(st.sampled_from(["t", "u"]), st.sampled_from([None, 1, 2, 3]), st.integers(0, 30), st.sampled_from([" ", "  "]))
    rows = draw(st.lists(row, min_size=1, max_size=60))
    return [Query(f"id{i}", task, f"question{gap}{text}", "1", level=level) for i, (task, level, text, gap) in enumerate(rows)]


@given(pools(), SIZES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_split_is_a_partition_that_depends_on_nothing_but_ids(pool, validation, seed, random):
    train, held = split_validation(pool, validation, seed)
    assert sorted([*train, *held], key=pool.index) == pool
    assert (train, held) == ([q for q in pool if q in train], [q for q in pool if q in held])  # order is kept
    assert train
    assert not {" ".join(q.question.split()) for q in train} & {" ".join(q.question.split()) for q in held}
    wanted = validation if validation >= 1 else 0 if validation == 0 else max(1, round(validation * len(pool)))
    assert len(held) <= wanted
    shuffled = random.sample(pool, len(pool))
    assert {q.id for q in split_validation(shuffled, validation, seed)[1]} == {q.id for q in held}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), SIZES, st.integers(0, 5))
def test_different_questions_are_split_exactly_and_evenly_over_levels(sizes, validation, seed):
    pool = [Query(f"{level}-{i}", "t", f"{level} {i}", "1", level=level) for level, n in enumerate(sizes) for i in range(n)]
    _, held = split_validation(pool, validation, seed)
    asked = int(validation) if validation >= 1 else 0 if validation == 0 else max(1, round(validation * len(pool)))
    assert len(held) == min(asked, len(pool) - 1)
    counts = Counter(q.level for q in held)
    assert all(abs(counts[level] - len(held) * n / len(pool)) < 1 for level, n in enumerate(sizes))


def test_the_seed_chooses_and_new_queries_hardly_matter():
    pool = [Query(f"q{i}", "t", f"text {i}", "1") for i in range(200)]
    ids = {seed: {q.id for q in split_validation(pool, 0.1, seed)[1]} for seed in (1, 2)}
    assert ids[1] != ids[2]
    grown = [*pool, *[replace(pool[0], id=f"new{i}", question=f"new {i}") for i in range(20)]]
    assert len({q.id for q in split_validation(grown, 20, 1)[1]} & ids[1]) >= 12


# ---------------------------------------------------------------------------------------------------- the shipped config


def test_the_gsm8k_config_loads():
    config = load_config(ROOT / "configs" / "gsm8k.yaml")
    assert (config.strategy, config.guidance.kind, config.allocation.kind) == ("state_reset", "state_reset", "quota")
    assert (config.sample.k, config.sample.wanted, config.sample.max_extra, config.iterations) == (8, 4, 8, 4)
    assert [(t.name, t.split) for t in (*config.tasks, *config.evaluate.tasks)] == [("gsm8k", "train"), ("gsm8k", "test")]


def test_the_gsm8k_config_takes_local_files(data_dir):
    files = [f"tasks.0.path={data_dir / 'train/gsm8k_cot.jsonl.gz'}", f"evaluate.tasks.0.path={data_dir / 'test/gsm8k.jsonl.gz'}"]
    config = load_config(ROOT / "configs" / "gsm8k.yaml", files)
    assert (len(load(config.tasks[0]).queries), len(load(config.evaluate.tasks[0]).queries)) == (3000, 879)


def test_a_rationale_that_ends_in_another_answer_leaves_its_query_out():
    rows = {
        "agrees": ("12", "3 * 4 = 12\nThe answer is 12"),
        "contradicts": ("12", "3 * 5 = 15\nThe answer is 15"),
        "says nothing": ("12", "Think about it."),
        "none": ("12", None),
    }
    queries = [Query(name, "gsm8k", "How many?", answer, rationale) for name, (answer, rationale) in rows.items()]
    grader = make_grader({"gsm8k": None}, workers=1, timeout=5)
    try:
        kept, problems = check_golds(queries, grader)
        assert [q.id for q in kept] == ["agrees", "says nothing", "none"]
        assert [(p.id, p.field) for p in problems] == [("contradicts", "rationale")]
        assert "'15'" in str(problems[0])
        for unread in ({"own_check": {"gsm8k"}}, {"programs": {"gsm8k"}}):
            assert check_golds(queries, grader, **unread) == (queries, [])
    finally:
        grader.close()


@pytest.mark.parametrize("place", ["tasks", "evaluate.tasks", "warm_start.tasks"])
def test_a_message_says_which_list_of_the_config_a_task_is_in(place, tmp_path):
    changes = {"tasks": [{"name": "gms8k"}]} if place == "tasks" else {place.split(".")[0]: {"tasks": [{"name": "gms8k"}]}}
    with pytest.raises(GsiError, match=rf"^{re.escape(place)}\.0: unknown task 'gms8k'"):
        gsi.run(scripted.config(tmp_path / "run", **changes), reporter=Reporter("quiet"))
