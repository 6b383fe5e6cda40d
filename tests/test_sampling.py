"""The sampler as an engine sees it, the memory it takes, and what is refused before it starts."""

import json
import sqlite3
import threading
from concurrent.futures import Future

import models
import pytest
import scripted
import yaml

from gsi.allocation import Quota
from gsi.bench.memory import memory
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.engines.scripted import ByteTokenizer, ScriptedEngine
from gsi.guidance.answer_driven import AnswerDriven
from gsi.ledger import Ledger
from gsi.prompts import Renderer
from gsi.sampling import Sampler
from gsi.types import Completion, GsiError, Query, Sampling, Verdict


class Broken:
    """A guidance whose teacher is down."""

    def hint(self, query, history, index):
        raise GsiError("the teacher cannot be reached")


class Marker:
    """Right answers say `yes`; one that says `slow` is graded when `release` is set, in a thread of its own."""

    def __init__(self):
        self.release = threading.Event()
        self.waiting = []

    def submit(self, query, response):
        done: Future[Verdict] = Future()

        def grade():
            done.set_result(Verdict("correct" if "yes" in response else "wrong"))

        if "slow" in response:
            self.waiting.append(threading.Thread(target=lambda: (self.release.wait(30), grade())))
            self.waiting[-1].start()
        else:
            grade()
        return done


def sampler(tmp_path, queries, grader, **settings):
    renderer = Renderer(ByteTokenizer(), "{question}")
    return Sampler(
        [Query(q, "t", f"{q}?", "1") for q in queries],
        iteration=0,
        allocation=Quota(k=2, wanted=2, max_extra=2),
        guidance=AnswerDriven(),
        renderer=renderer,
        grader=grader,
        ledger=Ledger(tmp_path / "ledger.sqlite"),
        sampling=lambda attempt: Sampling(1.0, 1.0, 20),
        seed=0,
        strategy="answer_driven",
        model="m",
        **settings,
    )


def answer(text):
    return Completion(text, tuple(text.encode()), "stop", len(text))


def test_guided_attempts_of_a_query_start_as_soon_as_its_own_plain_ones_are_graded(tmp_path):
    with sampler(tmp_path, ["a", "b", "c"], Marker()) as work:
        plain = work.take(100, 5)
        assert [(r.query.id, r.attempt, r.guidance) for r in plain] == [(q, n, None) for q in "abc" for n in (0, 1)]
        for request in plain[2:4]:
            work.put(request, answer("no"))
        guided = [r for _ in range(2) for r in work.take(1, 5)]
        assert [(r.query.id, r.attempt) for r in guided] == [("b", 2), ("b", 3)], "the plain ones of a and c are still being drawn"
        assert all(r.guidance.startswith("answer_driven") for r in guided)
        assert work.take(100, 0) == []
        for request in [*plain[:2], *plain[4:], *guided]:
            work.put(request, answer("yes"))
        assert work.take(100, 5) is None
    assert work.stats.finished == 3


def test_slow_grading_holds_neither_the_engine_nor_other_queries(tmp_path):
    grader = Marker()
    with sampler(tmp_path, ["a", "b"], grader) as work:
        plain = work.take(100, 5)
        for request in plain:
            work.put(request, answer("slow yes" if request.query.id == "a" else "no"))
        assert [r.query.id for _ in range(2) for r in work.take(1, 5)] == ["b", "b"], "b goes on while a is being graded"
        assert not grader.release.is_set()
        grader.release.set()
        work.stop()


@pytest.mark.parametrize("hint_workers", [0, 1])
def test_a_hint_that_fails_loses_nothing_that_was_handed_over(tmp_path, hint_workers):
    grader = Marker()
    work = sampler(tmp_path, ["a", "b", "c"], grader, hint_workers=hint_workers)
    work.guidance = Broken()

    def engine():
        plain = work.take(100, 5)
        for request in (*plain[2:4], *plain[:2]):
            work.put(request, answer("slow yes" if request.query.id == "b" else "no"))
        try:
            while work.take(0, 5) is not None:
                pass
        finally:
            for request in plain[4:]:  # were ready before the engine asked for more
                work.put(request, answer("no"))
            grader.release.set()

    with pytest.raises(GsiError, match="teacher cannot be reached"), work:
        engine()
    assert [(r.query_id, r.attempt, r.status) for r in work.ledger.rows()] == [
        (q, n, "correct" if q == "b" else "wrong") for q in "abc" for n in (0, 1)
    ]


def test_a_response_that_cannot_be_graded_takes_no_other_with_it(tmp_path):
    class Odd(Marker):
        def submit(self, query, response):
            if query.id == "a":
                raise GsiError("no grader for this")
            return super().submit(query, response)

    work = sampler(tmp_path, ["a", "b", "c"], Odd())
    with pytest.raises(GsiError, match="no grader for this"), work:
        ScriptedEngine(lambda request, model: "yes", "m").run(work)
    assert [(r.query_id, r.attempt) for r in work.ledger.rows()] == [(q, n) for q in "bc" for n in (0, 1)]


def test_an_engine_is_told_that_nothing_can_be_stored(tmp_path):
    work = sampler(tmp_path, ["a", "b"], Marker())
    work.ledger.close()
    with pytest.raises(sqlite3.ProgrammingError), work:
        ScriptedEngine(lambda request, model: "no", "m").run(work)


def test_attempts_that_turned_out_to_be_needless_are_counted_as_waste(tmp_path):
    """An allocation that launches both extras at once, where the first of them is enough."""

    class Eager(Quota):
        def plan(self, query, history):
            plan = super().plan(query, history)
            return type(plan)(max(plan.total, 4), plan.guided) if len(history) >= 2 and plan.total > len(history) else plan

    work = sampler(tmp_path, ["a"], Marker())
    work.allocation = Eager(k=2, wanted=1, max_extra=2)
    with work:
        ScriptedEngine(lambda request, model: "no" if request.attempt < 2 else "yes", "m").run(work)
    assert work.stats.rollouts == 4
    assert (work.stats.all_tokens, work.stats.wasted) == (3 + 3 + 4 + 4, 4)


@pytest.mark.training
def test_memory_does_not_grow_with_the_number_of_queries():
    """The real thing, each number of queries in a process of its own (`gsi bench memory` goes to 10,000)."""
    assert memory(600, 6_000)["growth"] < 1.1


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"kind": "vllm", "max_batch_tokens": 9}, "unknown key 'engine.max_batch_tokens'; engine transformers has it"),
        ({"kind": "openai", "url": "u", "max_rows": 9}, "engine transformers and vllm and scripted has it"),
        ({"kind": "scripted", "function": "f", "tensor_parallel": 2}, "engine vllm has it"),
    ],
)
def test_an_option_of_another_engine_is_refused_with_the_engines_that_have_it(tmp_path, engine, message):
    with pytest.raises(ConfigError) as e:
        load_config(scripted.config(tmp_path, engine=engine))
    assert message in str(e.value)


@pytest.mark.parametrize("engine", [{"kind": "vllm"}, {"kind": "openai", "url": "u"}, {"kind": "scripted", "function": "f"}])
def test_a_repetition_stop_is_refused_where_the_engine_has_none(tmp_path, engine):
    with pytest.raises(ConfigError, match=rf"sample.repetition_stop: engine {engine['kind']} cannot do this; engine transformers can"):
        load_config(scripted.config(tmp_path, engine=engine, sample={"repetition_stop": 64}))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"kind": "transformers", "device": "cuda"}, "no CUDA device"),
        ({"kind": "transformers", "device": "the gpu"}, "is no device"),
        ({"kind": "openai", "url": "http://127.0.0.1:9/v1", "retries": 0}, "127.0.0.1:9"),
        ({"kind": "openai", "url": "127.0.0.1:9/v1", "retries": 0}, "correct engine.url"),
        ({"kind": "vllm", "python": "/no/such/python"}, "/no/such/python"),
    ],
)
def test_what_is_not_there_ends_the_command_with_code_2(tmp_path, capsys, engine, message):
    base = models.build(tmp_path / "base")
    settings = scripted.config(tmp_path / "run", model=str(base), engine=engine, evaluate={"validation": 0})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["run", str(tmp_path / "config.yaml"), "--log", "quiet"]) == 2
    assert message in capsys.readouterr().err
    state = tmp_path / "run" / "run.json"
    assert not state.exists() or json.loads(state.read_text())["stages"].get("1", {}).get("sample", {}).get("state") != "done"
