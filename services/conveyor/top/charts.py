"""The charts of `conveyor top`: what each one shows of the history, and how it is labelled. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from conveyor.top.history import Count, History
from conveyor.top.sparkline import sparkline
from conveyor.wording import brief

_LABEL_WIDTH = 12
# On the right of a chart: its last value and the largest, or the last alone, on terminals from this width on.
_FIGURES_WIDTH, _FIGURES_FROM = 24, 60
_FIGURE_WIDTH, _FIGURE_FROM = 11, 36


@dataclass(frozen=True, slots=True)
class Chart:
    """One count over the last minutes: how fast it grew, or what it came to."""

    block: str
    label: str
    colour: str
    read: Callable[[History, int, Count], list[float | None]]
    count: Count
    write: Callable[[float], str]

    def draw(self, history: History, width: int, lines: int, glyphs: str) -> list[Text]:
        """Return the chart, its label at the left, its last and its largest value at the right if there is room."""
        right_width = _FIGURES_WIDTH if width >= _FIGURES_FROM else _FIGURE_WIDTH if width >= _FIGURE_FROM else 0
        values = self.read(history, max(1, width - _LABEL_WIDTH - right_width), self.count)
        beside = [(self.label, self._figures(values, right_width)), *[("", "")] * (lines - 1)]
        return [
            Text.assemble(f"{left:{_LABEL_WIDTH}}", (line, self.colour), right, no_wrap=True)
            for (left, right), line in zip(beside, sparkline(values, lines, glyphs), strict=False)
        ]

    def _figures(self, values: Sequence[float | None], width: int) -> str:
        known = [value for value in values if value is not None]
        if not known or not width:
            return ""
        last, largest = self.write(known[-1]), self.write(max(known))
        return (f"{last} max {largest}" if width == _FIGURES_WIDTH else last).rjust(width)


def _whole(number: float) -> str:
    return f"{number:,.0f}"


CHARTS = (
    Chart("produced", "produced/s", "blue", History.rates, operator.attrgetter("produced"), brief),
    Chart("processed", "processed/s", "green", History.rates, operator.attrgetter("processed"), brief),
    Chart("backlog", "waiting", "dark_orange", History.levels, operator.attrgetter("waiting"), _whole),
)
