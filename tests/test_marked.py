"""`tasks[].marked`: only a marked answer counts."""

import io
import json
from dataclasses import replace

import pytest

import gsi
from gsi import tasks
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.config.data import Task
from gsi.queries import load_data
from gsi.types import GsiError
from gsi.verify import ONE_FORM


@pytest.mark.parametrize(
    ("task", "answer", "response", "plain", "marked"),
    [
        ("gsm8k", "18", "3 x 6 = 18\n#### 18", "correct", "correct"),
        ("gsm8k", "18", "He buys 3 bags of 6. So he has 18 apples.", "correct", "no_answer"),
        ("gsm8k", "18", "He buys 3 bags of 6. So he has 19 apples.", "wrong", "no_answer"),
        ("gsm8k", "18", "18", "correct", "correct"),  # nothing but an answer
        ("gsm8k", "18", "The answer is 18. Let me know if that helps!", "correct", "correct"),
        ("gsm8k", "18", "The answer is 20. He gives 2 away, so he has 18 left.", "correct", "no_answer"),
        ("gsm8k", "18", "The answer is 20. Wait, no, the answer is 18.", "correct", "correct"),
        ("gsm8k", "18", "", "no_answer", "no_answer"),
        ("math", r"\frac{3}{4}", r"We get $x = \frac{6}{8}$, so \boxed{\frac{3}{4}}.", "correct", "correct"),
        ("math", r"\frac{3}{4}", r"Dividing both sides of the equation by 8 gives $x = \frac{3}{4}$.", "correct", "no_answer"),
        ("aqua", "B", "Speed is 60 over 2, that is 30. Answer: (B)", "correct", "correct"),
        ("aqua", "B", "Speed is 60 over 2, so B is right.", "correct", "no_answer"),
        ("theoremqa", "True", "Every such map is continuous, hence the claim is true.", "correct", "no_answer"),
        ("theoremqa", "True", "Every such map is continuous. The answer is True.", "correct", "correct"),
        ("theoremqa", "[1, 2]", "Solving both equations of the system gives us [1, 2] as the eigenvalues.", "correct", "no_answer"),
        ("theoremqa", "[1, 2]", "Solving both equations of the system: the answer is [1, 2].", "correct", "correct"),
    ],
)  # fmt: skip
def test_an_answer_without_a_mark_is_none(task, answer, response, plain, marked):
    assert gsi.grade(response, answer, task).status == plain
    assert gsi.grade(response, answer, task, marked=True).status == marked


def config(tmp_path, **task):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"id": "a", "question": "How many are 9 and 9?", "answer": "18"}) + "\n")
    run = {"model": "base", "output_dir": str(tmp_path / "run"), "evaluate": {"validation": 0}, "prompt": {"template": "{question}"}}
    return load_config(run | {"tasks": [{"path": str(data), "marked": True} | task]})


@pytest.mark.parametrize("name", ["gsm8k", "auto"])
def test_a_task_says_so_for_its_queries(tmp_path, name):
    loaded = load_data(config(tmp_path, name=name))
    try:
        (query,) = loaded.train  # its own answer holds
        assert query.marked
        assert loaded.grader.submit(query, "Nine and nine makes them 18 in all.").result().status == "no_answer"
        verdict = loaded.grader.submit(query, "Nine and nine makes them 18 in all. The answer is 18.").result()
        assert verdict.correct
    finally:
        loaded.grader.close()


def test_a_generated_task_whose_answers_are_text_may_be_marked(monkeypatch):
    """gsm_symbolic is read as gsm8k is; its generator needs a package that may not be here."""
    spec = tasks.TASKS["gsm_symbolic"]
    made = [gsi.Query("a", "gsm_symbolic", "How many are 9 and 9?", "18")]
    monkeypatch.setitem(tasks.TASKS, "gsm_symbolic", replace(spec, generated=lambda **args: made))
    (query,) = tasks.load(Task(name="gsm_symbolic", marked=True, args={"per_level": 1})).queries
    assert query.marked
    assert "gsm_symbolic" not in ONE_FORM
    assert gsi.grade("So they are 18 in all of them.", "18", "gsm_symbolic", marked=True).status == "no_answer"


def test_queries_given_in_python_are_marked_by_their_task(tmp_path):
    loaded = load_data(config(tmp_path, name="gsm8k", path=None), [gsi.Query("a", "", "How many are 9 and 9?", "18")])
    try:
        assert [q.marked for q in loaded.train] == [True]
    finally:
        loaded.grader.close()


def test_it_is_refused_where_it_would_do_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"tasks\[0\]\.marked: answers are read by your own check"):
        config(tmp_path, name="mine", check="json:loads")
    with pytest.raises(ConfigError, match=r"tasks\[0\]\.marked: answers are read by running programs"):
        config(tmp_path, name="gsm8k", programs=True)
    with pytest.raises(GsiError, match="task chain: `marked` is for tasks whose answers are read from text"):
        load_data(config(tmp_path, name="chain", path=None, args={"per_level": 1}))
    with pytest.raises(GsiError, match="task gsm8k: `marked` is for tasks whose answers are read from text; your own check"):
        load_data(config(tmp_path, name="gsm8k"), check=lambda response, query: True)


def test_on_the_command_line(monkeypatch, capsys):
    rows = [{"response": r, "answer": "18"} for r in ("So he has 18 apples in all three bags.", "He has three bags of 6.\n#### 18")]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(r) + "\n" for r in rows)))
    assert main(["grade", "--task", "gsm8k", "--marked"]) == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["no_answer", "correct"]
