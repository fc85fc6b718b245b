"""The results as an SVG, for a page: a bar for each contestant, on a logarithmic scale, in light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from conveyor.bench.contestants import is_ours
from conveyor.bench.machine import Machine
from conveyor.bench.results import RowResult, Side
from conveyor.bench.row import Figure
from conveyor.bench.table import number
from conveyor.bench.watching import Status

_WIDTH, _LEFT, _RIGHT = 820, 200, 150
_BAR, _GAP, _TITLE, _AXIS = 16, 6, 34, 22
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .quiet { fill: #59636e; font-size: 12px }
.grid { stroke: #d1d9e0 } .ours { fill: #0969da } .theirs { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .quiet { fill: #9198a1 }
  .grid { stroke: #3d444d } .ours { fill: #4493f8 } .theirs { fill: #656c76 }
}
"""


def draw(results: Sequence[RowResult], machine: Machine) -> str:
    """Return the picture of all rows that compare a rate; the others have no use for a common scale."""
    parts: list[str] = []
    top = 10
    for result in results:
        if result.row.measure == "throughput":
            panel, height = _panel(result, top)
            parts += panel
            top += height
    for line in machine.lines()[:2]:
        parts.append(_text(10, top + 16, line, "quiet"))
        top += 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 12}" width="{_WIDTH}" '
        f'height="{top + 12}" role="img"><title>Conveyor and its peers</title><style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(result: RowResult, top: int) -> tuple[list[str], int]:
    figure = result.row.figures[0]
    sides = [side for side in result.sides if side.status is not Status.MISSING]
    values = {side.contestant: side.median(figure.key) * figure.scale for side in sides}
    known = [value for value in values.values() if value > 0 and math.isfinite(value)]
    unit = f"{figure.unit}, log scale"
    parts = [_text(10, top + 18, result.row.title, "title")]
    height = _TITLE + len(sides) * (_BAR + _GAP)
    if not known:
        return [*parts, _text(10, top + _TITLE + 12, "not measured", "quiet")], _TITLE + _AXIS
    low, high = math.floor(math.log10(min(known)) - 0.01), math.ceil(math.log10(max(known)) + 0.01)
    for power in range(low, high + 1):
        x = _place(10.0**power, low, high)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + _TITLE - 6}" y2="{top + height}"/>')
        parts.append(_text(x, top + height + 15, f"{10.0**power:g}", "quiet", "middle"))
    parts.append(_text(_WIDTH - _RIGHT + 30, top + height + 15, unit, "quiet"))
    for place, side in enumerate(sides):
        parts += _bar(side, values[side.contestant], figure, top + _TITLE + place * (_BAR + _GAP), low, high)
    return parts, height + _AXIS + 14


def _bar(side: Side, value: float, figure: Figure, y: int, low: int, high: int) -> list[str]:
    name = _text(_LEFT - 8, y + 13, side.contestant, "", "end")
    if not (value > 0 and math.isfinite(value)):
        return [name, _text(_LEFT + 4, y + 13, side.status.value, "quiet")]
    x = _place(value, low, high)
    kind = "ours" if is_ours(side.contestant) else "theirs"
    said = number(value) + ("" if side.status is Status.DONE else f", {side.status.value}")
    return [
        name,
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{x - _LEFT:.1f}" height="{_BAR}" rx="2"/>',
        _text(x + 5, y + 13, said, "quiet"),
    ]


def _place(value: float, low: int, high: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / (high - low)


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
