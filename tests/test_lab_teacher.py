"""The lab's teacher: it reads a student's attempt as `interactive` shows it and speaks of the first quantity that its own solution has otherwise."""

import json
import random
import socket
import threading
import time
from contextlib import nullcontext

import models
import pytest
import uvicorn
import yaml
from fake_server import FakeServer
from test_study import study
from transformers import AutoModelForCausalLM

from gsi.cli import main
from gsi.config.sampling import Teacher
from gsi.guidance.interactive import Interactive
from gsi.guidance.teacher import OpenAITeacher
from gsi.lab import dag, teacher
from gsi.types import GsiError, Query, Rollout


class Book:
    """A solver that knows its solutions."""

    def __init__(self, solutions):
        self.solutions, self.asked = solutions, []

    def solve(self, question):
        self.asked.append(question)
        return self.solutions[question], len(self.solutions[question].split())


@pytest.fixture
def server():
    """(url, solver) of a teacher over real HTTP."""
    solver = Book({})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        run = uvicorn.Server(uvicorn.Config(teacher.app("strong", solver), log_level="warning"))
        thread = threading.Thread(target=run.run, kwargs={"sockets": [listening]})
        thread.start()
        while not run.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", solver
        run.should_exit = True
        thread.join()


def wrong(query, text):
    fields = {
        "task": "dag",
        "level": 5,
        "iteration": 0,
        "attempt": 0,
        "strategy": "interactive",
        "guidance": None,
        "prompt": query.question,
    }
    return Rollout(
        query_id=query.id, given="", response=text, completion=text, prompt_ids=None, response_ids=None, prompt_tokens=0, given_tokens=0,
        generated_tokens=9, finish_reason="stop", seed=1, model="m", status="wrong", correct=False, steps_ok=False, extracted="1", detail="", created_at="", **fields,
    )  # fmt: skip


def test_the_students_first_mistake_is_named_without_its_value(server):
    url, solver = server
    asker = OpenAITeacher(Teacher(url=url, model="strong"))
    guidance = Interactive(asker, dag.HINTS["interactive"])
    rng = random.Random(3)
    for i in range(20):
        problem = dag.draw(rng, rng.randint(2, 8))
        own = dag.own_words(problem, rng)
        attempt, letter = dag.spoil(own, rng)
        query = Query(f"q{i}", "dag", problem.question, own.split()[-1], level=5)
        solver.solutions[problem.question] = own
        hint = guidance.hint(query, [wrong(query, attempt)], 0)
        assert hint.question == f"attempt {attempt} teacher {dag.feedback(problem, letter)} {problem.question}"
        assert solver.asked[-1] == problem.question
    assert asker.probe().text == "OK"
    asker.close()


def test_an_attempt_that_stops_short_is_told_what_is_missing():
    problem = dag.draw(random.Random(1), 4)
    own = dag.own_words(problem, random.Random(1))
    short = " ; ".join(own.split(" ; ")[:2]) + " ; # 3"
    assert teacher.explain(problem.question, short, own) == dag.feedback(problem, own.split(" ; ")[2].split()[0])


def test_a_taken_port_and_a_model_that_cannot_teach_are_refused(tmp_path, capsys):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(GsiError, match=f"teacher.port: {port} is in use"), teacher.served("lab:dag-strong:1", port):
            pass
    path = study(tmp_path, teacher={"model": "lab:chain"})
    assert main(["study", path]) == 2
    assert "teacher.model: 'lab:chain' cannot teach" in capsys.readouterr().err


def test_a_configs_url_is_the_studys_teacher(tmp_path):
    arm = {"strategy": "interactive", "teacher": {"url": "{teacher}", "model": "lab:dag-strong:1"}}
    path = study(tmp_path, teacher={"model": "lab:dag-strong:1", "port": 8199}, strategies=[], arms={"interactive": arm})
    from gsi.lab.matrix import cells, load_study

    (cell,) = cells(load_study(path)[0])
    assert cell.config["teacher"]["url"] == "http://127.0.0.1:8199/v1"
    assert yaml.safe_load(yaml.safe_dump(cell.config)) == cell.config


def test_what_the_studys_teacher_reads_and_writes_is_part_of_a_cells_flops(tmp_path, monkeypatch):
    """The scripted engine has no parameters, so what a cell costs is the teacher's."""
    monkeypatch.setattr("gsi.lab.base.resolve", lambda name: models.build(tmp_path / name.replace(":", "-")))
    monkeypatch.setattr("gsi.lab.study.BUILD", ("-c", "pass"))
    monkeypatch.setattr(teacher, "served", lambda model, port: nullcontext())
    with FakeServer(lambda body, n: "Look at the second step again.") as server:
        arm = {"strategy": "interactive", "teacher": {"url": server.url, "model": "fake"}}
        assert main(["study", study(tmp_path, teacher={"model": "lab:dag-strong:1"}, strategies=[], arms={"interactive": arm})]) == 0
    lines = (tmp_path / "runs" / "made_up" / "chain" / "s1" / "interactive" / "metrics.jsonl").read_text().splitlines()
    size = AutoModelForCausalLM.from_pretrained(tmp_path / "lab-dag-strong-1").num_parameters()
    for line in map(json.loads, lines[1:]):
        assert line["cost/flops"] == 2 * size * (line["teacher/prompt_tokens"] + line["teacher/tokens"]) > 0


def test_the_teachers_model_is_built_before_its_server_is_waited_for(tmp_path, capsys, monkeypatch):
    """Building may take longer than a server is waited for."""
    built = []

    def served(model, port):
        assert built == [model]
        raise GsiError("as far as this goes")

    monkeypatch.setattr("gsi.lab.study._child", lambda arguments, log, stop, gpu: built.append(arguments[-1]))
    monkeypatch.setattr(teacher, "served", served)
    arm = {"strategy": "interactive", "teacher": {"url": "{teacher}", "model": "lab:dag-strong:1"}}
    assert main(["study", study(tmp_path, teacher={"model": "lab:dag-strong:1"}, strategies=[], arms={"interactive": arm})]) == 2
    assert "as far as this goes" in capsys.readouterr().err
