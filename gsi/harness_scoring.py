"""Copied beside the task files for lm-evaluation-harness: answers that are neither numbers nor choices, compared by math-verify.

As the harness's own minerva_math does it. Nothing of gsi is used here.
"""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, int]:
    """One if the response's answer equals the reference's, else zero."""
    gold = parse(f"${doc['answer']}$") or parse(doc["answer"])
    return {"exact_match": int(bool(verify(gold, parse(results[0]))))}
