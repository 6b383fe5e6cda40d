"""The engine for OpenAI-compatible servers, over real HTTP against servers that misbehave on purpose."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import launched
import models
import pytest
import scripted
from fake_server import Answer, FakeServer

import gsi
from gsi.cli import main
from gsi.config import ConfigError, load_config
from gsi.config.engines import OpenAIEngine
from gsi.engines import client as client_module
from gsi.engines import openai as module
from gsi.engines import server as server_module
from gsi.progress import Reporter
from gsi.types import GsiError, Query, Request, Sampling, Stop, Text

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")  # anyio, when cancelled while it connects

TOKENIZER = models.tokenizer()
LAUNCHED = Path(launched.__file__)
QUIET = Reporter("quiet")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(client_module, "BACKOFF", 0.01)
    monkeypatch.setattr(server_module, "GRACE", 0.5)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def text(s: str) -> Text:
    return Text(s, tuple(TOKENIZER(s, add_special_tokens=False)["input_ids"]))


def requests(n=1, prompt="2 + 2 =", given="", **sampling):
    settings = Sampling(**{"max_new_tokens": 20} | sampling)
    return [Request(Query(f"q{i}", "auto", prompt, "4"), 0, i, text(prompt), text(given), settings, 2**62 + i) for i in range(n)]


class Work:
    def __init__(self, todo):
        self.todo, self.done = list(todo), {}

    def take(self, n, timeout=0.0):
        if not self.todo:
            return None
        taken, self.todo = self.todo[:n], self.todo[n:]
        return taken

    def put(self, request, completion):
        assert request.attempt not in self.done
        self.done[request.attempt] = completion


def connect(server, tokenizer=TOKENIZER, **settings):
    settings = {"url": server if isinstance(server, str) else server.url, "served_model": "fake", "retries": 2} | settings
    return module.OpenAIEngine(OpenAIEngine(**settings), "fake", tokenizer)


def run(engine, todo):
    work = Work(todo)
    try:
        engine.run(work)
    finally:
        engine.close()
    return [work.done[r.attempt] for r in todo]


def after_probe(script):
    """A script that answers the small first requests by itself; n counts the others from 0."""
    count, lock = iter(range(10**6)), threading.Lock()

    def answer(body, n):
        if body["max_tokens"] == 1:
            return Answer("4", ids=(22,))
        with lock:
            mine = next(count)
        return script(body, mine)

    return answer


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --------------------------------------------------------------------------------------- what is sent and read


def test_a_completion_request_says_everything_once():
    reply = Answer(" 4", ids=(*text(" 4").ids, TOKENIZER.eos_token_id))
    with FakeServer(after_probe(lambda body, n: reply)) as server:
        engine = connect(server)
        assert engine.capabilities == {"prefix", "seeds", "ids"}
        [c] = run(engine, requests(given=" so", temperature=0.5, top_p=0.9, stop=("\n", "Q:")))
        body = server.bodies[-1]
    assert body == {
        "model": "fake",
        "prompt": [*text("2 + 2 = so").ids],
        "max_tokens": 20,
        "temperature": 0.5,
        "top_p": 0.9,
        "n": 1,
        "seed": 2**62,
        "stop": ["\n", "Q:"],
        "return_token_ids": True,
    }
    assert (c.text, c.finish_reason, c.generated_tokens) == (" 4", "stop", 3)
    assert c.ids == reply.ids
    assert c.prompt_tokens == len("2 + 2 ="), "what is given is counted apart"
    assert engine.stats["decode_tokens"] == 3
    assert engine.stats["prefill_tokens"] == len("2 + 2 = so")


def test_chat_sends_one_user_message():
    with FakeServer(lambda body, n: "four") as server:
        engine = connect(server, api="chat")
        assert engine.capabilities == {"seeds"}
        [c] = run(engine, requests())
        assert server.bodies[-1]["messages"] == [{"role": "user", "content": "2 + 2 ="}]
    assert (c.text, c.ids, c.prompt_tokens, c.generated_tokens) == ("four", None, 4, 1)


def test_chat_refuses_a_given_prefix():
    with FakeServer() as server, pytest.raises(GsiError, match="api: completions"):
        run(connect(server, api="chat"), requests(given="so"))


@pytest.mark.parametrize(
    ("server", "ids_sent", "capabilities"),
    [
        ({}, True, {"prefix", "seeds", "ids"}),
        ({"knows": []}, True, {"prefix", "seeds"}),
        ({"takes_ids": False}, False, {"prefix", "seeds"}),
        ({"lists": False}, True, {"prefix", "seeds", "ids"}),
    ],
)
def test_the_probe_finds_out_what_a_server_can(server, ids_sent, capabilities):
    with FakeServer(lambda body, n: Answer("4", ids=(22,)), **server) as fake:
        engine = connect(fake)
        assert engine.capabilities == capabilities
        run(engine, requests())
        assert isinstance(fake.bodies[-1]["prompt"], list) == ids_sent
        if not ids_sent:
            assert fake.bodies[-1]["prompt"] == "2 + 2 ="


def test_a_server_that_reads_ids_as_text_gets_text():
    """It accepts the list but counts other tokens than were sent."""

    def script(body, n):
        if isinstance(body["prompt"], list):
            usage = {"prompt_tokens": 57, "completion_tokens": 1}
            return Answer(raw=json.dumps({"choices": [{"text": "?", "finish_reason": "stop"}], "usage": usage}).encode())
        return "4"

    with FakeServer(script) as server:
        run(connect(server), requests())
        assert server.bodies[-1]["prompt"] == "2 + 2 ="


def test_tokens_that_a_server_does_not_count_are_counted_here():
    with FakeServer(after_probe(lambda body, n: Answer("so 4", usage=False)), takes_ids=False) as server:
        [c] = run(connect(server), requests())
    assert (c.generated_tokens, c.prompt_tokens) == (4, None)


def test_ids_that_do_not_stand_for_the_text_are_not_kept():
    """A server with a reasoning parser takes the thinking out of the text, not out of the ids."""
    with FakeServer(after_probe(lambda body, n: Answer("4", ids=text("hmm 4").ids))) as server:
        [c] = run(connect(server), requests())
    assert (c.text, c.ids) == ("4", None)


def test_ids_end_before_a_stop_string():
    with FakeServer(after_probe(lambda body, n: Answer("so ", ids=text("so 4\n").ids))) as server:
        [c] = run(connect(server), requests(stop=("4\n",)))
    assert (c.text, c.ids, c.generated_tokens) == ("so ", text("so ").ids, 5)


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "stop"), ("length", "length"), ("eos_token", "stop"), ("content_filter", "error"), (None, "error")]
)
def test_finish_reasons(finish, reason):
    with FakeServer(after_probe(lambda body, n: Answer("4", finish=finish))) as server:
        [c] = run(connect(server), requests())
        assert len(server.bodies) < 5, "what a server has decided is not asked again"
    assert (c.finish_reason, c.text) == (reason, "4")
    assert (str(finish) in c.detail) == (reason == "error")


def test_the_context_that_a_server_names_bounds_prompt_and_response():
    with FakeServer(after_probe(lambda body, n: "4"), context=20) as server:
        todo = requests(1, "x" * 15) + requests(1, "x" * 20)
        done = run(connect(server), [todo[0], Request(**{**vars(todo[1]), "attempt": 1})])
        assert [b["max_tokens"] for b in server.bodies if b["max_tokens"] > 1] == [5]
    assert [c.finish_reason for c in done] == ["stop", "too_long"]


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 4096 tokens (4000 in the messages, 96 in the completion).",
        "The input (3000 tokens) is longer than the model's context length (2048 tokens).",
        "the request exceeds the available context size",
        "The decoder prompt (length 3000) is longer than the maximum model length of 2048",
    ],
)
def test_a_server_that_says_too_long_is_believed(message):
    with FakeServer(after_probe(lambda body, n: Answer(message, status=400))) as server:
        [c] = run(connect(server), requests())
    assert (c.finish_reason, c.generated_tokens) == ("too_long", 0)


# --------------------------------------------------------------------------------------- servers that misbehave

PASSING = [
    Answer(status=429),
    Answer(status=429, headers={"Retry-After": "0.05"}),
    Answer(status=429, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    Answer(status=503, headers={"Retry-After": "soon"}),
    Answer(status=500),
    Answer(status=502, raw=b"<html>bad gateway</html>"),
    Answer(cut=True),
    Answer("half an answer", half=True),
    Answer(raw=b'{"choices": [{"te'),
    Answer(raw=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    Answer(raw=b'{"choices": []}'),
    Answer(raw=b'{"choices": [{"index": 0, "finish_reason": "stop"}]}'),
    Answer(raw=b"null"),
    Answer("two", n=2),
    Answer("late", delay=0.6),
]
NAMES = [f"{i} {a.status}" for i, a in enumerate(PASSING)]


def patience(failure: Answer) -> float:
    """Seconds to wait for an answer: less than a late one takes, else what a busy machine may need."""
    return 0.3 if failure.delay else 30.0


@pytest.mark.parametrize("failure", PASSING, ids=NAMES)
def test_what_may_pass_is_retried(failure):
    with FakeServer(after_probe(lambda body, n: failure if n < 2 else "4")) as server:
        engine = connect(server, timeout=patience(failure))
        [c] = run(engine, requests())
    assert (c.text, c.finish_reason) == ("4", "stop")
    assert engine.stats["retries"] == 2


@pytest.mark.parametrize("failure", PASSING, ids=NAMES)
def test_what_does_not_pass_is_data(failure):
    bad = requests(3)[1].seed

    with FakeServer(after_probe(lambda body, n: failure if body["seed"] == bad else "4")) as server:
        engine = connect(server, timeout=patience(failure), retries=1)
        done = run(engine, requests(3))
        tries = sum(b["seed"] == bad for b in server.bodies)
    assert [c.finish_reason for c in done] == ["stop", "error", "stop"]
    assert done[1].generated_tokens == 0
    assert f"tries: {tries}" in done[1].detail
    assert tries >= 2
    assert engine.stats["failed"] == 1


def test_a_bad_request_is_not_sent_again():
    with FakeServer(after_probe(lambda body, n: Answer("stop: at most 4 sequences", status=400))) as server:
        [c] = run(connect(server), requests())
        assert Counter(b["max_tokens"] for b in server.bodies)[20] == 1
    assert c.finish_reason == "error"
    assert "at most 4 sequences" in c.detail


def test_retry_after_holds_every_request_back():
    times = []

    def script(body, n):
        times.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "0.5"}) if n == 0 else "4"

    with FakeServer(after_probe(script)) as server:
        run(connect(server, concurrency=1), requests(3))
    assert len(times) == 4
    assert times[1] - times[0] >= 0.5


def test_being_turned_away_costs_no_request_while_others_get_through(monkeypatch):
    monkeypatch.setattr(client_module, "BACKOFF", 0.02)  # ten times what an answer takes, so that others get through meanwhile
    todo = requests(400)
    turned_away = iter(range(6))  # oftener than `retries` allows

    def script(body, n):
        if body["seed"] == todo[0].seed and next(turned_away, None) is not None:
            return Answer(status=429)
        return Answer("4", delay=0.002)

    with FakeServer(after_probe(script)) as server:
        done = run(connect(server, retries=4, concurrency=4), todo)
    assert {c.finish_reason for c in done} == {"stop"}


class Watching(Work):
    """Notes in `rooms` how many requests the engine allows itself after each answer."""

    def __init__(self, requests, engine):
        super().__init__(requests)
        self.engine, self.rooms = engine, []

    def put(self, request, completion):
        super().put(request, completion)
        self.rooms.append(self.engine.concurrency)


def test_concurrency_is_bounded_and_adapts():
    """The server takes 4 at a time and turns the rest away."""

    def script(body, n):
        if server.at_once > 4:
            return Answer(status=503)
        return Answer("4", delay=0.01)

    with FakeServer(after_probe(script)) as server:
        engine = connect(server, concurrency=32, retries=20)
        engine.run(work := Watching(requests(120), engine))
        turned_away = len(server.bodies) - 120
        engine.close()
    assert {c.finish_reason for c in work.done.values()} == {"stop"}
    assert server.most_at_once <= 32
    assert min(work.rooms) <= 6, "it was halved until the server could cope"
    assert max(work.rooms[60:]) <= 16, "and did not go back to where it was"
    assert turned_away < 120, "most requests were taken at once"


def test_concurrency_grows_back():
    with FakeServer(after_probe(lambda body, n: Answer(status=503) if n < 4 else "4")) as server:
        engine = connect(server, concurrency=4, retries=20)
        engine.run(work := Watching(requests(40), engine))
        engine.close()
    assert work.rooms[0] < 4
    assert work.rooms[-1] == 4


def test_requests_are_in_flight_together():
    with FakeServer(after_probe(lambda body, n: Answer("4", delay=0.1))) as server:
        run(connect(server, concurrency=16), requests(32))
        assert server.most_at_once > 8


def test_a_stop_is_heard_while_everything_is_busy():
    class Stopping(Work):
        def take(self, n, timeout=0.0):
            if not self.todo[4:]:
                raise Stop
            return super().take(n, timeout)

    with FakeServer(after_probe(lambda body, n: Answer("4", delay=30))) as server:
        engine = connect(server, concurrency=2)
        started = time.monotonic()
        with pytest.raises(Stop):
            engine.run(Stopping(requests(6)))
        engine.close()
    assert time.monotonic() - started < 20, "it did not wait for the answers"


# --------------------------------------------------------------------------------------- servers that are refused


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer("Incorrect API key: sk-secret-1", status=401), "MY_KEY"),
        (Answer("not for you", status=403), "MY_KEY"),
        (Answer("no such path", status=404), r"engine\.url"),
        (Answer("fake is not a valid model ID", status=400), r"engine\.served_model"),
        (Answer("The model `fake` does not exist", status=400), r"engine\.served_model"),
    ],
)
@pytest.mark.parametrize("when", ["at the start", "later"])
def test_what_every_request_would_get_stops_at_once(monkeypatch, answer, message, when):
    monkeypatch.setenv("MY_KEY", "sk-secret-1")
    script = (lambda body, n: answer) if when == "at the start" else after_probe(lambda body, n: answer)
    with FakeServer(script) as server, pytest.raises(GsiError, match=message) as e:
        run(connect(server, api_key_env="MY_KEY"), requests(3))
    assert server.url in str(e.value)
    assert "sk-secret" not in str(e.value)
    assert set(server.keys) == {"Bearer sk-secret-1"}


def test_another_model_is_refused_with_what_is_served():
    with FakeServer(models=["llama", "qwen"]) as server:
        with pytest.raises(GsiError, match="serves llama, qwen, not this model") as e:
            connect(server)
        assert not server.bodies
    assert "'fake'" in str(e.value)


def test_no_server_there():
    with pytest.raises(GsiError, match=r"cannot be reached.*start it, or correct engine\.url"):
        connect(f"http://127.0.0.1:{free_port()}/v1")


def test_a_server_that_dies_stops_the_run_and_what_it_answered_is_kept():
    def script(body, n):
        if n == 10:
            threading.Thread(target=server.stop).start()
        return Answer(cut=True) if n >= 10 else "4"

    work = Work(requests(40))
    with FakeServer(after_probe(script)) as server:
        engine = connect(server, concurrency=1, retries=5)
        with pytest.raises(GsiError, match=r"is gone.*/models"):
            engine.run(work)
        engine.close()
    assert len(work.done) == 10
    assert {c.finish_reason for c in work.done.values()} == {"stop"}


def test_a_server_that_fails_everything_stops_the_run():
    with FakeServer(after_probe(lambda body, n: Answer("CUDA error", status=500))) as server:
        work, engine = Work(requests(200)), connect(server, retries=0)
        with pytest.raises(GsiError, match=r"32 in a row.*CUDA error"):
            engine.run(work)
        engine.close()
    assert not work.done


@pytest.mark.parametrize("n", [1, 5, 200])
def test_what_a_broken_server_fails_is_left_to_be_drawn_again(n):
    broken = threading.Event()
    with FakeServer(lambda body, n: Answer("Bad Gateway", status=502) if broken.is_set() else Answer("4", ids=(22,))) as server:
        engine = connect(server, retries=0)
        engine.run(work := Work(requests(n)))
        assert {c.finish_reason for c in work.done.values()} == {"stop"}
        broken.set()
        with pytest.raises(GsiError, match=r"one request after the other.*Bad Gateway.*draws it again"):
            engine.run(work := Work(requests(n)))
        assert not work.done
        broken.clear()
        assert {c.finish_reason for c in run(engine, requests(n))} == {"stop"}


# --------------------------------------------------------------------------------------- launched servers


def command(*options: object) -> str:
    return " ".join(str(x) for x in (sys.executable, LAUNCHED, *options))


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def all_gone(*pids: int) -> bool:
    """Waits for it a while: a killed process takes a moment to end."""
    deadline = time.monotonic() + 30
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return all(map(gone, pids))


def launch(port, *options, model="fake", **settings):
    settings = {"url": f"http://127.0.0.1:{port}/v1", "launch": command(port, "{model}", *options), "retries": 1} | settings
    return module.OpenAIEngine(OpenAIEngine(**settings), model, TOKENIZER)


@pytest.mark.parametrize("manners", ["--stubborn", "--child"])
def test_a_launched_server_is_started_awaited_and_ended_with_its_children(tmp_path, manners):
    pids = tmp_path / "pids"
    engine = launch(free_port(), "--slow", 0.3, manners, "--pids", pids, model="a model's path")
    log = engine._server.log
    try:
        assert "loading a model's path" in log.read_text()
        started = [int(p) for p in pids.read_text().split()]
        assert len(started) == (2 if manners == "--child" else 1)
        engine.run(work := Work(requests(3)))
        assert [c.text for c in work.done.values()] == ["?"] * 3
        assert not any(map(gone, started))
    finally:
        engine.close()
        engine.close()
    assert all_gone(*started), "SIGTERM was ignored, SIGKILL was not"
    assert not log.exists()


def test_death_in_mid_run_shows_the_log():
    engine = launch(free_port(), "--die", 6)
    work = Work(requests(50))
    try:
        with pytest.raises(GsiError, match="CUDA error: out of memory") as e:
            engine.run(work)
    finally:
        engine.close()
    assert "ended with code 17" in str(e.value)
    assert len(work.done) < 50
    assert "error" not in {c.finish_reason for c in work.done.values()}
    engine._server.log.unlink()


@pytest.mark.parametrize(
    ("launch_command", "settings", "message"),
    [
        (f"{sys.executable} -c 'print(\"no GPU for\", \"{{model}}\"); raise SystemExit(3)'", {}, "no GPU for fake\n.*ended with code 3"),
        ("no-such-program {model}", {}, "cannot be started.*no-such-program"),
        ("sh -c 'echo still loading; exec sleep 60' {model}", {"start_timeout": 3}, "after 3 s.*still loading"),
        ("serve '{model}", {}, "cannot be split into words"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_start(launch_command, settings, message):
    with pytest.raises(GsiError, match=f"(?s){message}") as e:
        launch(free_port(), launch=launch_command, **settings)
    for word in str(e.value).split():
        if "gsi-server-" in word:
            Path(word.strip("():")).unlink(missing_ok=True)


def test_a_port_in_use_is_refused():
    with FakeServer() as server, pytest.raises(GsiError, match=r"answers at .* already"):
        launch(server.url.split(":")[2].split("/")[0])


def test_a_launched_server_ends_when_we_are_killed(tmp_path):
    """kill -9 leaves nothing that would hold the port, so the same command resumes."""
    port, pids = free_port(), tmp_path / "pids"
    settings = {"url": f"http://127.0.0.1:{port}/v1", "launch": command(port, "{model}", "--pids", pids)}
    code = (
        "import time; from gsi.config.engines import OpenAIEngine; from gsi.engines import openai\n"
        f"engine = openai.OpenAIEngine(OpenAIEngine(**{settings!r}), 'fake', None)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    ours = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        assert ours.stdout.readline() == b"up\n"
        [server] = [int(p) for p in pids.read_text().split()]
        assert not gone(server)
    finally:
        ours.send_signal(signal.SIGKILL)
        ours.communicate()
    assert all_gone(server)


# --------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tokenizer; the scripted world needs no weights."""
    path = tmp_path_factory.mktemp("base") / "base"
    TOKENIZER.save_pretrained(path)
    return str(path)


def config(output: Path, base: str, **changes):
    """A small scripted world."""
    small = {"model": base, "tasks": [{"name": "chain", "args": {"seed": 1, "per_level": 2}}], "sample": {"k": 2, "wanted": 1}}
    return scripted.config(output, **small | changes)


def rows(path: Path) -> list[tuple]:
    columns = "query_id, iteration, attempt, guidance, given, response, status, correct, seed, finish_reason"
    with sqlite3.connect(path / "ledger.sqlite") as db:
        return db.execute(f"select {columns} from rollouts order by 1, 2, 3").fetchall()


def test_a_run_launches_a_server_per_model_and_draws_what_the_scripted_engine_draws(tmp_path, base):
    """state_reset, two iterations: given prefixes go to the server, and every iteration gets its own model's answers."""
    port, pids = free_port(), tmp_path / "pids"
    engine = {"kind": "openai", "url": f"http://127.0.0.1:{port}/v1", "launch": command(port, "{model}", "--pids", pids)}
    gsi.run(config(tmp_path / "server", base, engine=engine, strategy="state_reset"), reporter=QUIET)
    gsi.run(config(tmp_path / "scripted", base, strategy="state_reset"), reporter=QUIET)
    assert rows(tmp_path / "server") == rows(tmp_path / "scripted")
    assert any(given for *_, given, _, _, _, _, _ in rows(tmp_path / "server"))
    started = [int(p) for p in pids.read_text().split()]
    assert len(started) == 3, "iter_0, iter_1, iter_2"
    assert all_gone(*started)
    with sqlite3.connect(tmp_path / "server" / "ledger.sqlite") as db:
        prompt, ids, response, tokens = db.execute("select prompt, prompt_ids, response, response_ids from rollouts limit 1").fetchone()
    assert (TOKENIZER.decode(json.loads(ids)), TOKENIZER.decode(json.loads(tokens), skip_special_tokens=True)) == (prompt, response)


def test_a_run_survives_a_server_that_misbehaves(tmp_path, base):
    """A third of all requests fail in some way; the ledger is what a well-behaved server gives."""
    queries = launched.world()
    failing = [f for f in PASSING if not f.delay]

    def flaky(body, n):
        return failing[n // 3 % len(failing)] if n % 3 == 0 else launched.answer(queries, body, base)

    def against(server, name):
        engine = {"kind": "openai", "url": server.url, "served_model": "fake", "retries": 20, "concurrency": 6}
        gsi.run(config(tmp_path / name, base, engine=engine, iterations=1, evaluate={"validation": 0}), reporter=QUIET)

    with FakeServer(flaky) as server:
        against(server, "flaky")
    with FakeServer(lambda body, n: launched.answer(queries, body, base)) as server:
        against(server, "good")
    assert rows(tmp_path / "flaky") == rows(tmp_path / "good")
    assert "error" not in {row[6] for row in rows(tmp_path / "flaky")}


def test_a_run_goes_on_after_an_outage_as_if_there_had_been_none(tmp_path, base):
    """A gateway that answers for a server that is gone; and a request that the server never takes, which is data."""
    queries, bad, outage = launched.world(), [], [0, 10**9]

    def script(body, n):
        outage[0] += 1
        if outage[0] > outage[1]:
            return Answer("Bad Gateway", status=502)
        answer = launched.answer(queries, body, base)
        if body["max_tokens"] > 1 and body["seed"] % 5 == 0:
            bad.append(body["seed"])
            return Answer("a prompt like this is not taken", status=400)
        return answer

    def against(server, name):
        engine = {"kind": "openai", "url": server.url, "served_model": "fake", "retries": 0, "concurrency": 3}
        gsi.run(config(tmp_path / name, base, engine=engine, iterations=1, evaluate={"validation": 0}), reporter=QUIET)

    with FakeServer(script) as server:
        against(server, "calm")
        whole = outage[0]
        outage[:] = 0, whole // 2
        with pytest.raises(GsiError, match="one request after the other"):
            against(server, "cut")
        drawn = rows(tmp_path / "cut")
        outage[:] = 0, 10**9
        against(server, "cut")
    assert bad
    assert 0 < len(drawn) < len(rows(tmp_path / "calm"))
    assert rows(tmp_path / "cut") == rows(tmp_path / "calm")
    assert "error" in {row[9] for row in rows(tmp_path / "calm")}


def test_the_second_iteration_refuses_a_server_of_the_first_model(tmp_path, base, capsys):
    queries = launched.world()
    with FakeServer(lambda body, n: launched.answer(queries, body, base), models=[base]) as server:
        settings = config(tmp_path / "run", base, engine={"kind": "openai", "url": server.url})
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(settings))
        assert main(["run", str(path), "--log", "quiet"]) == 2
        message = capsys.readouterr().err
        assert f"serves {base}, not this model" in " ".join(message.split())
        model = str(tmp_path / "run" / "iter_1" / "model")
        server.models = (model,)
        server.script = lambda body, n: launched.answer(queries, body, model)
        with pytest.raises(GsiError, match="iter_2"):  # the same command goes on, until the next model
            gsi.run(settings, reporter=QUIET)
    assert {row[1] for row in rows(tmp_path / "run")} == {0, 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 2, "evaluate": {"validation": 0}}, r"engine\.served_model: .* trained models too"),
        ({"iterations": 1}, r"engine\.served_model"),
        ({"iterations": 1, "evaluate": {"validation": 0}, "warm_start": {}}, r"engine\.served_model"),
        ({"engine": {"kind": "openai", "url": "u"}, "sample": {"stop": list("abcde")}}, r"sample\.stop: .*at most 4"),
        ({"engine": {"kind": "openai", "url": "u"}, "sample": {"repetition_stop": 64}}, r"repetition_stop: .*transformers can"),
        ({"engine": {"kind": "openai", "url": "u", "launch": "vllm serve m"}}, r"engine\.launch: lacks \{model\}"),
        ({"engine": {"kind": "openai", "url": "u", "api": "chat"}, "strategy": "state_reset"}, r"engine\.api: .*api: completions"),
        ({"engine": {"kind": "openai", "url": "u", "api": "chat"}, "prompt": {"template": "auto"}}, r"prompt\.template: .*\{question\}"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(tmp_path, changes, message):
    engine = {"engine": {"kind": "openai", "url": "u", "served_model": "fake"}}
    with pytest.raises(ConfigError, match=message):
        load_config(scripted.config(tmp_path, **engine | changes))


def test_settings_that_work_are_loaded(tmp_path):
    for changes in (
        {"engine": {"kind": "openai", "url": "u", "served_model": "m", "launch": "serve {model}"}},
        {"engine": {"kind": "openai", "url": "u"}},
        {"engine": {"kind": "openai", "url": "u", "api": "chat"}},
        {"engine": {"kind": "openai", "url": "u", "served_model": "m"}, "iterations": 1, "evaluate": {"validation": 0}},
    ):
        load_config(scripted.config(tmp_path, **changes))
