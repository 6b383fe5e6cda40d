"""What every part of the config is made of, and its error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from gsi.types import GsiError


class ConfigError(GsiError):
    """The configuration is wrong; the message names the key and the fix."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` where a known word is close to a mistyped one."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def no_login(url: str) -> None:
    """Refuses a name or password in a URL, because the config is stored."""
    if "@" in url.split("://")[-1].split("/")[0]:
        raise ValueError(
            "url: a name or password in it would be written to config.yaml; put the key into the variable that api_key_env names"
        )
