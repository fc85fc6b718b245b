"""How many consumers there should be: pure. Follows the work that comes and the backlog, and does not swing.

What is needed is worked out from the load: the rate at which tasks come, times the time that one takes, is how many
consumers are busy on average; a backlog asks for as many more as clear it in a few seconds. Three things keep the
number still, as in Kubernetes' horizontal pod autoscaler:

- between "too few" and "too many" lies a gap: the load that keeps consumers busy for 85 % of their time, or for 60 %;
- more are added once they were needed for a second, at most twice as many as there are at a time;
- some are taken away once fewer sufficed for all of the last ten seconds, and then as many as sufficed in its worst.

So a load that steps is followed once, waves longer than half a minute are followed up and down, and shorter ones,
spikes and noise keep what their peaks need.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from conveyor.cpus import usable_cpus

LOOK_SECONDS = 0.25
# The shares of their time for which consumers are busy: above the first they are too few, below the second too many.
TOO_BUSY, TOO_IDLE = 0.85, 0.6
MAX_HELD_BACK = 2.0  # it cannot be seen how fast producers are that do next to nothing but wait: double, and see
CLEAR_SECONDS = 5.0  # in which a backlog should be gone
UP_SECONDS = 1.0  # for so long more must be needed
DOWN_SECONDS = 10.0  # and fewer be enough; arbitrary: long beside the start of a process, short beside a rush hour
RATE_SECONDS = 2.0  # of which rates are a moving mean


class Bounds(NamedTuple):
    """Between them lies the number of consumers; equal where it is fixed."""

    least: int
    most: int

    @classmethod
    def of(cls, consumers: int | tuple[int, int] | None) -> Bounds:
        """Return what a user has said; None is as many as there are CPUs to use."""
        if isinstance(consumers, tuple):
            return cls(*consumers)
        number = usable_cpus() if consumers is None else consumers
        return cls(number, number)

    @classmethod
    def parse(cls, text: str, most: int) -> Bounds:
        """Read N, MIN..MAX or MIN.., up to `most`. Raises `ValueError` that says what is allowed.

        Without a MAX it is the CPUs that may be used: as many as there are by default. More processes than CPUs are
        good only for tasks that wait for something, and whether they do only the user knows.
        """
        first, dots, last = text.partition("..")
        try:
            least = int(first)
            greatest = int(last) if last else max(least, usable_cpus()) if dots else least
        except ValueError:
            least = greatest = 0
        if not 1 <= least <= greatest <= most:
            raise ValueError(f"a whole number from 1 to {most}, or two as MIN..MAX")
        return cls(least, greatest)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}..{self.most}"


@dataclass(frozen=True, slots=True)
class Load:
    """What is seen of the work at one moment; the totals never fall."""

    consumers: int
    backlog: int
    """Tasks that a consumer could begin now."""
    put: int
    done: int
    busy_seconds: float
    """Of all consumers together."""
    producers: int
    """Those that are still at work."""
    blocked_seconds: float
    """Of all producers together, for lack of room."""


class Autoscaler:
    """Decides for one run. To be asked a few times a second."""

    def __init__(self) -> None:
        self._last: tuple[float, Load] | None = None
        self._put_rate = self._done_rate = self._busy = self._blocked = 0.0
        self._busy_now = 0.0
        """How many consumers were busy since the last look, on average. No mean over more: it tells that some idle."""
        self._too_few: deque[tuple[float, int]] = deque()
        """When, and how many were needed at least, for the last `UP_SECONDS`."""
        self._too_many: deque[tuple[float, int]] = deque()
        """When, and how many were more than enough, for the last `DOWN_SECONDS`."""

    def forget(self) -> None:
        """Begin anew: what was seen says nothing about what comes."""
        self._last = None
        self._too_few.clear()
        self._too_many.clear()

    def look(self, now: float, load: Load, bounds: Bounds) -> int:
        """Return how many consumers there should be now. Time in seconds."""
        if self._last is None or now - self._last[0] > RATE_SECONDS:
            self.forget()
            self._last = now, load
            return min(max(load.consumers, bounds.least), bounds.most)
        if now <= self._last[0]:
            return load.consumers
        self._learn(now, load)
        needed = self._needed(load)
        _remember(self._too_few, now, self._at_least(load, needed), UP_SECONDS)
        _remember(self._too_many, now, math.ceil(needed / TOO_IDLE), DOWN_SECONDS)
        wanted = load.consumers
        if _spans(self._too_few, UP_SECONDS):
            wanted = max(wanted, min(2 * load.consumers, *(number for _, number in self._too_few)))
        if wanted == load.consumers and _spans(self._too_many, DOWN_SECONDS):
            wanted = min(wanted, max(number for _, number in self._too_many))
        return min(max(wanted, bounds.least), bounds.most)

    def _learn(self, now: float, load: Load) -> None:
        """Move the means on by what has happened since the last look."""
        assert self._last is not None
        before, last = self._last
        seconds = now - before
        weight = 1 - math.exp(-seconds / RATE_SECONDS)
        self._put_rate += weight * ((load.put - last.put) / seconds - self._put_rate)
        self._done_rate += weight * ((load.done - last.done) / seconds - self._done_rate)
        self._blocked += weight * ((load.blocked_seconds - last.blocked_seconds) / seconds - self._blocked)
        self._busy_now = (load.busy_seconds - last.busy_seconds) / seconds
        self._busy += weight * (self._busy_now - self._busy)
        self._last = now, load

    def _needed(self, load: Load) -> float:
        """Return how many consumers the load would keep busy all the time."""
        if not self._done_rate:
            return self._busy_now
        task_seconds = self._busy / self._done_rate
        put_rate = self._put_rate * self._held_back(load)
        return max(put_rate * task_seconds, self._busy) + load.backlog * task_seconds / CLEAR_SECONDS

    def _held_back(self, load: Load) -> float:
        """Return how many times as much would come if no producer had to wait for room; MAX_HELD_BACK is for more."""
        free = load.producers - self._blocked
        return min(load.producers / free, MAX_HELD_BACK) if free > 0 else MAX_HELD_BACK

    def _at_least(self, load: Load, needed: float) -> int:
        """Return how many consumers there must be: no more than there are while they are not kept busy."""
        if not load.backlog or self._busy_now < TOO_BUSY * load.consumers:
            return load.consumers
        return math.ceil(needed / TOO_BUSY)


def _remember(seen: deque[tuple[float, int]], now: float, number: int, seconds: float) -> None:
    """Add what is seen now; keep one look from before the time, so that the looks span all of it."""
    seen.append((now, number))
    while len(seen) > 1 and seen[1][0] <= now - seconds:
        seen.popleft()


def _spans(seen: deque[tuple[float, int]], seconds: float) -> bool:
    return seen[-1][0] - seen[0][0] >= seconds
