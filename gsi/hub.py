"""The Hugging Face hub from outside: whether it answers, and what to do where something is gated."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

from gsi.types import GsiError


class HubUnreachable(GsiError):
    """Nobody answers where the hub should be, or asking it is switched off; the message names the local way."""


def knock() -> None:
    """One request without retries: the hub's own client takes 25 s and more to find out that there is no network. Raises OSError."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        pass  # any status will do: somebody answered
    except urllib.error.URLError as e:
        if not isinstance(e.reason, ssl.SSLError):  # the hub's own client may know other certificates
            raise


def cached_commit(model: str) -> str | None:
    """The commit of a hub model that loading takes from the local cache; None = it is not there (a server has it)."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:  # no hub id, as in the scripted world
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def log_in(page: str) -> str:
    """What to do about something that is gated."""
    return f"accept its conditions at https://huggingface.co/{page} and log in with `hf auth login` (or set HF_TOKEN)"


def reachable(model: str) -> None:
    """Raises GsiError for a model that is no directory, not in the local cache, and whose hub does not answer."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).is_dir() or isinstance(try_to_load_from_cache(model, "config.json"), str):
        return
    try:
        knock()
    except OSError as e:
        raise HubUnreachable(
            f"model: {model} is no directory here, and the hub cannot be reached: {e}; set model to a directory that has it"
        ) from None
