"""HTTP with a bound on a whole answer, for the servers of engines and teachers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2  # openai's own client
import openai


class Bounded(openai.DefaultAsyncHttpxClient):
    """Gives a whole answer the time that by itself the client gives every wait for more of it, so that a slow drip ends too."""

    async def send(self, request: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("read")):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("the answer took too long", request=request) from None
