"""The teacher over real HTTP, against a scripted server."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_server import Answer, FakeServer

from gsi.config.sampling import Teacher
from gsi.guidance.teacher import OpenAITeacher
from gsi.types import GsiError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2 ?"}]
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def teacher(url, **settings):
    return OpenAITeacher(Teacher(**{"url": url, "model": "fake", "retries": 0, "timeout": 20, **settings}))


def test_an_answer_comes_with_the_servers_token_counts():
    with FakeServer(lambda body, n: "It is 4 .") as server:
        reply = teacher(server.url, temperature=0.3, max_tokens=77).ask(MESSAGES)
    assert (reply.text, reply.prompt_tokens, reply.generated_tokens, reply.model) == ("It is 4 .", 8, 4, "fake")
    (body,) = server.bodies
    assert body["messages"] == MESSAGES
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 0.3, 77)


def test_a_server_that_counts_no_tokens_gives_zeros():
    with FakeServer(lambda body, n: Answer("yes", usage=False)) as server:
        reply = teacher(server.url).ask(MESSAGES)
    assert (reply.text, reply.prompt_tokens, reply.generated_tokens) == ("yes", 0, 0)


@pytest.mark.parametrize(
    "failure",
    [Answer(status=429, headers={"Retry-After": "1"}), Answer(status=500), Answer(status=503), Answer(cut=True)],
    ids=["429", "500", "503", "cut"],
)
def test_a_passing_failure_is_retried(failure):
    with FakeServer(lambda body, n: failure if n == 0 else "second try") as server:
        assert teacher(server.url, retries=2).ask(MESSAGES).text == "second try"
    assert len(server.bodies) == 2


@pytest.mark.parametrize(("status", "says"), [(429, "concurrency"), (500, "log"), (400, "max_tokens")])
def test_a_lasting_failure_names_url_model_and_fix(status, says):
    with FakeServer(lambda body, n: Answer("out of order", status=status)) as server, pytest.raises(GsiError) as e:
        teacher(server.url).ask(MESSAGES)
    for part in (server.url, "'fake'", str(status), "out of order", says):
        assert part in str(e.value)


def test_a_slow_server_is_given_up_on():
    with FakeServer(lambda body, n: Answer("late", delay=1.0)) as server, pytest.raises(GsiError, match=r"within 0\.1 s.*teacher\.timeout"):
        teacher(server.url, timeout=0.1).ask(MESSAGES)


def test_at_most_concurrency_requests_at_a_time():
    pairs = threading.Barrier(2)  # a server that answers only when two ask: one at a time would never get anywhere

    def script(body, n):
        pairs.wait(timeout=10)
        return Answer("fine", delay=0.03)

    with FakeServer(script) as server, ThreadPoolExecutor(8) as pool:
        t = teacher(server.url, concurrency=2)
        replies = list(pool.map(lambda _: t.ask(MESSAGES), range(8)))
    assert [r.text for r in replies] == ["fine"] * 8
    assert server.most_at_once == 2


def test_an_unknown_model_is_refused_by_the_probe_without_retries():
    with FakeServer() as server, pytest.raises(GsiError) as e:
        teacher(server.url, model="nope", retries=3).probe()
    for part in (server.url, "'nope'", "404", "teacher.model", "does not exist"):
        assert part in str(e.value)
    assert len(server.bodies) == 1


def test_an_unreachable_server_is_refused_by_the_probe():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # taken, and nobody listens
        url = f"http://127.0.0.1:{s.getsockname()[1]}/v1"
        with pytest.raises(GsiError) as e:
            teacher(url).probe()
    for part in (url, "'fake'", "cannot be reached", "teacher.url"):
        assert part in str(e.value)


def test_the_probe_asks_for_next_to_nothing():
    with FakeServer() as server:
        teacher(server.url).probe()
    assert server.bodies[0]["max_tokens"] <= 8


@pytest.mark.parametrize(
    "answer",
    [
        Answer(raw=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
        Answer(raw=b"<html>hello</html>"),
        Answer(raw=b'{"choices": []}'),
        Answer(raw=b'{"hello": 1}'),
        Answer(raw=b"[1]"),
        Answer(raw=b"null"),
    ],
    ids=["html", "no-json", "no-choices", "other-json", "list", "null"],
)
def test_something_else_than_a_completion_is_an_error_that_points_at_the_url(answer):
    with FakeServer(lambda body, n: answer) as server, pytest.raises(GsiError, match=r"no chat completion.*teacher\.url"):
        teacher(server.url).ask(MESSAGES)


def test_the_key_comes_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    with FakeServer() as server:
        teacher(server.url, api_key_env="MY_KEY").ask(MESSAGES)
        teacher(server.url, api_key_env="ANOTHER").ask(MESSAGES)
    assert server.keys == [f"Bearer {KEY}", "Bearer none"]


@pytest.mark.parametrize("padding", [0, 380, 395])  # the key must not survive in part where a long message is shortened
@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_no_error_contains_the_key(monkeypatch, status, padding):
    monkeypatch.setenv("MY_KEY", KEY)
    refusal = Answer("x" * padding + f" Incorrect API key provided: {KEY}.", status=status)
    with FakeServer(lambda body, n: refusal) as server, pytest.raises(GsiError) as e:
        teacher(server.url, api_key_env="MY_KEY").ask(MESSAGES)
    assert server.keys == [f"Bearer {KEY}"]
    assert "sk-" not in str(e.value)
    assert str(status) in str(e.value)


@pytest.mark.parametrize("key", ["sk-sécret", "sk-se\ncret"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(GsiError, match="MY_KEY") as e:
        teacher("http://127.0.0.1:1/v1", api_key_env="MY_KEY")
    assert "sk-" not in str(e.value)
