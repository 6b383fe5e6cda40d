"""Data sets of the Hugging Face hub, or of a local folder in its form."""

from __future__ import annotations

import urllib.error
from pathlib import Path

from gsi.hub import HubUnreachable, knock, log_in
from gsi.tasks.sources import LOCAL, Source
from gsi.types import GsiError


def hub_dataset(hub: str, configuration: str | None, split: str, wanted: set[str]) -> Source:
    """A split of a data set on the hub, or in a local folder of that name. Only the `wanted` columns are decoded (others may be pictures).

    With HF_HUB_OFFLINE=1 only a cached copy is used. Raises GsiError; HubUnreachable, and quickly, where the hub does not answer.
    """
    import datasets

    name = f"{hub}{f':{configuration}' if configuration else ''} (split {split})"
    try:
        if not Path(hub).is_dir():
            knock()
        data = datasets.load_dataset(hub, configuration, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        if "gated" in str(e):
            raise GsiError(f"{name}: {reason}; {log_in(f'datasets/{hub}')}, or use a local file instead with {LOCAL}") from None
        text = f"{name}: cannot be loaded from the Hugging Face hub: {reason}; use a local file instead with {LOCAL}"
        if isinstance(e, ConnectionError | TimeoutError | urllib.error.URLError):
            raise HubUnreachable(f"{text}, or a copy that is in the cache with HF_HUB_OFFLINE=1") from None
        raise GsiError(text) from None
    chosen = [column for column in data.column_names if column in wanted]
    rows = data.select_columns(chosen) if chosen else ({} for _ in range(data.num_rows))
    return Source(name, ((i, dict(row)) for i, row in enumerate(rows, 1)), unit="row", columns=tuple(data.column_names), split=split)
