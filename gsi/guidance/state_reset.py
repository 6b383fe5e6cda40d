"""The response is continued from the opening of the reference rationale."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gsi.guidance.steps import final_values, first_statement, locate, split_steps
from gsi.prompts import Renderer
from gsi.types import GsiError, Hint, Query, Rollout, Text

PAPER_SHARES = (0.2, 0.4, 0.6, 0.8, 0.8)
SHARES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class StateReset:
    """The model continues a prefix of the reference rationale, a longer one with every guided attempt, cycling.

    Mode `paper` (arXiv 2411.00750, settings of the released code): on GSM8K the first 1, 2, 3, ... lines up to all
    but the last (42 % of the attempts there receive all of these, so what is stored as self-generated is mostly human
    text); elsewhere 20, 40, 60, 80, 80 % of the tokens. Mode `steps` (ours): cut between steps, and only before the
    step that first states the final value, so the model always has that step to do; a rationale without borders is
    cut at 20, 40, 60, 80 % of the tokens, but before that statement as far as it can be found.

    Fails where the value is stated in words that are not recognised (the opening then gives it away), where a step
    gives it away before stating it, and where what remains is easy: the rows then teach mostly human text. Of a model
    that thinks (`prompt.thinking: keep`) the opening stands inside its thinking section, which it opens. No
    rationale, or one that states the final value in its first step: no hint.
    """

    renderer: Renderer
    mode: str = "steps"  # steps | paper

    def __post_init__(self) -> None:
        if self.mode not in ("steps", "paper"):
            raise GsiError(f"guidance.mode: unknown {self.mode!r}; there are steps, paper")

    def hint(self, query: Query, history: Sequence[Rollout], index: int) -> Hint | None:
        rationale = query.rationale
        if not rationale or rationale.isspace():
            return None
        if self.mode == "paper":
            given = self._paper(query, rationale, index)
        else:
            cuts = self._steps(query, rationale)
            given = cuts[index % len(cuts)] if cuts else None
        if given is None:
            return None
        label = f"state_reset:{self.size(given, rationale):g}"
        if opening := self.renderer.opening():  # of a thinking model the opening stands where it would have thought
            given = self.renderer.continuation(self.renderer.prompt(query), opening + given.text)
        return Hint(label, given=given)

    def openings(self, query: Query) -> list[tuple[Text, float]]:
        """Every opening of the rationale that mode `steps` may give, the shortest first, with its size (share of the tokens)."""
        return _openings(self, query)

    def _paper(self, query: Query, rationale: str, index: int) -> Text | None:
        if query.task.startswith("gsm8k"):
            lines = rationale.rstrip("\n").splitlines(keepends=True)
            return Text("".join(lines[: index % (len(lines) - 1) + 1])) if len(lines) > 1 else None
        return self._tokens(query, rationale, PAPER_SHARES[index % len(PAPER_SHARES)], len(rationale))

    def _steps(self, query: Query, rationale: str) -> list[Text]:
        steps, answers = split_steps(rationale), final_values(query)
        if len(steps) < 2:
            limit = min((s.marker for a in answers if (s := locate(rationale, a))), default=len(rationale))
            return [cut for share in SHARES if (cut := self._tokens(query, rationale, share, limit, answers))]
        first = min(first_statement(steps, a) for a in answers)
        return [Text("".join(steps[:n])) for n in range(1, first + 1)]

    def _tokens(self, query: Query, rationale: str, share: float, limit: int, answers: Sequence[str] = ()) -> Text | None:
        """The first `share` of the tokens, fewer where they pass character `limit`, split a character or end in a space.

        A cut may make a result of what was none (`# 5` of `# 55`): an opening that states one of `answers` is shortened too.
        """
        ids = self._ids(query, rationale)
        units: Sequence[int] | Sequence[str] = ids if ids is not None else re.findall(r"\s*\S+", rationale)
        for n in range(min(max(int(share * len(units)), 1), len(units) - 1), 0, -1):
            text = self.renderer.decode(ids[:n]) if ids is not None else "".join(map(str, units[:n]))
            fits = text and len(text) <= limit and rationale.startswith(text) and not text.endswith(" ")
            if fits and not any((s := locate(text, a)) and s.value > s.marker for a in answers):
                return Text(text, ids[:n] if ids is not None else None)
        return None

    def _ids(self, query: Query, text: str) -> tuple[int, ...] | None:
        """`text` as tokens after the plain prompt; None without a tokenizer, or with one that does not give the text back."""
        ids = self.renderer.continuation(self.renderer.prompt(query), text).ids
        return ids if ids is not None and self.renderer.decode(ids) == text else None

    def size(self, given: Text, rationale: str) -> float:
        """Share of a solution that is given, in tokens where there is a tokenizer, else in characters; two decimals, never 0 or 1."""
        if self.renderer.tokenizer is None:
            share = len(given.text) / len(rationale)
        else:
            share = (given.n_tokens or len(self.renderer.encode(given.text))) / len(self.renderer.encode(rationale))
        return min(max(round(share, 2), 0.01), 0.99)


@functools.lru_cache(maxsize=2048)  # a query is asked for again and again while it is being sampled
def _openings(cutter: StateReset, query: Query) -> list[tuple[Text, float]]:
    rationale = query.rationale
    if not rationale or rationale.isspace():
        return []
    different = {cut.text: cut for cut in cutter._steps(query, rationale)}
    return [(cut, cutter.size(cut, rationale)) for cut in different.values()]
