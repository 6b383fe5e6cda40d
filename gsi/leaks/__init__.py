"""Signs that a guided response leans on its help: it mentions the hint, states the answer before deriving it, or copies the reference.

Heuristics on text, of the part that the model generated; each says what it found, or None. What they catch and how often they
are wrong is measured in tests/test_leaks.py (leaks that others wrote, planted ones, and references that had no help); see
docs/curation.md.
"""

from gsi.leaks.copies import copy, overlap
from gsi.leaks.early import early_answer
from gsi.leaks.mentions import mention

__all__ = ["copy", "early_answer", "mention", "overlap"]
