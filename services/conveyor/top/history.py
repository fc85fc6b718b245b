"""What was read of a run in the last minutes: its counts, to be drawn as a chart of any width. Pure.

Nothing is known of the time before the first reading. Between two readings the counts are taken to have grown evenly:
so readings may come at any pace, and one that is late, because the run or its watcher was stopped, makes no false peak.
"""

from __future__ import annotations

import bisect
import collections
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from conveyor.snapshot import RunStatistics

SPAN_SECONDS = 180.0  # of a chart, whatever its width; long enough to see waves, short enough to follow
RATE_SECONDS = 3.0  # the window of the rates in figures, as in the view of the run itself


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts at one moment of the run."""

    at: float
    """Seconds since its start."""
    produced: int
    processed: int
    waiting: int


Count = Callable[[Sample], int]
_moment = operator.attrgetter("at")


class History:
    """Remembers readings, the latest last."""

    def __init__(self) -> None:
        self._samples: collections.deque[Sample] = collections.deque()
        self._latest: collections.deque[RunStatistics] = collections.deque()

    def add(self, run: RunStatistics) -> None:
        """Remember a reading; one that is not later than all others is none."""
        now = run.elapsed_seconds
        if self._samples and now <= self._samples[-1].at:
            return
        self._samples.append(Sample(now, run.total("produced"), run.total("processed"), run.queue.waiting))
        while len(self._samples) > 1 and now - self._samples[1].at >= SPAN_SECONDS:
            self._samples.popleft()
        self._latest.append(run)
        while len(self._latest) > 2 and now - self._latest[1].elapsed_seconds >= RATE_SECONDS:
            self._latest.popleft()

    @property
    def earlier(self) -> RunStatistics | None:
        """The reading to compare the last one with, if there is one."""
        return self._latest[0] if len(self._latest) > 1 else None

    def rates(self, cells: int, count: Count) -> list[float | None]:
        """Return how fast a count grew in each cell of a chart, a second; None where that is not known."""
        samples = list(self._samples)
        return [
            (_between(samples, cell.end, count) - _between(samples, cell.begin, count)) / (cell.end - cell.begin)
            if cell
            else None
            for cell in _cells(samples, cells)
        ]

    def levels(self, cells: int, count: Count) -> list[float | None]:
        """Return the most that a count came to in each cell of a chart; None where that is not known."""
        samples = list(self._samples)
        return [
            max(_between(samples, cell.end, count), *map(count, _within(samples, cell)), 0) if cell else None
            for cell in _cells(samples, cells)
        ]


@dataclass(frozen=True, slots=True)
class _Cell:
    """The time that one cell of a chart stands for, as far as it is known."""

    begin: float
    end: float


def _cells(samples: list[Sample], cells: int) -> list[_Cell | None]:
    """Return the cells of a chart that ends with the last sample.

    Their edges are whole multiples of their length, so that a chart moves on by whole cells and keeps its form.
    """
    if not samples:
        return [None] * cells
    first, last, length = samples[0].at, samples[-1].at, SPAN_SECONDS / cells
    end = math.ceil(last / length)
    known = [_Cell(max(first, number * length), min(last, (number + 1) * length)) for number in range(end - cells, end)]
    return [cell if cell.begin < cell.end else None for cell in known]


def _within(samples: list[Sample], cell: _Cell) -> list[Sample]:
    begin, end = (bisect.bisect_right(samples, edge, key=_moment) for edge in (cell.begin, cell.end))
    return samples[begin:end]


def _between(samples: list[Sample], at: float, count: Count) -> float:
    """Return a count at a moment between the first sample and the last."""
    index = max(1, bisect.bisect_left(samples, at, key=_moment))
    if index >= len(samples):
        return count(samples[-1])
    before, after = samples[index - 1], samples[index]
    share = (at - before.at) / (after.at - before.at)
    return count(before) + share * (count(after) - count(before))
