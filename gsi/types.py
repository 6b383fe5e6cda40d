"""The nouns of guided self-improvement and the protocols between its parts, on one page.

Nothing here imports anything of ours. Lists that hold one entry per thing carry a suffix where it helps:
`_Q` queries, `_A` attempts, `_T` tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

SHUFFLE = "shuffle:"  # begins the ledger's `guidance` of an attempt that saw the options in another order: plain, as far as help goes
STATUSES = ("correct", "wrong", "no_answer", "timeout", "error", "truncated", "too_long")


class GsiError(Exception):
    """A problem the user can fix. The message names what, where and the fix; the command exits with `exit_code`."""

    exit_code = 2


class NothingAccepted(GsiError):
    """An iteration produced no row to train on."""

    exit_code = 3


def writable(text: str) -> str:
    """Text from outside as UTF-8 can hold it: half a surrogate pair, which JSON may carry, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class EngineLost(GsiError):
    """What an engine runs on is gone: a process, a server, a node. Another engine of the same model can draw its requests."""


class Stop(Exception):
    """Raised by `Workload.take` to make an engine abandon what is in flight; abandoned requests are never stored."""


# --------------------------------------------------------------------------------------- what is asked and answered


@dataclass(frozen=True, slots=True)  # there may be millions
class Query:
    """A question with a checkable answer."""

    id: str
    task: str
    question: str
    answer: str
    rationale: str | None = None  # reference solution, where the data has one
    level: int | None = None  # difficulty as the data declares it; larger is harder
    options: tuple[str, ...] | None = None  # multiple choice: option texts in the order A, B, C, ...
    marked: bool = False  # only a marked answer counts (`#### 7`, a box, `The answer is 7`), a last sentence without a mark is none


@dataclass(frozen=True)
class Text:
    """Text with the token ids that stand for it (`None` where no tokenizer is at hand)."""

    text: str
    ids: tuple[int, ...] | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.ids) if self.ids is not None else 0


@dataclass(frozen=True)
class Sampling:
    """How one response is drawn. `temperature` 0 is greedy; `top_p` 1 keeps the whole distribution."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 1024
    stop: tuple[str, ...] = ()  # a response ends before the first of these
    repetition_stop: int = 0  # tokens: ends a response whose last so many repeat one cycle at least four times; 0 = off
    logprobs: bool = False  # also report the log-probability of every generated token


@dataclass(frozen=True)
class Hint:
    """What a guidance gives one attempt: either another question text, or the opening of a response, or both."""

    label: str  # `kind` or `kind:size`, stored in the ledger's column `guidance`
    question: str | None = None  # replaces the plain question in the prompt of this attempt only
    given: Text = Text("")  # the response is continued from here
    warmer: float = 0.0  # added to the configured temperature for this attempt


@dataclass(frozen=True)
class Request:
    """One attempt at one query, ready for an engine: it reads prompt + given and generates what follows."""

    query: Query
    iteration: int
    attempt: int
    prompt: Text
    given: Text
    sampling: Sampling
    seed: int  # from identity: run seed, iteration, query, attempt
    guidance: str | None = None  # the hint's label, or `shuffle:BDACE`; None = plain


@dataclass(frozen=True)
class Completion:
    """What an engine generated for a request: the part after `given`, as text and ids (EOS included in the ids)."""

    text: str
    ids: tuple[int, ...] | None
    finish_reason: str  # stop | length | repetition | too_long | error
    generated_tokens: int
    prompt_tokens: int | None = None  # as a server counted them; None = count the request's own ids
    detail: str = ""  # with finish_reason error: what went wrong
    logprobs: tuple[float, ...] | None = None  # of `ids` under the model at temperature 1, where asked for


@dataclass(frozen=True)
class Verdict:
    """What the checker says of one response."""

    status: str  # correct | wrong | no_answer | timeout | error
    extracted: str | None = None  # the answer the response commits to
    steps_ok: bool | None = None  # every checkable step holds; None = not checked
    detail: str = ""

    @property
    def correct(self) -> bool:
        return self.status == "correct"


@dataclass(frozen=True)
class Rollout:
    """One attempt as the ledger holds it (columns of the tables `rollouts` and `evaluations`)."""

    query_id: str
    task: str
    level: int | None
    iteration: int  # N-1 for attempts that iteration N samples: the index of the model that drew it
    attempt: int
    strategy: str
    guidance: str | None
    prompt: str  # rendered, without `given` and BOS
    given: str
    response: str  # given + generated
    completion: str  # the response as it would be trained on; '' = it cannot be (it names options of another order)
    prompt_ids: tuple[int, ...] | None
    response_ids: tuple[int, ...] | None  # given + generated, EOS included where it was generated
    prompt_tokens: int
    given_tokens: int
    generated_tokens: int
    finish_reason: str
    seed: int
    model: str
    status: str  # one of STATUSES
    correct: bool
    steps_ok: bool | None
    extracted: str | None
    detail: str
    created_at: str  # UTC, ISO 8601

    @property
    def guided(self) -> bool:
        """Whether this attempt had help; another order of the options is none."""
        return self.guidance is not None and not self.guidance.startswith(SHUFFLE)

    def accepted(self, accept: str) -> bool:
        """Whether this attempt counts: a right answer and, under `accept: steps`, right steps too."""
        return self.correct and (accept == "answer" or self.steps_ok is True)


@dataclass(frozen=True)
class Tried:
    """What a policy remembers of an attempt of an earlier iteration."""

    iteration: int
    attempt: int
    guidance: str | None  # the hint's label as in the ledger
    accepted: bool


Past = Mapping[str, Sequence[Tried]]  # query id -> its attempts of earlier iterations, in order; frozen while an iteration samples


@dataclass(frozen=True)
class Example:
    """One training row: the plain question with a completion, as tokens."""

    prompt: str
    completion: str
    input_ids: tuple[int, ...]  # prompt ids + completion ids, ends with EOS
    loss_mask: tuple[int, ...]  # 1 = trained, 0 = context; as long as input_ids
    query_id: str
    iteration: int
    attempt: int
    guidance: str | None = None
    weight: float = 1.0
    source: str | None = None  # None = this run's rollouts, else warm_start, reference or a run's name


# --------------------------------------------------------------------------------------- how the parts meet


@dataclass(frozen=True)
class Plan:
    """What an allocation wants of a query: `total` attempts launched by now, the new ones guided or plain."""

    total: int
    guided: bool = False


class Allocation(Protocol):
    """Who gets the next attempt, plain or guided, and when to stop.

    Called with the graded attempts 0..n-1 of one query, in attempt order, once for every n. `Plan.total` may never
    fall as n grows; a query is finished when it equals n. It depends on nothing else, so a run does not depend on
    which attempt finished first.
    """

    def plan(self, query: Query, history: Sequence[Rollout]) -> Plan: ...


class Guidance(Protocol):
    """Turns a query and its graded attempts into a hint for one more attempt; None = nothing to give, draw plainly.

    `index` counts the guided attempts of this query in this iteration (0, 1, ...). May block (a teacher): it is
    called from a worker thread, never from `take`.
    """

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None: ...


class Workload(Protocol):
    """What an engine runs. Thread-safe; an exception from either method ends `Engine.run` and propagates."""

    def take(self, n: int, timeout: float = 0.0) -> list[Request] | None:
        """Up to n requests; [] = nothing ready within timeout seconds, ask again; None = done. Raises Stop."""

    def put(self, request: Request, completion: Completion) -> None:
        """Hands a finished completion back. Never blocks on grading."""


class Engine(Protocol):
    """Runs requests on a model. `capabilities` names what it can: prefix, ids, seeds, score, entropy, logprobs, repetition_stop."""

    capabilities: frozenset[str]

    def run(self, work: Workload) -> None: ...

    def close(self) -> None: ...


class Scorer(Protocol):
    """What an engine with the capability `score` also does."""

    def score(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        """Log-probability of every id of each completion after its prompt (prompt ids include whatever was given)."""

    def entropies(self, pairs: Sequence[tuple[Text, Completion]]) -> list[list[float]]:
        """Entropy in nats of the distribution before every id, likewise (capability `entropy`)."""


class Grader(Protocol):
    """Grades responses of any task of the run. Thread-safe; a bad response is a verdict, never an exception."""

    def submit(self, query: Query, response: str) -> Future[Verdict]:
        """A future that is already done where the check is cheap; else it is graded in a killable worker process."""

    def close(self) -> None: ...


class Teacher(Protocol):
    """A stronger model that is asked in plain messages and answers in text. Raises GsiError when it cannot be reached."""

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply: ...


@dataclass(frozen=True)
class Reply:
    """A teacher's answer with what it cost."""

    text: str
    prompt_tokens: int
    generated_tokens: int
    model: str


@dataclass(frozen=True)
class TrainJob:
    """Everything a trainer needs, as plain values that survive a trip through JSON."""

    data: str  # path of train.parquet
    model: str  # directory or hub id the weights come from
    tokenizer: str  # directory or hub id
    output: str  # directory the trained model is written to (must not exist)
    work: str  # directory for checkpoints and logs, removed when done
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)  # the config's `train` section


class Trainer(Protocol):
    """Trains job.model on job.data into job.output. Returns figures such as loss, steps, tokens, seconds."""

    def train(self, job: TrainJob, progress: Any = None, say: Any = None) -> dict[str, float]: ...
