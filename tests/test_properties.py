"""Property tests: the ledger gives back what it took, curation is a pure filter, scheduling does not depend on order."""

import random
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsi.allocation import Quota
from gsi.curate import curate
from gsi.engines.scripted import ByteTokenizer, ScriptedEngine
from gsi.ledger import Ledger
from gsi.prompts import Renderer
from gsi.sampling import Sampler
from gsi.seeds import seed_of
from gsi.types import Completion, GsiError, Hint, Query, Reply, Rollout, Sampling, Text, Verdict

RENDERER = Renderer(ByteTokenizer(), template="{question}\n")
texts = st.text(max_size=30).filter(lambda s: s.isprintable() or True).map(lambda s: s.encode("utf-8", "ignore").decode())


@st.composite
def rollouts(draw, n_queries=4):
    """Distinct attempts at a few queries, with every kind of outcome."""
    keys = draw(st.sets(st.tuples(st.integers(0, n_queries - 1), st.integers(0, 2), st.integers(0, 6)), max_size=25))
    rows = []
    for q, iteration, attempt in keys:
        status = draw(st.sampled_from(["correct", "correct", "correct", "wrong", "no_answer", "timeout", "error", "truncated", "too_long"]))
        given = draw(st.sampled_from(["", "1 + 1 = 2\n"]))
        body = draw(st.sampled_from(["", "a", "a ", "b c", "b  c", "x" * 40]) | texts)
        rows.append(
            Rollout(
                query_id=f"q{q}", task="t", level=draw(st.none() | st.integers(1, 5)), iteration=iteration, attempt=attempt, strategy="s",
                guidance="state_reset:0.5" if given else draw(st.none() | st.just("answer_driven")), prompt=f"question {q}\n", given=given,
                response=given + body, completion=given + body, prompt_ids=tuple(f"question {q}\n".encode()),
                response_ids=(*(given + body).encode(), 256), prompt_tokens=11, given_tokens=len(given.encode()),
                generated_tokens=len(body.encode()) + 1, finish_reason="stop", seed=draw(st.integers(0, 2**63 - 1)), model="m", status=status,
                correct=status == "correct", steps_ok=draw(st.none() | st.booleans()), extracted=draw(st.none() | texts), detail="", created_at="2026-01-01",
            )
        )  # fmt: skip
    return rows


QUERIES = {f"q{i}": Query(f"q{i}", "t", f"question {i}", "1", level=i + 1) for i in range(4)}


@settings(max_examples=40, deadline=None)
@given(rollouts())
def test_the_ledger_gives_back_what_it_took(rows):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        half = len(rows) // 2
        ledger.add(rows[:half])
        ledger.add(rows[half:])
        ledger.add(rows, split="test")
        ordered = sorted(rows, key=lambda r: (r.iteration, r.query_id, r.attempt))
        assert list(ledger.rows()) == ordered
        assert list(ledger.rows(split="test")) == ordered
        for iteration in range(3):
            assert list(ledger.rows(iteration)) == [r for r in ordered if r.iteration == iteration]
            assert ledger.attempts("q1", iteration) == [r for r in ordered if r.iteration == iteration and r.query_id == "q1"]
        if rows:
            with pytest.raises(sqlite3.IntegrityError):
                ledger.add([replace(rows[0], seed=1)])
        ledger.archive(1, None, "now")
        assert list(ledger.rows()) == [r for r in ordered if r.iteration == 0]
        assert ledger.query("select count(*) from archived")[0][0] == 2 * len([r for r in ordered if r.iteration >= 1])
        ledger.close()


def test_a_transaction_is_all_or_nothing(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    row = Rollout(
        "q", "t", None, 0, 0, "s", None, "p", "", "r", "r", None, None, 1, 0, 1, "stop", 1, "m", "wrong", False, None, None, "", "now"
    )
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add([row, replace(row, attempt=1), row])
    assert list(ledger.rows()) == []
    ledger.add([row])
    assert list(ledger.rows()) == [row]


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "l.sqlite").write_bytes(b"not a database at all, just text" * 100)
    with pytest.raises(GsiError, match="not a readable ledger"):
        Ledger(tmp_path / "l.sqlite")
    with pytest.raises(GsiError, match="no ledger there"):
        Ledger(tmp_path / "absent.sqlite", read_only=True)


@settings(max_examples=80, deadline=None)
@given(
    rollouts(),
    st.integers(0, 3),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(["answer", "steps"]),
    st.integers(20, 60),
    st.booleans(),
    st.randoms(),
)
def test_curation_is_a_pure_filter_with_reasons(rows, cap, floor, distinct, accept, max_length, on_given, rng):
    settings_ = {
        "accept": accept,
        "cap": cap,
        "floor": floor,
        "distinct": (lambda s: " ".join(s.split())) if distinct else None,
        "max_length": max_length,
        "on_given": on_given,
        "seed": 3,
    }
    result = curate(rows, QUERIES, RENDERER, **settings_)
    shuffled = rows[:]
    rng.shuffle(shuffled)
    assert curate(shuffled, QUERIES, RENDERER, **settings_) == result
    by_key = {(r.query_id, r.iteration, r.attempt): r for r in rows}
    key = lambda e: (e.query_id, e.iteration, e.attempt)  # noqa: E731
    kept, dropped = {key(e) for e in result.examples}, {key(d.example) for d in result.dropped}
    assert not kept & dropped
    assert kept | dropped == {k for k, r in by_key.items() if r.correct}, "every correct rollout is trained on or dropped with a reason"
    for e in result.examples:
        r = by_key[key(e)]
        assert r.accepted(accept)
        assert e.completion == r.completion
        assert e.prompt == QUERIES[e.query_id].question + "\n"
        assert len(e.input_ids) == len(e.loss_mask) <= max_length
        assert e.input_ids[-1] == 256
        trained = bytes(t for t, m in zip(e.input_ids, e.loss_mask, strict=True) if m and t < 256).decode()
        assert trained == (r.response if on_given else r.response[len(r.given) :])
        assert any(e.loss_mask)
    for query_id in QUERIES:
        mine = [e for e in result.examples if e.query_id == query_id]
        distinct_rows = {key(e) for e in mine}
        assert not cap or len(distinct_rows) <= cap
        assert not mine or len(mine) >= floor
        if distinct:
            assert len({" ".join(by_key[k].completion.split()) for k in distinct_rows}) == len(distinct_rows)
    for d in result.dropped:
        assert d.reason in ("steps_wrong", "empty", "too_long", "duplicate", "over_cap")
        assert (d.reason == "steps_wrong") == (not by_key[key(d.example)].accepted(accept))


class Table:
    """A grader that knows the verdicts; some come later, from another thread's point of view."""

    def submit(self, query, response):
        future: Future = Future()
        future.set_result(Verdict("correct" if response.endswith("yes") else "wrong"))
        return future


class Hints:
    """Guidance whose label tells exactly what it was shown."""

    def hint(self, query, history, index):
        return Hint(f"seen:{index}.{len(history)}.{sum(r.correct for r in history)}", given=Text("g "))


def sample(folder: Path, outcome, k, wanted, extra, rows, shuffle, guidance=None, stop_after=None):
    """One sampling pass over ten queries with a scripted engine; returns the ledger's rows without their time stamps."""
    ledger = Ledger(folder / "ledger.sqlite")
    count = [0]

    def respond(request, model):
        count[0] += 1
        if stop_after and count[0] > stop_after:
            raise KeyboardInterrupt
        return "yes" if outcome(request.query.id, request.attempt) else "no"

    queries = [Query(f"q{i}", "t", f"question {i}", "1") for i in range(10)]
    sampler = Sampler(
        queries, iteration=0, allocation=Quota(k, wanted, extra), guidance=guidance, renderer=RENDERER, grader=Table(), ledger=ledger,
        sampling=lambda attempt: Sampling(), seed=5, strategy="s", model="m", hint_workers=shuffle % 3 if shuffle else 0,
    )  # fmt: skip
    try:
        with sampler:
            ScriptedEngine(respond, "m", rows, shuffle).run(sampler)
    except (KeyboardInterrupt, GsiError):
        pass
    found = [replace(r, created_at="") for r in ledger.rows()]
    ledger.close()
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.integers(1, 5),
    st.integers(0, 5),
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(0, 10**6),
    st.integers(1, 60),
)
def test_attempts_do_not_depend_on_who_finishes_first_nor_on_interruptions(world, rate, k, wanted, extra, rows, shuffle, stop):
    outcome = lambda query, attempt: random.Random(f"{world}{query}{attempt}").random() < rate  # noqa: E731
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, tempfile.TemporaryDirectory() as c:
        calm = sample(Path(a), outcome, k, wanted, extra, 1, None, Hints())
        assert sample(Path(b), outcome, k, wanted, extra, rows, shuffle, Hints()) == calm
        for i in range(200):
            before = len(sample(Path(c), outcome, k, wanted, extra, rows, shuffle + i, Hints(), stop_after=stop))
            if before == len(calm):
                break
        assert sample(Path(c), outcome, k, wanted, extra, rows, shuffle, Hints()) == calm
    for query in {r.query_id for r in calm}:
        mine = [r for r in calm if r.query_id == query]
        assert [r.attempt for r in mine] == list(range(len(mine)))
        right, n = 0, 0
        while n < k or (right < wanted and n < k + extra):  # one by one, as the paper draws
            right += outcome(query, n)
            n += 1
        assert len(mine) == n
        assert all(r.guidance is None for r in mine[:k])
        assert all(r.guidance for r in mine[k:])


class Breaks(Hints):
    """Fails from its n-th call on."""

    def __init__(self, calls):
        self.calls, self.lock = calls, threading.Lock()

    def hint(self, query, history, index):
        with self.lock:
            self.calls -= 1
            if self.calls < 0:
                raise GsiError("the teacher is gone")
        return super().hint(query, history, index)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.8), st.integers(0, 9), st.integers(1, 40), st.integers(0, 10**6), st.integers(0, 12))
def test_a_guidance_that_breaks_loses_nothing_and_changes_nothing(world, rate, extra, rows, shuffle, calls):
    drawn = []

    def outcome(query, attempt):
        drawn.append((query, attempt))
        return random.Random(f"{world}{query}{attempt}").random() < rate

    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        calm = sample(Path(a), outcome, 3, 2, extra, rows, shuffle, Hints())
        drawn.clear()
        for i in range(200):
            found = sample(Path(b), outcome, 3, 2, extra, rows, shuffle + i, Breaks(calls + i))
            assert [(r.query_id, r.attempt) for r in found] == sorted(drawn), "all that was drawn is stored, and drawn once"
            if len(found) == len(calm):
                break
        assert found == calm


def test_interactive_calls_are_recorded_and_not_paid_twice(tmp_path):
    from gsi.recording import RecordingTeacher, asking

    class Counting:
        calls = 0

        def ask(self, messages):
            self.calls += 1
            return Reply("because", 5, 7, "big")

    ledger, inner = Ledger(tmp_path / "l.sqlite"), Counting()
    teacher = RecordingTeacher(inner, ledger)
    asking.key = ("q1", 0, 8)
    messages = [{"role": "user", "content": "why?"}]
    assert teacher.ask(messages) == teacher.ask(messages) == Reply("because", 5, 7, "big")
    assert inner.calls == 1
    assert teacher.ask([{"role": "user", "content": "why not?"}]).text == "because"
    assert inner.calls == 2
    assert ledger.query("select generated_tokens from teacher_calls") == [(7,)]


@given(st.integers(), st.integers(), st.text(), st.integers())
def test_seeds_tell_identities_apart(a, b, query, attempt):
    assert seed_of(a, 0, query, attempt) == seed_of(a, 0, query, attempt)
    assert (seed_of(a, 0, query, attempt) == seed_of(b, 0, query, attempt)) == (a == b)
    assert 0 <= seed_of(a, b, query, attempt) < 2**63


def test_completions_that_are_no_text_become_rows(tmp_path):
    """An engine's own Completion passes through: status by finish reason, nothing graded."""
    ledger = Ledger(tmp_path / "l.sqlite")
    reasons = {0: "length", 1: "too_long", 2: "error"}
    sampler = Sampler(
        [Query("q", "t", "x", "1")], iteration=0, allocation=Quota(3, 0, 0), guidance=None, renderer=RENDERER, grader=Table(), ledger=ledger,
        sampling=lambda attempt: Sampling(), seed=1, strategy="s", model="m",
    )  # fmt: skip
    with sampler:
        ScriptedEngine(lambda request, model: Completion("yes", (1, 2), reasons[request.attempt], 2, detail="d"), "m").run(sampler)
    assert [r.status for r in ledger.rows()] == ["truncated", "too_long", "error"]
    assert not any(r.correct for r in ledger.rows())


def test_an_engine_that_outruns_grading_gets_no_more_queries(tmp_path):
    """Memory is bounded by what is in flight, not by the number of queries."""
    from gsi.sampling import MAX_BACKLOG

    class Slow(Table):
        def submit(self, query, response):
            time.sleep(0.0003)
            return super().submit(query, response)

    open_at_once = []
    ledger = Ledger(tmp_path / "l.sqlite")
    sampler = Sampler(
        [Query(f"q{i}", "t", "x", "1") for i in range(4000)], iteration=0, allocation=Quota(2, 0, 0), guidance=None, renderer=RENDERER, grader=Slow(),
        ledger=ledger, sampling=lambda attempt: Sampling(), seed=1, strategy="s", model="m", on_progress=lambda stats: open_at_once.append(len(sampler._open)),
    )  # fmt: skip
    with sampler:
        ScriptedEngine(lambda request, model: "no", "m", max_rows=32).run(sampler)
    assert len(list(ledger.rows())) == 8000
    assert max(open_at_once) <= MAX_BACKLOG + 64
