"""Several entries of one task name: what one of them says of checker and hard levels holds for all, in tasks and in evaluate.tasks."""

import json

import pytest
import scripted
from scripted import HERE

import gsi
from gsi.config import load_config
from gsi.progress import Reporter
from gsi.queries import load_data
from gsi.types import GsiError, Query

CHAIN = {"name": "chain", "args": {"seed": 1, "per_level": 4}}
TEST = {"name": "chain", "args": {"seed": 9, "per_level": 3}}
ANYTHING, OWN = f"{HERE}:anything", f"{HERE.with_name('own_check.py')}:check"


def said(response, query):
    return response.removeprefix("said ") == query.answer


def load(task, *tests, queries=None, check=None):
    made = scripted.config("out", tasks=[task], evaluate={"validation": 0, "tasks": list(tests)})
    data = load_data(load_config(made), queries, check)
    data.grader.close()
    return data


def mine(folder, part, **entry):
    """A task with a name of one's own, whose questions are a file."""
    path = folder / f"{part}.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"{part}{i}", "question": f"What is {part} {i}?", "answer": str(i)}) + "\n" for i in range(4))
    )
    return {"name": "mine", "path": str(path), **entry}


def test_a_test_set_leaves_the_check_of_the_training_task_alone(tmp_path):
    config = scripted.config(
        tmp_path / "run", iterations=1, tasks=[CHAIN | {"check": ANYTHING}], evaluate={"validation": 0, "tasks": [TEST]}
    )
    line = gsi.run(config, reporter=Reporter("quiet")).metrics[-1]
    assert line["sample/correct"] == line["sample/rollouts"] > 0
    assert line["test/chain/pass@1"] == 1.0, "and its own questions have the same check"


@pytest.mark.parametrize("entry", [{}, {"check": OWN}], ids=["left out", "the same"])
def test_a_test_set_of_a_name_of_ones_own_needs_no_check_of_its_own(tmp_path, entry):
    made = scripted.config(
        "out", tasks=[mine(tmp_path, "train", check=OWN)], evaluate={"validation": 0, "tasks": [mine(tmp_path, "test", **entry)]}
    )
    data = load_data(load_config(made))
    try:
        assert [q.id for q in data.test] == [f"test{i}" for i in range(4)]
        for query in (data.train[1], data.test[2]):
            assert data.grader.submit(query, f"9, no: {query.answer}").result().correct
    finally:
        data.grader.close()


def test_a_second_training_file_takes_over_the_check_where_steps_count_too(tmp_path):
    made = scripted.config(
        "out", tasks=[mine(tmp_path, "one", check=OWN), mine(tmp_path, "two")], evaluate={"validation": 0}, accept="steps"
    )
    data = load_data(load_config(made))
    data.grader.close()
    assert len(data.train) == 8


def test_a_check_given_in_python_holds_for_the_test_set_of_that_name_too(tmp_path):
    asked, train = [gsi.Query("a", "", "What is it?", "oranges")], mine(tmp_path, "train")
    assert len(load(train, mine(tmp_path, "test"), queries=asked, check=scripted.anything).test) == 4
    with pytest.raises(GsiError, match=r"for evaluate.tasks\[0\] and anything for tasks\[0\]"):
        load(train, mine(tmp_path, "test", check=OWN), queries=asked, check=scripted.anything)


@pytest.mark.parametrize("entry", [{}, {"hard_levels": [9, 10]}], ids=["left out", "the same"])
def test_a_test_set_leaves_the_hard_levels_of_the_training_task_alone(entry):
    assert load(CHAIN | {"hard_levels": [9, 10]}, TEST | entry).hard == {"chain": (9, 10)}
    assert load(CHAIN, TEST, {"name": "dag", "args": {"per_level": 2}, "hard_levels": [6]}).hard == {"chain": (7, 8, 9, 10), "dag": (6,)}


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ({"check": ANYTHING}, {"check": OWN}, f"`check` is '{OWN}' for evaluate.tasks[0] and '{ANYTHING}' for tasks[0]"),
        ({}, {"check": OWN}, f"`check` is '{OWN}' for evaluate.tasks[0] and left out for tasks[0]"),
        ({"hard_levels": [9, 10]}, {"hard_levels": [8]}, "`hard_levels` is (8,) for evaluate.tasks[0] and (9, 10) for tasks[0]"),
        ({}, {"hard_levels": [8]}, "`hard_levels` is (8,) for evaluate.tasks[0] and (7, 8, 9, 10) for tasks[0]"),
    ],
)
def test_two_that_differ_are_refused(train, test, said):
    with pytest.raises(GsiError) as e:
        load(CHAIN | train, TEST | test)
    assert said in str(e.value)
    assert "leave it out in evaluate.tasks[0]" in str(e.value)


def test_a_check_given_in_python_is_that_of_the_questions_and_of_no_other_test_set(tmp_path):
    queries = [Query(f"q{i}", "mine", f"What is {i}?", str(i)) for i in range(4)]
    made = scripted.config("out", tasks=[{"name": "mine"}], evaluate={"validation": 0, "tasks": [TEST]})
    data = load_data(load_config(made), queries, said)
    try:
        assert data.grader.submit(data.train[0], f"said {data.train[0].answer}").result().correct
        assert data.grader.submit(data.test[0], data.test[0].rationale).result().correct, "by the test set's own, built-in check"
    finally:
        data.grader.close()
