"""When a point counts as flipped."""

from __future__ import annotations

from reluflow._validation import BoolArray, FloatArray, one_of

DEFINITIONS = {"nonstrict": "y N(x + delta) <= 0", "strict": "y N(x + delta) < 0"}


def is_strict(definition: str) -> bool:
    """Whether N = 0 does not count as flipped; refuses unknown definitions."""
    return one_of("definition", definition, DEFINITIONS) == "strict"


def is_flipped(margins: FloatArray, definition: str) -> BoolArray:
    """Where the margin y N counts as flipped."""
    return margins < 0 if is_strict(definition) else margins <= 0
