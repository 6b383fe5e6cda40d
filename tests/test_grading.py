"""Accuracy on tables of model-like responses, the process check, the cache, fuzzing, audits and what chance alone gives."""

import itertools
import json
import math
import shutil
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fuzz_grading
import pyarrow.parquet as pq
import pytest
import scripted
from fake_server import FakeServer
from hypothesis import given
from hypothesis import strategies as st

import gsi
from gsi.audit import audit, choose, leak_rates, precision, show
from gsi.bench import BENCHES
from gsi.bench.grading import grading
from gsi.bench.sampling import sampling
from gsi.cli import main
from gsi.config import load_config
from gsi.ledger import Ledger
from gsi.metrics import above_chance, sample_line
from gsi.progress import Reporter
from gsi.types import GsiError, Query
from gsi.verify import STEPS, acceptance, compare, grade, make_grader, remainder
from gsi.verify.answers import commitment
from gsi.verify.shortcut import plain_last_sentence
from gsi.verify.statements import read_number
from gsi.verify.steps import check_steps, failing

HERE = Path(__file__).parent
# the eighteenth, nothing but sentences on something else, has its own share in docs/grading.md
FILES = ("grading_cases.jsonl", *(f"grading_cases_{n}.jsonl" for n in (*range(2, 18), 19, 20)))


# --------------------------------------------------------------------------------------- accuracy


FAIR = tuple(f"grading_cases_{n}.jsonl" for n in range(21, 29))


@pytest.fixture(scope="module")
def judged(data_dir):
    """Table -> its cases, each with our verdict: all of them in one pass, which takes a while."""
    named = [(path.name, case) for path in sorted(HERE.glob("grading_cases*.jsonl")) for case in compare.read(path, data_dir)]
    tables = defaultdict(list)
    for (name, case), verdict in zip(named, compare.ours([case for _, case in named]), strict=True):
        tables[name].append((case, verdict))
    return tables


@pytest.mark.parametrize(
    ("files", "least"), [(FILES, (0.99, 0.97, 0.97, 0.01)), (FAIR, (1.0, 0.975, 0.985, 0.0))], ids=["first 20", "fair"]
)
def test_the_tables_stay_as_good_as_measured(judged, files, least):
    everyday, harder, adversarial, accepted = least
    cases, verdicts = zip(*(pair for name in files for pair in judged[name]), strict=True)
    assert len(cases) >= 400
    shares = {kind: (right, accepted, wrong) for kind, _, right, accepted, wrong in compare.table(cases, verdicts)}
    assert shares["everyday"][0] >= everyday
    assert shares["everyday"][1] == 0
    assert shares["harder"][0] >= harder
    assert shares["adversarial"][0] >= adversarial
    assert shares["all"][1] <= accepted * shares["all"][2]


def test_marked_only_ever_takes_away(judged):
    """Over all tables: with `marked` nothing is accepted that is not accepted without it, and hardly anything wrong is."""
    cases, plain = zip(*(pair for table in judged.values() for pair in table), strict=True)
    marked = compare.ours([replace(c, marked=True) for c in cases])
    assert not [c for c, a, b in zip(cases, plain, marked, strict=True) if b == "correct" != a]
    assert {b for a, b in zip(plain, marked, strict=True) if a != b} <= {"no_answer"}
    _, _, _, accepted, wrong = compare.table(cases, marked)[-1]
    assert accepted <= 0.006 * wrong
    kept = [b for c, a, b in zip(cases, plain, marked, strict=True) if c.expected == a == "correct" and c.kind == "everyday"]
    assert kept.count("correct") > 0.75 * len(kept)  # most everyday responses do mark their answer


def test_right_responses_are_wrong_for_other_answers(data_dir):
    cases = list(compare.crossed([case for name in FILES for case in compare.read(HERE / name, data_dir)], most=3))
    accepted = [(c.answer, c.response) for c, got in zip(cases, compare.ours(cases), strict=True) if got == "correct"]
    assert len(cases) > 2000
    assert len(accepted) <= 0.002 * len(cases), accepted


def test_the_tables_name_real_questions_and_copy_none(data_dir):
    texts = {" ".join(q.question.split()) for q in compare.questions(data_dir).values()}
    lines = [json.loads(line) for path in HERE.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sum("query" in line for line in lines) > 3000
    assert [text for line in lines if len(text := " ".join(line.get("question", "").split())) > 60 and text in texts] == []


def test_cases_on_questions_of_a_folder_need_the_folder(data_dir, tmp_path):
    table = tmp_path / "table.jsonl"
    case = {"task": "gsm8k", "kind": "everyday", "answer": "18", "response": "#### 18", "expected": "correct"}
    name = next(iter(compare.questions(data_dir)))
    table.write_text("\n".join(json.dumps(case | more) for more in ({"question": "How many?"}, {"query": name})))
    assert [c.question for c in compare.read(table, None)] == ["How many?"]
    assert [c.question for c in compare.read(table, data_dir)] == ["How many?", compare.questions(data_dir)[name].question]
    table.write_text(json.dumps(case | {"query": "nothing-1"}))
    with pytest.raises(GsiError, match="nothing-1 is no question of"):
        compare.read(table, data_dir)


MARBLES = "Sam has 40 marbles. He gives 12 to Ann and 8 to Bob. How many marbles does Sam have left?"
TICKETS = "Tickets cost $8 for adults and $5 for children. A family of 2 adults and 3 children buys tickets. How much do they pay in total?"


@pytest.mark.parametrize(
    ("task", "answer", "question", "beside", "right"),
    [
        ("gsm8k", "20", MARBLES, ["He gave away 20 marbles.", "Ann has 20.", "That leaves 20 marbles for Ann.", "He has 20 - 8 left."], "He has 20 left."),
        ("gsm8k", "31", TICKETS, ["They pay $31 each.", "They pay $31 less.", "They save $31.", "They pay 31 cents.", "They get $31 back."], "They pay $31."),
        ("gsm8k", "7", "Lena reads 22 pages a day. How many days does she need for 154 pages?", ["7 weeks", "She needs 7 pages."], "She needs 7 days."),
        ("gsm8k", "18", "Amy is 6. Tom is 3 times as old. How old is Tom?", ["Amy is 18.", "Tom is 18 months old.", "Tom is 18 years older."], "Tom is 18 and Amy is 6."),
        ("svamp", "28", "How much farther did the mouse jump than the frog?", ["The frog jumped 28 inches farther than the mouse."], "It jumped 28 inches farther than the frog."),
        ("math", "2", "Solve. What is the value of $y$?", ["$x = 2$", "$2y = 2$", "$y^2 = 2$"], "So x = 3 and y = 2."),
        ("math", "28", "The area is 49. What is the perimeter?", ["The side is 28.", "The perimeter is 28 times the side."], "The perimeter is 28."),
        ("math", "12", "How many?", ["$1 + \\boxed{12}$", "$\\boxed{12}^2$", "$\\boxed{12}$ is not an integer", "$2 \\cdot \\boxed{12}$"], "$\\boxed{12}$ is right"),
        ("theoremqa", "3.45", "Find the voltage (in V).", ["V = 3.45 mV"], "V = 3.45 V"),
        ("svamp", "37", "There were 58 birds. 21 birds flew away. How many birds are still there?", ["37 birds flew away."], "37 birds are left."),
        ("svamp", "15", "He got 42 points, then 27. How many fewer points did he get in the second game than in the first?", ["He got 15 points in the second game."], "He got 15 fewer points."),
        ("gsm8k", "14", "In 4 years Ben will be 12. Nadia is 6 years older. How old is Nadia now?", ["In 4 years, Nadia will be 14."], "Nadia is 14 now."),
        ("gsm8k", "200", "Iris earns $800 and spends $600 on rent each week. How much does she save each week?", ["She saves $200 each month.", "She spends $200 on rent."], "She saves $200."),
        ("gsm8k", "80", "A hall has 320 seats. 240 tickets have been sold. How many seats are empty?", ["80 seats are taken.", "The hall has 80 seats."], "80 seats are empty."),
        ("math", "28", "What is the perimeter of a square with an area of 49?", ["The area is 28."], "The perimeter of the square is 28."),
    ],
)  # fmt: skip
def test_the_right_number_of_something_else_is_no_right_answer(task, answer, question, beside, right):
    assert {
        said: grade(said, answer, task, question=question).status for said in beside if grade(said, answer, task, question=question).correct
    } == {}
    assert grade(right, answer, task, question=question).correct


def test_the_short_way_says_what_the_long_way_says(data_dir):
    cases = [case for name in FILES for case in compare.read(HERE / name, data_dir)]
    before = "First, two steps of work are done on paper, with care.\n"
    seen = 0
    for response in {text for c in cases for text in (c.response, before + c.response, before + c.response.rstrip(".!") + ".")}:
        if short := plain_last_sentence(response):
            clause = commitment(response, "", lambda c: read_number(c) is not None)
            assert (clause.text, clause.mark, read_number(clause.text)) == (short[0], "", short[1])
            seen += 1
    assert seen > 50


# --------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def known():
    return remainder.read_known(HERE / "remainder.jsonl")


@pytest.mark.parametrize(("what", "every", "least"), [("answer", 40, 500), ("rationale", 30, 900), ("program", 150, 50)])
def test_real_rows_grade_as_correct_save_those_listed(data_dir, known, what, every, least):
    """A sample here; all rows in `make remainder DATA=FOLDER`."""
    if what == "program" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    counts, seen = Counter(), []

    def rows():
        for row in remainder.rows(data_dir, [what], every):
            seen.append(f"{row.query.id} {row.what}")
            yield row

    failed = {f"{f.row.query.id} {f.row.what}": f.line() for f in remainder.failures(rows(), 2, 20.0, counts)}
    assert counts.total() == len(seen) >= least
    assert [line for key, line in failed.items() if key not in known] == []
    assert [key for key in known if key in set(seen) and key not in failed] == [], "listed, but right now"


def test_listed_rationales_fail(data_dir, known):
    listed = [row for row in remainder.rows(data_dir, ["rationale"]) if f"{row.query.id} rationale" in known]
    assert len(listed) == sum(key.endswith(" rationale") for key in known)
    assert sum(1 for _ in remainder.failures(iter(listed), 1, 20.0, Counter())) == len(listed)


def test_the_remainder_command(tmp_path, monkeypatch, capsys):
    rows = [
        {"id": "a", "question": "1 + 1?", "answer": "2", "rationale": "1 + 1 = 2. The answer is 2"},
        {"id": "b", "question": "1 + 2?", "answer": "3", "rationale": "1 + 2 = 4. The answer is 4"},
    ]
    (tmp_path / "gsm8k_own.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "notes.jsonl").write_text('{"no": "task"}\n')
    monkeypatch.setattr("sys.argv", ["remainder", str(tmp_path)])
    assert remainder.main() == 0
    out, err = capsys.readouterr()
    (line,) = map(json.loads, out.splitlines())
    assert (line["id"], line["what"], line["status"], line["extracted"], line["line"]) == ("b", "rationale", "wrong", "4", 2)
    assert "gsm8k_own.jsonl rationale: 1 of 2 not correct" in err
    (tmp_path / "known").write_text(json.dumps({"id": "b", "what": "rationale", "reason": "wrong"}) + "\n")
    monkeypatch.setattr("sys.argv", ["remainder", str(tmp_path), "--known", str(tmp_path / "known")])
    assert remainder.main() == 0
    (tmp_path / "known").write_text(json.dumps({"id": "a", "what": "rationale", "reason": "wrong"}) + "\n")
    assert remainder.main() == 1
    assert "listed, but right now: a rationale" in capsys.readouterr().out


def test_wrong_everyday_responses_are_not_accepted(data_dir):
    """A few thousand; `make acceptance DATA=FOLDER` asks 60,000."""
    wrong = list(acceptance.wrong_responses(data_dir, 350, seed=3))
    assert {query.task for _, query, _ in wrong} == {"gsm8k", "svamp", "math", "theoremqa", "aqua", "mathqa"}
    assert {kind for kind, _, _ in wrong} == set(acceptance.KINDS)
    accepted = [(kind, q.answer, r) for kind, q, r in wrong if grade(r, q.answer, q.task, q.options, q.question).correct]
    assert len(wrong) == 2100
    assert len(accepted) <= 2, accepted


def test_fuzz():
    fuzz_grading.any_text_has_a_verdict()
    counts = fuzz_grading.fuzz(2000, seed=3)
    assert sum(counts.values()) == 2000
    assert min(counts[status] for status in ("correct", "wrong", "no_answer")) > 50


@pytest.mark.parametrize("unit", ["\n", "Q:\n", "answer is ", "= ", "(", "\\boxed{", "1,", "six ", "not ", "in the ", "1-1=", "word "])
def test_long_repetitions_are_answered(unit):
    assert grade(unit * (20_000 // len(unit)), "12", "gsm8k", question="How many?").status in ("wrong", "no_answer", "timeout")


@pytest.mark.parametrize("times", [3, 60, 400])
def test_a_form_that_sympy_cannot_follow_is_wrong_not_an_error(times):
    """Found by fuzzing: the factorial of a factorial of a factorial ended in a RecursionError."""
    assert grade("6" + "!" * times + "π", "6\\pi", "math").status == "wrong"


def test_one_long_word_is_read_once():
    """Found by fuzzing: three words were looked for in every way to cut one of 400 letters, which took 16 s."""
    assert grade("$2{,}700 \\times 1" + "or" * 200 + " = \\$32{,}400$", "32400", "gsm8k").correct


# --------------------------------------------------------------------------------------- the process check

STEPS_TABLE = [
    ("48/2 = 24 clips in May. 48 + 24 = 72 clips.", True),
    ("She has <<3*4=12>>12 and 12 + 5 = 18.", False),
    ("18*3=<<18*3=54>>54", True),
    ("18*3=<<18*3=55>>55", False),
    ("$5 x 3 + $2 = $17", True),
    ("5 × 3 − 2 = 13", True),
    ("5 ÷ 2 = 2.5", True),
    ("3 + 4 = 5 + 2 = 7", True),
    ("3 + 4 = 5 + 3 = 8", False),
    ("5 + 5 = 10 + 3 = 13", True),  # the sum goes on behind the result
    ("1,200 * 2 = 2,400", True),
    ("1,200 * 2 = 2,500", False),
    ("20% of 50 = 10", True),
    ("30/50 = 60%", True),
    ("0.6 * 100% = 60%", True),
    ("20% + 30% = 60%", False),
    ("100/3 = 33.33", True),
    ("100/3 = 33.4", False),
    ("33.33 * 3 = 100", True),
    ("4 hours * 60 miles/hour = 240 miles", True),
    ("4 hours * 60 miles/hour = 250 miles", False),
    ("$12/hour * 3 hours = $36", True),
    ("1 1/2 * 4 = 6", True),
    ("\\frac{1}{2} \\times 30 = 15", True),
    ("2^5 = 32", True),
    ("- 18 * 3 = 54", True),
    ("Step 1 - 5 * 3 = 15", True),
    ("(3 + 4) * (2 + 1) = 21", True),
    ("2(3 + 4) = 14", True),
    ("30 minutes * 4 = 2 hours", None),
    ("2x + 3 = 11", None),
    ("x = 5", None),
    ("f(3) = 9", None),
    ("17 / 5 = 3 remainder 2", None),
    ("9 + 5 = 2 mod 12", None),
    ("Cost of 3 shirts = 3 * 5", None),
    ("3 + 4 > 5", None),
    ("no equations here", None),
    ("", None),
    ("10^10^10^10 = 3", None),
    ("1/0 = 5", None),
]


@pytest.mark.parametrize(("text", "expected"), STEPS_TABLE)
def test_steps(text, expected):
    assert check_steps(text) is expected, failing(text)


def test_in_mathematics_letters_are_unknowns():
    assert check_steps("5 m = 3 + 3", words=False) is None
    assert check_steps("3 + 4 = 8", words=False) is False


@given(st.integers(1, 999), st.sampled_from("+-*"), st.integers(1, 999), st.integers(-3, 3))
def test_a_sum_holds_exactly_when_it_is_right(a, op, b, off):
    right = {"+": a + b, "-": a - b, "*": a * b}[op]
    assert check_steps(f"He has {a} {op} {b} = {right + off} of them.") is (off == 0)


def test_verdicts_say_if_the_steps_hold():
    lucky = grade("3 + 4 = 8 and 8 - 1 = 7. The answer is 7", "7", "gsm8k")
    assert (lucky.status, lucky.steps_ok) == ("correct", False)
    assert grade("3 + 4 = 7. The answer is 7", "7", "svamp").steps_ok is True
    assert grade("The answer is 7", "7", "gsm8k").steps_ok is None
    assert grade("3 + 4 = 7. The answer is $\\frac{14}{2}$", "\\frac{7}{1}", "math").steps_ok is not False
    assert set(STEPS) == {"gsm8k", "svamp", "aqua", "mathqa", "math", "math500", "gsm_symbolic"}
    with_none = make_grader({"gsm8k": None}, steps=False)
    assert with_none.submit(Query("q", "gsm8k", "", "7"), "3 + 4 = 8, so 7").result().steps_ok is None


@pytest.mark.parametrize(("file", "least", "most"), [("gsm8k_cot", 0.94, 0.01), ("gsm8k_full", 0.94, 0.01), ("aqua_cot", 0.4, 0.07)])
def test_steps_of_real_rationales(data_dir, file, least, most):
    import gzip

    with gzip.open(data_dir / "train" / f"{file}.jsonl.gz", "rt") as f:
        said = [check_steps(json.loads(line)["rationale"]) for line in itertools.islice(f, 0, None, 4)]
    assert said.count(True) >= least * len(said)
    assert said.count(False) <= most * len(said)


# --------------------------------------------------------------------------------------- the cache


def test_comparisons_are_made_once():
    grader = make_grader({"math": None})
    try:
        query = Query("q", "math", "", "x^2 - 1")
        first = grader.submit(query, "\\boxed{(x-1)(x+1)}").result()
        again = grader.submit(query, "So it is \\boxed{(x-1) (x+1)}.")
        assert again.done()  # no worker was asked
        assert (first.status, again.result().status) == ("correct", "correct")
        assert grader.submit(Query("q", "math", "", "x^2 + 1"), "\\boxed{(x-1)(x+1)}").result().status == "wrong"
    finally:
        grader.close()


# --------------------------------------------------------------------------------------- chance


@pytest.mark.parametrize(("correct", "n", "options", "expected"), [(0, 8, 5, False), (1, 1, 5, False), (4, 8, 5, False), (5, 8, 5, True), (2, 2, 5, True),
                                                                  (4, 4, 2, False), (5, 5, 2, True), (20, 100, 5, False), (28, 100, 5, True)])  # fmt: skip
def test_above_chance(correct, n, options, expected):
    assert above_chance(correct, n, options) is expected


@given(st.integers(1, 60), st.data(), st.integers(2, 6))
def test_above_chance_is_the_exact_binomial_test(n, data, options):
    correct = data.draw(st.integers(1, n))
    p = 1 / options
    tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(correct, n + 1))
    if abs(tail - 0.05) > 1e-9:
        assert above_chance(correct, n, options) is (tail < 0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "run"
    gsi.run(load_config(scripted.config(path)))
    return path


def test_lucky_guesses_do_not_cover_a_choice_query(run):
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    rates = {
        q: (right, n)
        for q, right, n in ledger.query("SELECT query_id, sum(correct), count(*) FROM rollouts WHERE iteration = 0 GROUP BY 1")
    }
    options = ("a", "b", "c", "d", "e")
    plain = [Query(q, "chain", "?", "1") for q in rates]
    choices = [Query(q, "chain", "?", "A", options=options) for q in rates]
    assert sample_line(ledger, 0, plain, "answer", {})["tail/coverage"] == sum(right > 0 for right, _ in rates.values()) / len(rates)
    expected = sum(above_chance(right, n, 5) for right, n in rates.values()) / len(rates)
    line = sample_line(ledger, 0, choices, "answer", {})
    assert line["tail/coverage"] == expected
    assert line["tail/at_chance"] == sum(right > 0 and not above_chance(right, n, 5) for right, n in rates.values()) / len(rates)
    ledger.close()


# --------------------------------------------------------------------------------------- audit and bench


def test_an_audit_takes_of_every_level_and_every_query_first(run):
    items, shares = audit(run, 20)
    rows = [item.rollout for item in items]
    assert shares == {}
    assert all(r.correct for r in rows)
    assert [r.level for r in rows] == sorted((r.level for r in rows), reverse=True)
    counts = {level: sum(r.level == level for r in rows) for level in {r.level for r in rows}}
    assert max(counts.values()) <= 20 // len(counts) + 2
    for level in counts:
        queries = [r.query_id for r in rows if r.level == level]
        ledger = Ledger(run / "ledger.sqlite", read_only=True)
        there = {r.query_id for r in ledger.rows(1) if r.correct and r.level == level}
        assert len(set(queries)) == min(len(queries), len(there))
        ledger.close()
    assert audit(run, 20)[0] == items
    assert audit(run, 20, seed=1)[0] != items
    text = show(items, {}, as_json=False)
    assert all(r.query_id in text and r.completion.strip() in text for r in rows)
    assert len(show(items, {}, as_json=True).splitlines()) == len(items)


def test_leaks_are_counted_among_the_rows_that_were_trained_on(tmp_path, capsys):
    """Plants one leak of each filter in what was trained on, and one in a wrong attempt, which was not; plain rows stand apart."""
    path = tmp_path / "run"
    gsi.run(load_config(scripted.config(path, strategy="state_reset")))
    with closing(sqlite3.connect(path / "ledger.sqlite")) as db:
        db.execute("UPDATE queries SET rationale = NULL")  # in this task an accepted response is the reference
        db.commit()
    n, before = leak_rates(path)
    rows = pq.read_table(path / f"iter_{n}" / "train.parquet").to_pylist()
    assert {kind: found.rows for kind, found in before.items()} == Counter((r["guidance"] or "plain").partition(":")[0] for r in rows)
    guided = [r for r in rows if r["guidance"]]
    assert guided
    ledger = Ledger(path / "ledger.sqlite", read_only=True)
    answers = dict(ledger.query("SELECT id, answer FROM queries WHERE split = 'train'"))
    ledger.close()
    spoken = "We first count all of the apples that were in the large basket and then we add the apples of the other basket to them"
    plants = {
        "mention": lambda answer: "As the reference solution that I was given says, we go on. 2 + 3 = 5",
        "early_answer": lambda answer: f"The answer is {answer}. That is because 2 + 3 = 5 and 5 + 4 = 9",
        "copy": lambda answer: spoken,
    }
    with closing(sqlite3.connect(path / "ledger.sqlite")) as db:
        for (name, text), row in zip(plants.items(), guided, strict=False):
            key = (row["query_id"], row["iteration"], row["attempt"])
            done = text(answers[row["query_id"]])
            db.execute(
                "UPDATE rollouts SET given = '', completion = ?, crc = NULL WHERE (query_id, iteration, attempt) = (?, ?, ?)", (done, *key)
            )
            if name == "copy":
                db.execute("UPDATE queries SET rationale = ? WHERE id = ?", (spoken, row["query_id"]))
        wrong = "SELECT query_id, iteration, attempt FROM rollouts WHERE NOT correct AND guidance IS NOT NULL AND iteration = ? LIMIT 1"
        other = db.execute(wrong, (n - 1,)).fetchone()
        db.execute(
            "UPDATE rollouts SET completion = ?, crc = NULL WHERE (query_id, iteration, attempt) = (?, ?, ?)",
            (plants["mention"]("1"), *other),
        )
        step = next(r for r in guided[len(plants) :] if r["query_id"] not in {g["query_id"] for g in guided[: len(plants)]})
        key = (step["query_id"], step["iteration"], step["attempt"])
        db.execute("UPDATE rollouts SET steps_ok = 0, crc = NULL WHERE (query_id, iteration, attempt) = (?, ?, ?)", key)
        db.commit()
    assert main(["audit", str(path), "--leaks", "--json"]) == 0
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert kinds.pop("plain") == {"rows": before["plain"].rows} | {name: before["plain"].found[name] for name in (*plants, "steps")} | {
        "any": before["plain"].any
    }
    total = Counter()
    for found in kinds.values():
        total.update(found)
    assert [total[name] for name in (*plants, "steps")] == [1, 1, 1, 1]
    assert total["any"] == 4
    assert main(["audit", str(path), "--leaks", "--iteration", "1"]) == 0
    printed = capsys.readouterr().out
    assert "plain rows had no help" in printed
    assert "guided, all: " in printed
    assert main(["audit", str(path), "--leaks", "--iteration", "9"]) == 2
    assert "there is no iter_9/train.parquet" in capsys.readouterr().err


def test_a_judge_gives_the_share_that_is_right(run, capsys):
    def script(body, n):
        text = body["messages"][0]["content"]
        return (
            "OK"
            if "Reply with OK" in text
            else ("It is fine.\nVerdict: right" if len(text) % 3 else "Step 2 is wrong.\n**Verdict:** wrong")
        )

    with FakeServer(script) as server:
        items, shares = audit(run, 12, judge_url=server.url, model="fake")
        assert sum(s["judged"] for s in shares.values()) == len(items) == 12
        assert all(s["interval"][0] <= s["share"] <= s["interval"][1] for s in shares.values())
        assert sum(s["right"] for s in shares.values()) == sum(item.right for item in items)
        prompts = [body["messages"][0]["content"] for body in server.bodies[1:]]
        assert all(any(item.rollout.completion in prompt for prompt in prompts) for item in items)
        assert main(["audit", str(run), "--n", "3", "--judge", server.url, "--model", "fake", "--json"]) == 0
    assert "precision" in json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_judge_sees_what_a_row_trains_on_not_the_hint(tmp_path):
    path = gsi.run(scripted.config(tmp_path / "run", strategy="answer_driven", iterations=1), reporter=Reporter("quiet")).path
    with FakeServer(lambda body, n: "OK. Verdict: right") as server:
        items, _ = audit(path, 1000, judge_url=server.url, model="fake")
        hinted = [item for item in items if item.rollout.guided]
        assert hinted
        assert all("final answer is" in item.rollout.prompt for item in hinted)
        asked = [body["messages"][0]["content"] for body in server.bodies[1:]]
    assert len(asked) == len(items)
    assert not any("final answer is" in text.partition("Question:")[2] for text in asked)


def test_a_judge_that_says_neither_is_no_verdict(run):
    with FakeServer(lambda body, n: "Hard to say.") as server:
        items, shares = audit(run, 3, judge_url=server.url, model="fake")
    assert [item.right for item in items] == [None] * 3
    assert shares == precision(items) == {}
    assert "without a verdict: 3" not in show(items, shares, as_json=False)


def test_audit_errors_say_what_to_do(run, tmp_path, capsys):
    with pytest.raises(GsiError, match="go together"):
        audit(run, 3, judge_url="http://127.0.0.1:9/v1")
    with pytest.raises(GsiError, match="no accepted rollouts"):
        audit(run, 3, iteration=9)
    with pytest.raises(GsiError, match="no ledger"):
        audit(tmp_path, 3)
    assert choose([], 5, 0) == []
    assert main(["bench", "nonesuch"]) == 2
    assert "grading" in capsys.readouterr().err


def test_the_grading_bench_measures_both_sides():
    line = grading(n=20, n_latex=4, n_programs=1)
    assert {"plain_ratio", "latex_ratio", "programs_per_s"} <= set(line)
    assert min(line["plain_per_s"], line["plain_math_verify_per_s"], line["latex_per_s"], line["latex_math_verify_per_s"]) > 0
    assert set(BENCHES) == {"grading", "sampling", "memory", "training", "report", "allocation", "start", "cluster"}


def test_the_sampling_bench_draws_the_same_by_all_three_ways():
    line = sampling(queries=5, rows=8, repeats=1)
    ways = [line[way] for way in ("ours", "rounds", "all_at_once")]
    assert len({way["accepted"] for way in ways}) == 1
    assert len({way["tokens_per_accepted"] for way in ways}) == 1, "the same stopping rule on the same identities"
    assert line["waste"] == 0
    assert line["most_by_scheduling"] > line["rounds"]["computed"] / line["ours"]["computed"] > 1, "every prompt once is the least there is"
    assert min(line["decode_tokens_per_s"], line["ceiling_tokens_per_s"], *(way["accepted_per_s"] for way in ways)) > 0
