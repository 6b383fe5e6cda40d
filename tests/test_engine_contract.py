"""What every engine promises, checked on each of them: the embedded one, an OpenAI-compatible server (over HTTP, with and
without token ids, a real tiny model behind it) and the scripted one.

Another engine joins by one line in ENGINES.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import models
import pytest
from tiny_server import TinyServer

from gsi.allocation import Quota
from gsi.config.engines import OpenAIEngine as Settings
from gsi.engines.openai import OpenAIEngine
from gsi.engines.scripted import ScriptedEngine
from gsi.engines.transformers import TransformersEngine
from gsi.ledger import Ledger
from gsi.prompts import Renderer
from gsi.sampling import Sampler
from gsi.types import Completion, GsiError, Query, Request, Sampling, Stop, Text, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")  # anyio, when cancelled while it connects

TOKENIZER = models.tokenizer()
CONTEXT = 96


@dataclass
class Made:
    engine: Any
    kill: Callable[[], None]  # what it runs on breaks
    busy: Callable[[], int]  # responses in the making


@contextmanager
def transformers(folder: str) -> Iterator[Made]:
    engine = TransformersEngine(folder, TOKENIZER, max_rows=8)

    def kill() -> None:
        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("CUDA error: device-side assert triggered")

        engine._forward = broken

    yield Made(engine, kill, lambda: len(engine._rows))
    engine.close()


@contextmanager
def openai(folder: str, ids: bool = True) -> Iterator[Made]:
    with TinyServer(folder, TOKENIZER, ids=ids, max_rows=8) as server:
        settings = Settings(url=server.url, concurrency=8, retries=1)
        engine = OpenAIEngine(settings, folder, TOKENIZER)
        yield Made(engine, server.close, lambda: len(asyncio.all_tasks(engine._loop)))
        engine.close()


@contextmanager
def scripted(folder: str) -> Iterator[Made]:
    alive = True

    def babble(request: Request, model: str) -> Completion:
        if not alive:
            raise RuntimeError("the function is broken")
        if not request.prompt.text:
            return Completion("", (), "error", 0, detail="empty prompt")
        rng = random.Random(f"{request.seed if request.sampling.temperature else 0} {request.prompt.text}{request.given.text}")
        text = "".join(rng.choice("0123456789abcdefghijk ") for _ in range(min(30, request.sampling.max_new_tokens)))
        stopped = min((text.index(stop) for stop in request.sampling.stop if stop in text), default=None)
        reason = "length" if len(text) < 30 and stopped is None else "stop"
        return Completion(text[:stopped], tuple(text[:stopped].encode()), reason, len(text))

    def kill() -> None:
        nonlocal alive
        alive = False

    yield Made(ScriptedEngine(babble, folder, max_rows=8, shuffle=3), kill, lambda: 0)


ENGINES: dict[str, Callable[[str], Any]] = {
    "transformers": transformers,
    "openai": openai,
    "openai without ids": lambda folder: openai(folder, ids=False),
    "scripted": scripted,
}
DECODING = [name for name in ENGINES if name != "scripted"]  # those that run a model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(models.build(tmp_path_factory.mktemp("model") / "llama", context=CONTEXT))


@pytest.fixture
def made(request, folder):
    before = set(threading.enumerate())
    with ENGINES[request.param](folder) as made:
        yield made
    left = {t for t in set(threading.enumerate()) - before if t.is_alive() and "process_request_thread" not in t.name}
    assert not left, "something is left running"


def every(names=tuple(ENGINES)):
    return pytest.mark.parametrize("made", names, indirect=True)


class Work:
    """A workload of a fixed list that says [] between its requests, as one whose grading is slow."""

    def __init__(self, requests, at_once=3, pauses=True):
        self.requests, self.at_once, self.pauses = list(requests), at_once, pauses
        self.calls = 0
        self.done: dict[int, Completion] = {}

    def take(self, n, timeout=0.0):
        self.calls += 1
        if not self.requests:
            return None
        if self.pauses and self.calls % 2:
            return []
        n = min(n, self.at_once)
        taken, self.requests = self.requests[:n], self.requests[n:]
        return taken

    def put(self, request, completion):
        assert request.attempt not in self.done, "a request was completed twice"
        self.done[request.attempt] = completion


def text(s: str) -> Text:
    return Text(s, tuple(TOKENIZER(s, add_special_tokens=False)["input_ids"]))


def make(n, prompt="2 + 2 = ", given="", temperature=1.0, **sampling):
    settings = Sampling(**{"temperature": temperature, "max_new_tokens": 24} | sampling)
    return [Request(Query(f"q{i}", "auto", prompt, "1"), 0, i, text(prompt), text(given), settings, 1000 + i) for i in range(n)]


def run(made, requests, **kwargs):
    work = Work(requests, **kwargs)
    made.engine.run(work)
    assert set(work.done) == {r.attempt for r in requests}
    return [work.done[r.attempt] for r in requests]


@every()
def test_every_request_is_answered_once_and_one_engine_runs_many_workloads(made):
    first = run(made, make(20))
    assert len(first) == 20
    assert run(made, make(3), pauses=False) == first[:3]
    assert run(made, []) == []


@every()
def test_the_seed_decides_a_sample_and_nothing_else_does(made):
    assert "seeds" in made.engine.capabilities
    requests = make(20)
    first = run(made, requests, at_once=20, pauses=False)
    again = run(made, requests[::-1], at_once=1)[::-1]
    assert sum(a == b for a, b in zip(first, again, strict=True)) >= 19  # floating point may flip one
    assert len({c.text for c in first}) > 15, "other seeds give other texts"
    other = run(made, [replace(r, seed=r.seed + 500) for r in requests])
    assert sum(a.text == b.text for a, b in zip(first, other, strict=True)) < 5


@every(DECODING)
def test_greedy_is_what_the_embedded_engine_decodes(made, folder):
    requests = [r for p in ("2 + 2 = ", "Why?", "a") for r in make(1, p, temperature=0.0)]
    requests = [replace(r, attempt=i) for i, r in enumerate(requests)]
    reference = Work(requests)
    TransformersEngine(folder, TOKENIZER).run(reference)
    for i, c in enumerate(run(made, requests)):
        assert (c.text, c.finish_reason, c.generated_tokens) == (
            reference.done[i].text,
            reference.done[i].finish_reason,
            reference.done[i].generated_tokens,
        )
        assert c.ids == (reference.done[i].ids if "ids" in made.engine.capabilities else None)


@every(DECODING)
def test_a_given_prefix_is_continued_and_not_repeated(made):
    assert "prefix" in made.engine.capabilities
    whole = run(made, make(1, temperature=0.0, max_new_tokens=15))[0].text
    rest = run(made, make(1, given=whole[:6], temperature=0.0, max_new_tokens=9))[0]
    assert rest.text == whole[6:15]
    assert rest.prompt_tokens in (None, len("2 + 2 = ")), "what is given is not counted as prompt"


@every(DECODING)
def test_a_stop_string_ends_a_response_before_it(made):
    free = run(made, make(1, temperature=0.0))[0]
    stop = free.text[7:9]
    cut = run(made, make(1, temperature=0.0, stop=(stop, "\x7f")))[0]
    assert (cut.text, cut.finish_reason) == (free.text[: free.text.index(stop)], "stop")
    if "ids" in made.engine.capabilities:
        assert TOKENIZER.decode(list(cut.ids)) == cut.text
    assert cut.generated_tokens == len(cut.text) + 2, "what was generated was paid for"


@every()
def test_max_new_tokens_gives_finish_reason_length(made):
    for c in run(made, make(4, max_new_tokens=3)):
        assert c.finish_reason == "length" or c.generated_tokens < 3
        assert c.generated_tokens <= 3
    assert "length" in {c.finish_reason for c in run(made, make(4, max_new_tokens=2))}


@every(DECODING)
def test_prompts_that_do_not_fit_are_data(made):
    requests = make(1, "x" * (CONTEXT + 10)) + make(1, "x" * (CONTEXT - 10)) + make(1, "")
    long, fits, empty = run(made, [replace(r, attempt=i) for i, r in enumerate(requests)])
    assert (long.finish_reason, long.text, long.generated_tokens) == ("too_long", "", 0)
    assert long.detail
    assert fits.finish_reason in ("stop", "length"), "the response is shortened, not refused"
    assert fits.generated_tokens <= 10
    assert (empty.finish_reason, empty.detail) == ("error", "empty prompt")


@every()
def test_a_failing_request_is_data_and_harms_no_other(made):
    good = make(6)
    bad = replace(good[3], prompt=text(""))
    done = run(made, [*good[:3], bad, *good[4:]])
    assert done[3].finish_reason == "error"
    assert done[3].detail
    assert [c.finish_reason == "error" for c in done].count(True) == 1


@every(DECODING)
def test_what_it_costs_is_counted(made):
    before = dict(made.engine.stats)
    done = run(made, make(20))
    spent = {key: value - before[key] for key, value in made.engine.stats.items()}
    assert spent["decode_tokens"] == sum(c.generated_tokens for c in done)
    assert (
        spent["prefill_tokens"] + spent["reused_tokens"] >= 20 * len("2 + 2 = ") - 20
    )  # the embedded engine feeds a prompt's last token by itself
    assert 0 < spent["idle_seconds"] < spent["seconds"], "it waited for work that was not ready"


@every()
def test_stop_abandons_what_is_in_flight(made):
    class Stopping(Work):
        def take(self, n, timeout=0.0):
            if self.calls >= 3:
                raise Stop
            return super().take(n, timeout)

    work = Stopping(make(50, max_new_tokens=80), at_once=6)
    with pytest.raises(Stop):
        made.engine.run(work)
    assert len(work.done) < 50
    assert made.busy() == 0
    assert len(run(made, make(3))) == 3, "the engine is still of use"


@every()
def test_an_exception_in_put_propagates(made):
    class Failing(Work):
        def put(self, request, completion):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made.engine.run(Failing(make(20)))
    assert made.busy() == 0
    assert len(run(made, make(3))) == 3


@every()
def test_a_dead_engine_stops_the_run(made, monkeypatch):
    monkeypatch.setattr("gsi.engines.client.BACKOFF", 0.01)
    run(made, make(3))
    made.kill()
    with pytest.raises((GsiError, RuntimeError), match=r"is gone|device-side assert|the function is broken"):
        made.engine.run(Work(make(20)))
    assert made.busy() == 0


# --------------------------------------------------------------------------------------- with the sampler


class Grader:
    """Correct = of even length; done at once."""

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        done: Future[Verdict] = Future()
        done.set_result(Verdict("wrong" if len(response) % 2 else "correct"))
        return done

    def close(self) -> None:
        pass


def sample(made, tmp_path):
    """Runs eight queries through a sampler: attempts and accepted ones per query."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    quota = Quota(k=3, wanted=3, max_extra=4)
    sampler = Sampler(
        [Query(f"q{i}", "auto", f"{i} + {i} = ", "") for i in range(8)],
        iteration=0,
        allocation=quota,
        guidance=None,
        renderer=Renderer(TOKENIZER, "{question}"),
        grader=Grader(),
        ledger=ledger,
        sampling=lambda attempt: Sampling(1.0, 1.0, 60, tuple("0147")),
        seed=5,
        strategy="brute_force",
        model="tiny",
    )
    with sampler:
        made.engine.run(sampler)
    return sorted(ledger.rows(0), key=lambda r: (r.query_id, r.attempt))


@every()
def test_a_query_stops_when_its_quota_is_met(made, tmp_path):
    rows = sample(made, tmp_path)
    attempts, accepted = Counter(r.query_id for r in rows), Counter(r.query_id for r in rows if r.correct)
    assert len(attempts) == 8
    for query, n in attempts.items():
        assert 3 <= n <= 7
        assert n == 7 or accepted[query] >= 3, "it went on until it had enough"
        before_last = sum(r.correct for r in rows if r.query_id == query and r.attempt < n - 1)
        assert n == 3 or before_last < 3, "it did not go on once it had"
    assert len(set(attempts.values())) > 1


def test_engines_of_the_same_function_make_the_same_attempts(folder, tmp_path):
    """One tiny model behind three engines: queries, attempts, texts and verdicts agree."""
    ledgers = {}
    for name in DECODING:
        (tmp_path / name).mkdir()
        with ENGINES[name](folder) as made:
            ledgers[name] = [(r.query_id, r.attempt, r.seed, r.response, r.status, r.prompt_tokens) for r in sample(made, tmp_path / name)]
    first = ledgers.pop(DECODING[0])
    for rows in ledgers.values():
        assert rows == first
