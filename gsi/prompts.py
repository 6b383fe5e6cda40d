"""From a question to the tokens a model reads, and from a completion to the tokens it is trained on.

The same `Renderer` serves sampling, training and evaluation, so the template, BOS and EOS are the same in all three.
It never sees a hint unless it is asked to render one (`Renderer.prompt(question=...)`), which curation never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsi.types import GsiError, Query, Text

OPEN, CLOSE = "<think>", "</think>"  # of a thinking section
PLAIN = "Question: {question}\nAnswer:\n"


class Renderer:
    """Renders prompts and completions for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer, or None (scripted engines, servers): then no ids are made.
        template: `auto` (chat where the tokenizer has a chat template, else plain), `plain`, `chat`, or text with
            `{question}`.
        instruction: appended to every question.
        thinking: what of a thinking model's response is trained on: `keep` everything, `strip` up to `</think>`; None = it does not think.

    Raises GsiError for a template without `{question}`, a chat template that is not there, a tokenizer without EOS, and for
    thinking that contradicts the template.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        template: str = "auto",
        instruction: str = "",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        thinking: str | None = None,
    ):
        has_chat = bool(getattr(tokenizer, "chat_template", None))
        if template == "auto":
            template = "chat" if has_chat else "plain"
        if template == "chat" and not has_chat:
            raise GsiError("prompt.template: `chat` needs a tokenizer with a chat template; use `plain` or your own text with {question}")
        if template == "plain":
            template = PLAIN
        if template != "chat" and "{question}" not in template:
            raise GsiError(f"prompt.template: {template!r} lacks {{question}}; use auto, plain, chat or a text that contains {{question}}")
        if tokenizer is not None and tokenizer.eos_token_id is None:
            raise GsiError("the tokenizer has no eos token, so no response could ever end; set `eos_token` in its tokenizer_config.json")
        self.tokenizer, self.template, self.instruction = tokenizer, template, instruction
        self._chat_kwargs = dict(chat_template_kwargs or {})
        self._bos: tuple[int, ...] = ()
        if tokenizer is not None and tokenizer.bos_token_id is not None:
            adds = list(tokenizer("a")["input_ids"][:1]) == [tokenizer.bos_token_id]
            chat_adds = template == "chat" and self._chat(_user("a")).startswith(tokenizer.bos_token)
            self._bos = (tokenizer.bos_token_id,) if adds or chat_adds else ()
        self.thinking = thinking
        ends = self._chat(_user("a")).rstrip() if template == "chat" else template.rstrip()
        self._opened = ends.endswith(OPEN)  # by the prompt; a response then begins inside the section
        if thinking and ends.endswith(CLOSE):
            raise GsiError("prompt.thinking: the template closes the thinking section before the response begins; leave `thinking` out")
        if thinking == "strip" and self._opened:
            raise GsiError(
                "prompt.thinking: `strip` would train responses without thinking behind a prompt that opens the section; use keep, or chat_template_kwargs "
                "that switch thinking off (for many models {enable_thinking: false})"
            )
        knows = template == "chat" and any(mark in str(tokenizer.chat_template) for mark in (OPEN, "enable_thinking"))
        self.may_think = bool(thinking) or (knows and not ends.endswith(CLOSE) and self._chat_kwargs.get("enable_thinking") is not False)

    def prompt(self, query: Query, question: str | None = None) -> Text:
        """The prompt of a query; `question` replaces the plain question (a hint). Ids begin with BOS where the model has one, the text never does."""
        question = question if question is not None else query.question
        if self.instruction:
            question = f"{question} {self.instruction}"
        if self.template == "chat":
            text = self._chat(_user(question))
            if self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token):
                text = text[len(self.tokenizer.bos_token) :]
        else:
            text = self.template.replace("{question}", question)
        return Text(text, self.ids_of(text))

    def opening(self) -> str:
        """What a response that thinks begins with where its opening is given: the section, unless the prompt has opened it."""
        return f"{OPEN}\n" if self.thinking and not self._opened else ""

    def trained(self, response: str) -> str:
        """The part of a response that is trained on. With `strip`, what follows the thinking section; '' where it never ends."""
        if self.thinking != "strip" or OPEN not in response:
            return response
        return response.rpartition(CLOSE)[2].lstrip() if CLOSE in response else ""

    def ids_of(self, prompt: str) -> tuple[int, ...] | None:
        """Ids of a rendered prompt, BOS first where the model has one; None without a tokenizer."""
        return None if self.tokenizer is None else self._bos + self.encode(prompt)

    def messages(self, messages: Sequence[Mapping[str, str]]) -> Text:
        """A prompt of chat messages: by the chat template, or their texts one below the other where the plain prompt has the question."""
        if self.template == "chat":
            text = self._chat(messages)
            if self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token):
                text = text[len(self.tokenizer.bos_token) :]
        else:
            text = self.template.replace("{question}", "\n\n".join(m["content"] for m in messages))
        return Text(text) if self.tokenizer is None else Text(text, self._bos + self.encode(text))

    def continuation(self, prompt: Text, text: str) -> Text:
        """`text` as tokens that follow `prompt`: exactly the ids of the whole, where the prompt's ids are a prefix of them.

        Some tokenizers merge across the border or put a space before any text; then the text is tokenized alone.
        """
        if self.tokenizer is None or prompt.ids is None:
            return Text(text)
        if not text:
            return Text("", ())
        whole, head = self.encode(prompt.text + text), prompt.ids[len(self._bos) :]
        return Text(text, whole[len(head) :] if whole[: len(head)] == head else self.encode(text))

    def ending(self, ids: tuple[int, ...], stop_ids: frozenset[int] = frozenset()) -> tuple[int, ...]:
        """Completion ids with the EOS that training teaches; ids that end in another end token of the model stay as they are."""
        eos = self.tokenizer.eos_token_id
        return ids if ids and (ids[-1] == eos or ids[-1] in stop_ids) else (*ids, eos)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: tuple[int, ...]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(
            [dict(m) for m in messages], tokenize=False, add_generation_prompt=True, **self._chat_kwargs
        )


def _user(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]
