"""Conversation lists as texts: `[{role, content}, ...]` (TRL, the chat templates) and `[{from, value}, ...]` (ShareGPT)."""

from __future__ import annotations

from typing import Any, TypeGuard

_USER, _MODEL, _SYSTEM = ("user", "human"), ("assistant", "gpt", "model"), ("system", "developer")


class NotOneQuestion(Exception):
    """A conversation that is not one question with at most one answer; the text says what it is instead."""


def is_conversation(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and _pair(turn) is not None for turn in value)


def asked(turns: list[dict[str, Any]]) -> str | None:
    """What the model reads: the user's turn, behind a system turn and a blank line where there is one; None without a user's turn.

    Raises NotOneQuestion for a conversation of several turns: what the model said in between is no question.
    """
    said = [_pair(turn) or ("", "") for turn in turns]
    user = [text for role, text in said if role in _USER]
    if len(user) > 1:
        raise NotOneQuestion(f"a conversation with {len(user)} turns of the user; a row is one question")
    if strange := next((role for role, _ in said if role not in (*_USER, *_MODEL, *_SYSTEM)), None):
        raise NotOneQuestion(f"a conversation with a turn of {strange!r}; known are {', '.join((*_USER, *_MODEL, *_SYSTEM))}")
    return "\n\n".join([text for role, text in said if role in _SYSTEM and text.strip()] + user) if user else None


def answered(turns: list[dict[str, Any]]) -> str | None:
    """What the model's turn says; None without one."""
    said = [text for role, text in (_pair(turn) or ("", "") for turn in turns) if role in _MODEL]
    return said[-1] if said else None


def _pair(turn: dict[str, Any]) -> tuple[str, str] | None:
    """(role, text) of a turn; content may be a list of text parts."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        content = "".join(part["text"] for part in content)
    return (role.lower(), content) if isinstance(role, str) and isinstance(content, str) else None
