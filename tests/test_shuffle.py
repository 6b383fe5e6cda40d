"""`tasks[].shuffle_options`: attempts see the options in orders of their own, and training sees the plain question only."""

import json
import re
from collections import Counter, defaultdict

import pyarrow.parquet as pq
import pytest
import scripted
from hypothesis import given
from hypothesis import strategies as st

import gsi
from gsi.audit import audit
from gsi.config import ConfigError, load_config
from gsi.ledger import Ledger
from gsi.metrics import above_chance
from gsi.report.html import write_report
from gsi.shuffle import can_shuffle, order_of, restored, shuffled
from gsi.types import Query
from gsi.verify import grade

VALUES = ("12 km", "15 km", "18 km", "21 km", "24 km")


def question(i: int, options=VALUES) -> Query:
    shown = " ".join(f"({chr(65 + j)}) {o}" for j, o in enumerate(options))
    text = f"A cyclist rides on day {i} for some hours. How far does A cyclist get?\nAnswer Choices: {shown}"
    return Query(f"q{i}", "aqua", text, chr(65 + i % 5), options=tuple(options), rationale=f"Look.\nThe answer is {chr(65 + i % 5)}")


# --------------------------------------------------------------------------------------- models of the scripted engine


def biased(request, model):
    """Always the first option."""
    return "The answer is A"


def knows(request, model):
    """Reads the options in the prompt and finds the right value; says it in several ways, one of which speaks of other letters."""
    value = VALUES[int(request.query.id[1:]) % 5]
    letter = re.search(rf"\(([A-E])\) {value}", request.prompt.text)[1]
    ways = (
        f"A cyclist needs time. The answer is {letter}",
        f"So it is {value}.\nAnswer: ({letter}) {value}",
        f"That makes {value}.",
        f"B is too short, so it is {letter}.\nThe answer is {letter}" if letter != "B" else f"C is too long.\nThe answer is {letter}",
    )
    return ways[request.attempt % 4]


def run(path, function, shuffle=True, order=None, **changes):
    data = path / "aqua.jsonl"
    with data.open("w") as f:
        for i in range(20):
            q = question(i)
            f.write(
                json.dumps({"id": q.id, "question": q.question, "answer": q.answer, "options": q.options, "rationale": q.rationale}) + "\n"
            )
    task = {"name": "aqua", "path": str(data), "shuffle_options": shuffle}
    config = scripted.config(path / "run", tasks=[task], iterations=1, **changes)
    config["sample"] = {"k": 10, "wanted": 4}
    config["engine"] = {"kind": "scripted", "function": f"{__file__}:{function}", "shuffle": order}
    return gsi.run(load_config(config))


def rows_of(result, iteration=0):
    ledger = Ledger(result.path / "ledger.sqlite", read_only=True)
    rows = list(ledger.rows(iteration))
    ledger.close()
    return rows


def test_a_model_that_likes_a_position_covers_nothing(tmp_path):
    result = run(tmp_path, "biased")
    rows = rows_of(result)
    right = Counter(r.query_id for r in rows if r.correct)
    assert set(right.values()) == {2}, "of 10 attempts each option stands in the first place twice"
    line = result.metrics[1]
    assert line["tail/coverage"] == 0
    assert line["tail/at_chance"] == 1
    assert line["sample/guided"] == 0
    assert line["sample/plain/rollouts"] == len(rows) == line["sample/rollouts"]
    assert line["sample/shuffled"] == sum(r.guidance is not None for r in rows) > 0.6 * len(rows)


def told(request, model):
    """Right only where the prompt tells the answer."""
    right = request.query.answer
    return f"The answer is {right if f' {right}.' in request.prompt.text or f'answer is {right}' in request.prompt.text else 'F'}"


def test_an_answer_that_was_shown_does_not_cover_a_choice_query(tmp_path):
    result = run(tmp_path, "told", shuffle=False, strategy="answer_driven")
    rows = rows_of(result)
    assert sum(r.correct for r in rows) > 20, "the guided attempts are right"
    assert not any(r.correct for r in rows if not r.guided)
    line = result.metrics[1]
    assert line["tail/coverage"] == 0
    assert line["tail/at_chance"] == 1


def test_without_shuffling_it_covers_a_fifth(tmp_path):
    result = run(tmp_path, "biased", shuffle=False)
    assert result.metrics[1]["tail/coverage"] == pytest.approx(0.2, abs=0.06)
    assert "sample/shuffled" not in result.metrics[1]


def test_a_run_with_shuffled_options(tmp_path):
    result = run(tmp_path, "knows", strategy="answer_driven")
    rows = rows_of(result)
    assert all(r.correct for r in rows)
    assert result.metrics[1]["tail/coverage"] == 1
    plain = defaultdict(set)
    for r in rows:
        if r.guidance is None:
            plain[r.query_id].add(r.prompt)
    assert all(r.guidance is None for r in rows if r.attempt == 0)
    assert all(len(prompts) == 1 for prompts in plain.values()), "the contract's plain prompt"
    queries = {q.id: q for q in map(question, range(20))}
    for r in rows:
        q = queries[r.query_id]
        if r.guidance is None:
            assert r.completion == r.response
            assert r.extracted == q.answer
            continue
        kind, _, order = r.guidance.partition(":")
        assert kind == "shuffle"
        shown = [VALUES[ord(c) - 65] for c in order]
        assert " ".join(f"({chr(65 + j)}) {o}" for j, o in enumerate(shown)) in r.prompt
        assert order[ord(r.extracted) - 65] == q.answer, "the letter of the order that the model saw"
        if r.completion:
            assert grade(r.completion, q.answer, "aqua", q.options, q.question).correct, "a right answer to the plain question"
        else:
            assert "is too" in r.response
    dropped = pq.read_table(result.path / "iter_1" / "dropped.parquet").to_pylist()
    assert {d["reason"] for d in dropped} == {"option_letters"}
    assert len(dropped) == sum(not r.completion for r in rows) > 0
    assert result.metrics[1]["train/dropped/option_letters"] == len(dropped)
    stored = {(r.query_id, r.attempt): r for r in rows}
    trained = pq.read_table(result.path / "iter_1" / "train.parquet").to_pylist()
    assert len(trained) == len(rows) - len(dropped)
    for t in trained:
        r, (prompt,) = stored[t["query_id"], t["attempt"]], plain[t["query_id"]]
        assert (t["prompt"], t["completion"], t["guidance"]) == (prompt, r.completion, r.guidance)
        assert bytes(i for i in t["input_ids"] if i < 256).decode() == prompt + r.completion
    write_report([result.path], tmp_path / "report.html")
    assert "options in other orders" in (tmp_path / "report.html").read_text()
    said = [item.rollout for item in audit(result.path, 200)[0]]
    assert len(said) == len(trained)
    assert all(r.completion == stored[r.query_id, r.attempt].response for r in said), "read beside the prompt that the model saw"


def thinks(request, model):
    """Weighs options by letter while it thinks; one time of five it thinks on, another time it names them in its answer."""
    letter = request.query.answer
    said = f"<think>\nOption {'B' if letter == 'A' else 'A'} is too short, the third one too long.\n"
    ends = {2: "", 3: f"</think>\n\nC, not E.\nThe answer is {letter}"}
    return said + ends.get(request.attempt % 5, f"</think>\n\nIt takes an hour. The answer is {letter}")


def test_thinking_is_stripped_from_shuffled_attempts_and_names_what_options_it_likes(tmp_path):
    result = run(
        tmp_path, "thinks", prompt={"template": "{question} ", "thinking": "strip"}, control=True, evaluate={"validation": 0, "avg_at_k": 0}
    )
    rows, queries = rows_of(result), {q.id: q for q in map(question, range(20))}
    trained = {(t["query_id"], t["attempt"]): t for t in pq.read_table(result.path / "iter_1" / "train.parquet").to_pylist()}
    assert {attempt for _, attempt in trained} >= {1, 4, 6, 9}, "shuffled ones are among them"
    for (query_id, attempt), row in trained.items():
        if attempt % 5 != 3:  # a plain attempt may name options
            assert row["completion"] == f"It takes an hour. The answer is {queries[query_id].answer}"
        assert bytes(i for i in row["input_ids"] if i < 256).decode() == row["prompt"] + row["completion"]
    dropped = pq.read_table(result.path / "iter_1" / "dropped.parquet").to_pylist()
    reasons = Counter((d["attempt"] % 5, d["reason"]) for d in dropped)
    shuffled_ = Counter(r.attempt % 5 for r in rows if r.guidance)
    assert reasons == {(2, "only_thinking"): 40, (3, "option_letters"): shuffled_[3]}
    assert len(trained) + len(dropped) == len(rows) == 200


def test_the_run_folder_keeps_the_contract(tmp_path, check_folder):
    assert check_folder(run(tmp_path, "knows").path) == []


def test_orders_do_not_depend_on_who_finishes_first(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = (rows_of(run(tmp_path / name, "knows", order=order)) for name, order in (("a", None), ("b", 5)))
    assert [(r.query_id, r.attempt, r.guidance, r.prompt) for r in first] == [(r.query_id, r.attempt, r.guidance, r.prompt) for r in second]


def guesses(request, model):
    """Wrong in every plain attempt; with the answer given away, right."""
    return f"The answer is {request.query.answer}" if "The final answer is" in request.prompt.text else "The answer is F"


def test_guided_attempts_show_the_plain_order_and_count_as_help(tmp_path):
    result = run(tmp_path, "guesses", strategy="answer_driven")
    rows = rows_of(result)
    guided = [r for r in rows if r.guided]
    assert {r.guidance for r in guided} == {"answer_driven"}
    assert result.metrics[1]["sample/guided"] == len(guided) == 16 * 4
    assert result.metrics[1]["sample/plain/accepted"] == 0
    assert all(question(int(r.query_id[1:])).question in r.prompt for r in guided)


def test_evaluation_shows_the_plain_order(tmp_path):
    result = run(tmp_path, "knows")
    ledger = Ledger(result.path / "ledger.sqlite", read_only=True)
    rows = list(ledger.rows(1, "validation"))
    ledger.close()
    assert rows
    assert all(r.guidance is None and question(int(r.query_id[1:])).question in r.prompt for r in rows)


# --------------------------------------------------------------------------------------- orders and letters


@given(st.integers(2, 8), st.integers(0, 99), st.integers(0, 5))
def test_every_option_stands_once_in_every_place(n, seed, block):
    rows = [order_of(n, seed, "q", 3, block * n + i) for i in range(n)]
    for place in range(n):
        assert {row[place] for row in rows} == set(range(n))
    assert order_of(n, seed, "q", 3, 0) == tuple(range(n))


def test_a_position_alone_is_never_above_chance():
    for k in range(1, 65):
        assert not any(above_chance(sum(order_of(5, seed, "q", 0, a)[0] == 2 for a in range(k)), k, 5) for seed in range(20))


FORMS = [
    "The answer is {}", "the answer is ({}) because of that.", "Answer: {}", "**Answer: ({}) 15 km**", "So the correct option is {}.", "{}", "({})", "#### {}",
    "\\boxed{{{}}}", "\\boxed{{\\text{{({})}}}}", "{}) and nothing more.", "I get 15.\n\nThe correct answer is **{}**", "Option {} is right. The answer is {}",
    "A cyclist gets far. The answer is {}.", "Therefore, the answer is option {}.", "answer choice {}",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attempt", range(1, 5))
def test_letters_come_back(form, attempt):
    q = question(attempt)
    other, label = shuffled(q, 7, 0, attempt)
    for letter in "ABCDE":
        said = form.replace("15 km", other.options[ord(letter) - 65]).format(*[letter] * 2)
        verdict = grade(said, other.answer, "aqua", other.options, other.question)
        back = restored(said, label, q.question, verdict.extracted)
        assert back is not None, said
        assert grade(back, q.answer, "aqua", q.options, q.question).status == verdict.status
        assert verdict.correct is (letter == other.answer)


UNCERTAIN = [
    "B is too small. The answer is C", "Since A and C are out, the answer is D", "Checking:\n(a) no\n(b) yes\nThe answer is B", "The third option fits. The answer is C",
    "The answer is B, not C", "The answer is B or C", "I choose the last one, so the answer is B", "Options: b) 15 km. The answer is B", "Option 2 is right. The answer is B",
    "A dog ran. The answer is B", "Let B = 3. The answer is D",
]  # fmt: skip


@pytest.mark.parametrize("said", UNCERTAIN)
def test_what_may_name_another_option_is_not_trained(said):
    assert restored(said, "shuffle:BDACE", question(1).question, "B") is None


def test_the_checkers_letter_has_to_be_among_those_replaced():
    assert restored("The answer is B", "shuffle:BDACE", "", "C") is None
    assert restored("It takes 15 km.", "shuffle:BDACE", "", "C") == "It takes 15 km."


def test_options_that_speak_of_others_stay():
    assert can_shuffle(question(0))
    assert not can_shuffle(question(0, ("1", "2", "3", "4", "None of the above")))
    assert not can_shuffle(question(0, ("1", "2", "3", "Both A and B", "5")))
    assert can_shuffle(question(0, ("1", "2", "3", "4", "None of these")))
    assert not can_shuffle(Query("q", "aqua", "How many? It is one of five.", "A", options=VALUES))
    assert not can_shuffle(Query("q", "gsm8k", "How many?", "12"))


@pytest.mark.parametrize(
    "shown", ["a ) 12 km , b ) 15 km , c ) 18 km , d ) 21 km , e ) 24 km", "A. 12 km\nB. 15 km\nC. 18 km\nD. 21 km\nE. 24 km"]
)
def test_usual_forms_of_options(shown):
    q = Query("q", "mathqa", f"How far ?\nAnswer Choices: {shown}", "B", options=VALUES)
    other, label = shuffled(q, 0, 0, 1)
    assert other.options[ord(other.answer) - 65] == "15 km"
    assert sorted(re.findall(r"\d\d km", other.question)) == list(VALUES)
    assert re.findall(r"\d\d km", other.question) == [VALUES[ord(c) - 65] for c in label[8:]]


@pytest.mark.parametrize("file", ["train/aqua_cot.jsonl.gz", "test/mathqa.jsonl.gz"])
def test_real_choice_questions_can_be_shuffled(data_dir, file):
    queries = gsi.tasks.load(
        load_config({"model": "m", "output_dir": "o", "tasks": [{"name": "aqua", "path": str(data_dir / file)}]}).tasks[0]
    ).queries
    assert sum(map(can_shuffle, queries)) > 0.99 * len(queries)


@pytest.mark.parametrize(("changes", "message"), [
    ({"tasks": [{"name": "aqua", "shuffle_options": True, "programs": True}]}, r"tasks\[0\]\.shuffle_options: not with programs"),
    ({"tasks": [{"name": "aqua"}], "evaluate": {"tasks": [{"name": "mathqa", "shuffle_options": True}]}}, r"evaluate\.tasks\[0\]\.shuffle_options: evaluation"),
])  # fmt: skip
def test_where_it_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_config({"model": "m", "output_dir": "o"} | changes)
