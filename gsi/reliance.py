"""Hint reliance: how much likelier a guided response was made by its help (HiLL; docs/curation.md has the derivation).

    reliance = (log p(y | question) - log p(what was generated | question + help)) / tokens of y

y is the whole response, so for a hint that stands in the question this is HiLL's mean over the generated tokens. For a given
opening the help is the condition that y begins so: what follows it has the same probability on both sides, and what stays is
the log-probability of the given tokens themselves under the plain question, spread over the response. Scoring the generated
part without its opening would measure how odd a text torn from its beginning looks, not whether the model gets there.

At most about 0, in nats per token. Near 0: the model could have found the response alone. Scored is what is accepted and guided, by
the model that drew it, in the engine start that drew it; all accepted responses where their likelihood is wanted too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from gsi.context import Context
from gsi.metrics import PLAIN, accepted_sql
from gsi.types import Completion, Rollout, Scorer, Text

CHUNK = 256  # responses scored between two commits


def reliance(plain: Sequence[float], helped: Sequence[float] | None, given: int) -> tuple[float, float]:
    """(reliance, mean log-probability given the plain question) of one response.

    Args:
        plain: log-probability of every token of the response after the plain question.
        helped: of the generated tokens after question and help; None = all the help was the opening.
        given: tokens of the opening.
    """
    made = sum(plain[given:]) if helped is None else sum(helped)
    return (sum(plain) - made) / len(plain), sum(plain) / len(plain)


def score(ctx: Context, n: int) -> None:
    """Scores what iteration n drew and what is not scored yet; nothing where the settings want nothing. Commits as it goes, so it resumes."""
    if (which := ctx.config.curate.scored) is None:
        return
    ledger = ctx.folder.ledger
    good = f"{accepted_sql(ctx.config.accept)} AND {'1' if which == 'all' else f'NOT {PLAIN}'}"
    rows = ledger.unscored(n - 1, good)
    if (first := next(rows, None)) is None:
        return
    left = ledger.query(f"SELECT count(*) FROM rollouts WHERE iteration = ? AND {good}", (n - 1,))[0][0]
    left = max(1, left - ledger.query("SELECT count(*) FROM scores WHERE iteration = ?", (n - 1,))[0][0])
    queries = {q.id: q for q in ctx.data.train}
    engine: Any = ctx.engine(n - 1)  # a Scorer: the config refuses engines that are none
    rows, done = itertools.chain([first], rows), 0
    with ctx.reporter.stage(f"iteration {n}: score", left) as update, ctx.timed("score"):
        while some := list(itertools.islice(rows, CHUNK)):
            chunk = [r for r in some if r.query_id in queries]
            prompts = [ctx.renderer.prompt(queries[r.query_id]) if r.guided else Text(r.prompt, r.prompt_ids) for r in chunk]
            ledger.add_scores(_scored(engine, chunk, prompts))
            done += len(some)
            update(min(done, left))
        update(left)


def _scored(
    engine: Scorer, rows: Sequence[Rollout], prompts: Sequence[Text]
) -> list[tuple[str, int, int, float | None, float | None, int]]:
    """Rows for the ledger's table `scores`. A response without ids, or one that does not fit into the context, has no figures."""
    context = getattr(engine, "context", None) or 2**31
    plain: list[tuple[int, Text, Completion]] = []  # row, what is read, what is scored
    helped: list[tuple[int, Text, Completion]] = []
    for i, (r, prompt) in enumerate(zip(rows, prompts, strict=True)):
        if (
            not r.response_ids
            or not prompt.ids
            or r.prompt_ids is None
            or max(len(prompt.ids), len(r.prompt_ids)) + len(r.response_ids) > context
        ):
            continue
        plain.append((i, prompt, Completion(r.response, r.response_ids, "stop", len(r.response_ids))))
        if r.guided and r.prompt_ids != prompt.ids:
            made, given = r.response_ids[r.given_tokens :], r.response_ids[: r.given_tokens]
            helped.append(
                (i, Text(r.prompt + r.given, r.prompt_ids + given), Completion(r.response[len(r.given) :], made, "stop", len(made)))
            )
    pairs = plain + helped
    scores = engine.score([(text, completion) for _, text, completion in pairs]) if pairs else []
    alone = {i: s for (i, *_), s in zip(plain, scores, strict=False)}
    with_help = {i: s for (i, *_), s in zip(helped, scores[len(plain) :], strict=True)}
    read = dict.fromkeys(range(len(rows)), 0)
    for i, text, completion in pairs:
        read[i] += text.n_tokens + len(completion.ids or ())
    found: list[tuple[str, int, int, float | None, float | None, int]] = []
    for i, r in enumerate(rows):
        figures = reliance(alone[i], with_help.get(i), r.given_tokens) if i in alone else (None, None)
        found.append((*_key(r), figures[0] if r.guided else None, figures[1], read[i]))
    return found


def _key(r: Rollout) -> tuple[str, int, int]:
    return r.query_id, r.iteration, r.attempt
