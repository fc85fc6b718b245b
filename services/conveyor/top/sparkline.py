"""A row of values as a chart of characters: one cell a value, an eighth of a line the finest step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " _.-:=+*#"  # for terminals that have no blocks: darker is more


def sparkline(values: Sequence[float | None], lines: int, glyphs: str = BLOCKS) -> list[str]:
    """Return the chart from its top line to its bottom line; the largest value fills it.

    Zero is the thinnest stroke, and whatever is more is more than that; None is a blank.
    """
    largest = max((value for value in values if value is not None), default=0.0)
    heights = [_height(value, largest, 8 * lines) for value in values]
    return [
        "".join(glyphs[min(8, max(0, height - 8 * below))] for height in heights) for below in reversed(range(lines))
    ]


def _height(value: float | None, largest: float, most: int) -> int:
    if value is None:
        return 0
    return 1 + math.ceil(value / largest * (most - 1)) if value > 0 else 1
