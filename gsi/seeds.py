"""Seeds from identity: the same (run seed, iteration, query, attempt) gives the same seed on any machine, in any order."""

from __future__ import annotations

import hashlib


def seed_of(*identity: object) -> int:
    """A 63-bit seed from the parts of an identity, so that it fits SQLite, vLLM and OpenAI-compatible servers."""
    key = "\x1f".join(str(part) for part in identity)
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
