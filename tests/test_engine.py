"""The embedded engine against the library's own generation, with tiny random models of four architectures."""

import gc
import weakref
from dataclasses import replace
from functools import partial

import models
import numpy as np
import pytest
import tokenizers_of_kinds
import torch
from distribution import check_first_tokens
from transformers import AutoModelForCausalLM

from gsi.engines import transformers as transformers_engine
from gsi.engines.draw import repeats, uniform
from gsi.engines.slots import SlotCache
from gsi.engines.transformers import TransformersEngine
from gsi.seeds import seed_of
from gsi.types import Completion, GsiError, Query, Request, Sampling, Stop, Text

TOKENIZER = models.tokenizer()


class Queue:
    """A workload of a fixed list; hands out at most `at_once` requests per call."""

    def __init__(self, requests, at_once=1000):
        self.requests, self.at_once, self.done = list(requests), at_once, {}

    def take(self, n, timeout=0.0):
        if not self.requests:
            return None
        n = min(n, self.at_once)
        taken, self.requests = self.requests[:n], self.requests[n:]
        return taken

    def put(self, request, completion):
        assert request.seed not in self.done, "a request was completed twice"
        self.done[request.seed] = completion


def request(prompt: str, seed: int, given: str = "", **sampling) -> Request:
    settings = {"temperature": 0.0, "max_new_tokens": 20} | sampling
    text = lambda s: Text(s, tuple(TOKENIZER(s, add_special_tokens=False)["input_ids"]))  # noqa: E731
    return Request(Query(f"q{seed}", "auto", prompt, "1"), 0, 0, text(prompt), text(given), Sampling(**settings), seed)


def run(engine, requests, **kwargs):
    work = Queue(requests, **kwargs)
    engine.run(work)
    return [work.done[r.seed] for r in requests]


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen3", "mistral"])
def folder(request, tmp_path_factory):
    return models.build(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(models.build(tmp_path_factory.mktemp("model") / "llama"))


PROMPTS = ["2 + 2 = ", "a", "What is the sum of 17 and 25? Think.", "Q: x\nA: ", "hello " * 9]


def test_greedy_is_token_identical_to_generate(folder):
    """Rows join and leave a batch of three at different times; the sliding window of mistral (16) is exceeded."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    requests = [request(p, i, max_new_tokens=12 + 5 * i) for i, p in enumerate(PROMPTS)]
    done = run(TransformersEngine(str(folder), TOKENIZER, max_rows=3), requests)
    for r, c in zip(requests, done, strict=True):
        ids = torch.tensor([r.prompt.ids])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=r.sampling.max_new_tokens,
            eos_token_id=0,
            pad_token_id=0,
        )
        assert list(c.ids) == expected[0, ids.shape[1] :].tolist()
        assert c.finish_reason == ("stop" if c.ids[-1] == 0 else "length")
        assert c.text == TOKENIZER.decode(list(c.ids), skip_special_tokens=True)


def test_samples_depend_on_the_seed_and_not_on_the_batch(folder):
    requests = [request(PROMPTS[i % 5], seed_of("s", i), temperature=1.0) for i in range(40)]
    reference = run(TransformersEngine(str(folder), TOKENIZER, max_rows=40), requests)
    for rows, at_once in ((1, 1), (7, 3), (16, 16)):
        again = run(TransformersEngine(str(folder), TOKENIZER, max_rows=rows), requests, at_once=at_once)
        same = sum(a == b for a, b in zip(reference, again, strict=True))
        assert same >= 39, f"{40 - same} of 40 responses differ with {rows} rows"  # floating point may flip one
    other = run(TransformersEngine(str(folder), TOKENIZER, max_rows=40), [replace(r, seed=r.seed + 1) for r in requests])
    assert sum(a == b for a, b in zip(reference, other, strict=True)) < 20


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6)])
def test_samples_have_the_models_distribution(llama, temperature, top_p):
    engine = TransformersEngine(llama, TOKENIZER, max_rows=256)
    settings = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 1}
    check_first_tokens(partial(run, engine), engine.model, [request("1 + ", seed_of("chi", i), **settings) for i in range(6000)])


def test_uniform_numbers_are_uniform_and_distinct():
    u = uniform(np.repeat(np.arange(200, dtype=np.uint64), 50), np.tile(np.arange(50, dtype=np.uint64), 200))
    assert len(set(u.tolist())) == len(u)
    assert abs(u.mean() - 0.5) < 0.015
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.04
    assert np.histogram(u, 10, (0, 1))[0].min() > 900


def test_a_given_prefix_is_continued_and_not_repeated(llama):
    engine = TransformersEngine(llama, TOKENIZER)
    whole = run(engine, [request("2 + 2 = ", 1, max_new_tokens=15)])[0]
    head = TOKENIZER.decode(list(whole.ids[:6]))
    rest = run(engine, [request("2 + 2 = ", 2, given=head, max_new_tokens=9)])[0]
    assert rest.ids == whole.ids[6:15]
    assert head + rest.text == whole.text


def test_attempts_that_share_a_prompt_share_its_prefill(llama):
    engine = TransformersEngine(llama, TOKENIZER, max_rows=16)
    run(engine, [request("the same prompt", i, temperature=1.0) for i in range(16)])
    assert engine.stats["prefill_tokens"] == len("the same prompt") - 1
    assert engine.stats["reused_tokens"] == 15 * (len("the same prompt") - 1)


def test_stop_strings_end_a_response_before_them(llama):
    engine = TransformersEngine(llama, TOKENIZER)
    free = run(engine, [request("2 + 2 = ", 1, max_new_tokens=20)])[0]
    stop = free.text[7:9]
    cut = run(engine, [request("2 + 2 = ", 2, max_new_tokens=20, stop=(stop,))])[0]
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert TOKENIZER.decode(list(cut.ids)) == cut.text
    assert cut.generated_tokens > len(cut.ids), "what was generated was paid for"


@pytest.mark.parametrize("stop", ["Question:", "问题：", "🙂🙂", "\n题"])
def test_a_stop_string_ends_a_response_also_where_a_character_is_several_tokens(tmp_path, monkeypatch, stop):
    tokenizer = tokenizers_of_kinds.byte_level()
    engine = TransformersEngine(str(tokenizers_of_kinds.build(tmp_path, "byte_level")), tokenizer)
    drawn = tokenizer("The answer is 5." + stop, add_special_tokens=False)["input_ids"]
    more = tokenizer(" apples" * 40, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(engine, "_choose", lambda logits, rows: [(drawn + more)[len(r.ids)] for r in rows])
    prompt = Text("2 + 3 =", tuple(tokenizer("2 + 3 =", add_special_tokens=False)["input_ids"]))
    sampling = Sampling(0.0, max_new_tokens=len(drawn) + 20, stop=(stop,))
    (done,) = run(engine, [Request(Query("q", "auto", prompt.text, "5"), 0, 0, prompt, Text("", ()), sampling, 1)])
    assert (done.text, done.finish_reason, done.generated_tokens) == ("The answer is 5.", "stop", len(drawn))


def test_prompts_that_do_not_fit_are_data(llama):
    engine = TransformersEngine(llama, TOKENIZER, max_length=40)
    long, fits, empty = run(engine, [request("x" * 50, 1), request("x" * 30, 2, max_new_tokens=50), request("", 3)])
    assert (long.finish_reason, long.generated_tokens) == ("too_long", 0)
    assert fits.finish_reason in ("length", "stop")
    assert fits.generated_tokens <= 10
    assert empty.finish_reason == "error"


def test_memory_bound_limits_the_rows_and_everything_still_finishes(llama):
    engine = TransformersEngine(llama, TOKENIZER, max_rows=32, max_batch_tokens=100)
    requests = [request(PROMPTS[i % 5], i, temperature=1.0) for i in range(30)]
    assert run(engine, requests) == run(TransformersEngine(llama, TOKENIZER, max_rows=32), requests)
    assert engine.stats["decode_steps"] > 200


def test_the_cache_stays_within_the_token_budget_whatever_came_before(llama):
    """Long responses first, then many short ones, then long ones again: keys for max_batch_tokens are never exceeded."""
    engine = TransformersEngine(llama, TOKENIZER, max_rows=32, max_batch_tokens=400)
    held = []

    class Watching(Queue):
        def put(self, request, completion):
            super().put(request, completion)
            held.extend(layer.keys.shape[0] * layer.keys.shape[2] for layer in engine._cache.layers)

    wave = lambda at, n, tokens: [request(PROMPTS[1], at + i, temperature=1.0, max_new_tokens=tokens) for i in range(n)]  # noqa: E731
    requests = wave(0, 8, 99) + wave(100, 60, 8) + wave(200, 8, 99)
    engine.run(work := Watching(requests, at_once=8))
    assert max(held) <= 400
    plain = TransformersEngine(llama, TOKENIZER, max_rows=32)
    assert [work.done[r.seed] for r in requests] == run(plain, requests)


def test_stop_abandons_what_is_in_flight(llama):
    class Stopping(Queue):
        calls = 0

        def take(self, n, timeout=0.0):
            self.calls += 1
            if self.calls > 3:
                raise Stop
            return super().take(n, timeout)

    work = Stopping([request("abc", i, temperature=1.0, max_new_tokens=100) for i in range(8)], at_once=2)
    with pytest.raises(Stop):
        TransformersEngine(llama, TOKENIZER, max_rows=8).run(work)
    assert len(work.done) < 8


def test_unusable_models_are_refused_with_their_name(tmp_path, llama, monkeypatch):
    with pytest.raises(GsiError, match="no-such-model"):
        TransformersEngine(str(tmp_path / "no-such-model"), TOKENIZER)
    with pytest.raises(GsiError, match="CUDA"):
        TransformersEngine(llama, TOKENIZER, device="cuda")
    with pytest.raises(GsiError, match="is no device"):
        TransformersEngine(llama, TOKENIZER, device="gpu 1")

    original = TransformersEngine._forward
    monkeypatch.setattr(TransformersEngine, "_forward", lambda self, ids, positions, mask: original(self, ids, positions * 0, mask))
    with pytest.raises(GsiError, match="differs from its plain forward pass"):
        TransformersEngine(llama, TOKENIZER)


def test_out_of_memory_halves_the_rows_and_changes_no_response(llama, monkeypatch):
    requests = [request(PROMPTS[i % 5], i, temperature=1.0) for i in range(24)]
    calm = run(TransformersEngine(llama, TOKENIZER, max_rows=24), requests)
    engine = TransformersEngine(llama, TOKENIZER, max_rows=24)
    original = engine._forward

    def small(ids, positions, mask):
        if ids.shape[0] > 7:
            torch.empty(2**55)  # as a machine without a GPU says it
        return original(ids, positions, mask)

    monkeypatch.setattr(engine, "_forward", small)
    assert run(engine, requests) == calm
    assert engine.stats["back_offs"] == 2  # 24 -> 12 -> 6 rows
    monkeypatch.setattr(engine, "_forward", lambda *_: original(*_) if _[0].shape[0] > 7 else small(torch.zeros(9, 1), 0, 0))
    with pytest.raises(GsiError, match="out of memory with a single sequence"):
        run(engine, [replace(r, seed=r.seed + 100) for r in requests])


class Alive:
    """Which of some tensors are still held by somebody, without a collection of cycles in between."""

    def __init__(self):
        self.seen = []

    def watch(self, *tensors):
        self.seen += map(weakref.ref, tensors)

    def __bool__(self):
        return any(tensor() is not None for tensor in self.seen)


@pytest.fixture
def alive():
    gc.collect()
    gc.disable()
    yield Alive()
    gc.enable()


def test_the_cache_is_free_when_the_engine_is_closed(llama, alive):
    """Training comes next and may need all of the GPU."""
    engine = TransformersEngine(llama, TOKENIZER)
    run(engine, [request("abc", 1)])
    alive.watch(*(layer.keys for layer in engine._cache.layers), *engine.model.parameters())
    assert alive
    engine.close()
    assert not alive


def test_cache_and_activations_are_free_before_it_tries_with_fewer_rows(llama, alive, monkeypatch):
    engine = TransformersEngine(llama, TOKENIZER, max_rows=8)
    forward, built, held = engine._forward, [], []

    def starving(ids, positions, mask):
        if ids.shape[0] > 4:
            activations = torch.zeros(9)
            alive.watch(activations, *(layer.keys for layer in engine._cache.layers))
            raise torch.OutOfMemoryError("CUDA out of memory")
        held.append(bool(alive))
        return forward(ids, positions, mask)

    class Built(SlotCache):  # where the engine empties CUDA's cache: activations that are held then stay there
        def __init__(self, *args):
            super().__init__(*args)
            built.append(alive.seen[0]() is not None)

    monkeypatch.setattr(engine, "_forward", starving)
    monkeypatch.setattr(transformers_engine, "SlotCache", Built)
    run(engine, [request(PROMPTS[i % 5], i) for i in range(8)])
    assert engine.stats["back_offs"] == 1
    assert built == [False]
    assert held
    assert not any(held), "the cache of eight rows"


def test_log_probabilities_equal_scoring_and_the_plain_forward_pass(folder):
    engine = TransformersEngine(str(folder), TOKENIZER, max_rows=3)
    requests = [request(p, 50 + i, temperature=0.8, top_p=0.9, logprobs=True, max_new_tokens=5 + 3 * i) for i, p in enumerate(PROMPTS)]
    done = run(engine, requests)
    scores = engine.score([(r.prompt, c) for r, c in zip(requests, done, strict=True)])
    for r, c, score in zip(requests, done, scores, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([r.prompt.ids + c.ids])
            plain = torch.log_softmax(engine.model(ids).logits[0].float(), -1)
        expected = [plain[len(r.prompt.ids) - 1 + i, t].item() for i, t in enumerate(c.ids)]
        assert np.allclose(score, expected, atol=1e-3)
        assert np.allclose(c.logprobs, expected, atol=1e-3)
        assert len(c.logprobs) == len(c.ids)


def starve(monkeypatch, model, rows):
    """From now on the model's forward pass has memory for so many rows."""
    forward = model.forward

    def small(*args, input_ids, **kwargs):
        if input_ids.shape[0] > rows:
            torch.empty(2**55)  # as a machine without a GPU says it
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", small)


def test_scoring_halves_its_batch_when_memory_runs_out(llama, monkeypatch):
    engine = TransformersEngine(llama, TOKENIZER)
    pairs = [(Text("", (5, 6, 7)), Completion("", tuple(range(8, 9 + i)), "stop", 1 + i)) for i in range(40)]
    calm = engine.score(pairs), engine.entropies(pairs)
    starve(monkeypatch, engine.model, 7)
    for expected, got in zip(calm, (engine.score(pairs), engine.entropies(pairs)), strict=True):
        assert [pytest.approx(e, abs=1e-4) for e in expected] == got
    starve(monkeypatch, engine.model, 0)
    with pytest.raises(GsiError, match="out of memory while a single response of 43 tokens"):
        engine.score(pairs)


def test_too_little_memory_at_the_start_is_not_taken_for_an_architecture(llama, monkeypatch):
    def starving(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TransformersEngine, "_forward", starving)
    with pytest.raises(GsiError, match=r"no memory is left beside .*llama.*CUDA out of memory"):
        TransformersEngine(llama, TOKENIZER)


def test_a_response_that_goes_in_circles_is_stopped(llama, monkeypatch):
    assert repeats([1, 2, 3] * 16, 48)
    assert repeats([9] * 16 + [7, 8] * 16, 32)
    assert not repeats(list(range(48)), 48)
    assert not repeats([1, 2, 3] * 15, 48), "shorter than the window"
    engine = TransformersEngine(llama, TOKENIZER)
    monkeypatch.setattr(engine, "_choose", lambda logits, rows: [10 + len(r.ids) % (3 if r.request.seed else 50) for r in rows])
    circling, free, unwatched = run(
        engine,
        [
            request("a", 1, max_new_tokens=100, repetition_stop=32),
            request("a", 0, max_new_tokens=100, repetition_stop=32),
            request("a", 2, max_new_tokens=100),
        ],
    )
    assert (circling.finish_reason, circling.generated_tokens) == ("repetition", 32)
    assert (free.finish_reason, free.generated_tokens) == ("length", 100)
    assert (unwatched.finish_reason, unwatched.generated_tokens) == ("length", 100)
