"""How fast a run goes now: its counts, compared with those of a few seconds ago.

Called by `pages` each time somebody looks at the page, from any thread. Nobody counts while nobody looks: who comes
first sees the rates of the whole run, until there is an earlier look to compare with.
"""

from __future__ import annotations

import collections
import threading
from dataclasses import dataclass

from conveyor.snapshot import Role, RunStatistics, SlotStatistics

WINDOW_SECONDS = 3.0  # the window of the rates, as on the terminal: long enough to read, short enough to follow
APART_SECONDS = 0.5  # what is closer together makes no rate: with two who look, one looks just after the other
STALE_SECONDS = 30.0  # what was seen before that says nothing of now; arbitrary


@dataclass(frozen=True, slots=True)
class Reading:
    """The counts of a run at one moment; those of each slot are its tasks and its busy seconds."""

    elapsed_seconds: float
    slots: dict[str, tuple[int, float]]

    @classmethod
    def of(cls, run: RunStatistics) -> Reading:
        return cls(run.elapsed_seconds, {slot.name: (tasks(slot), slot.busy_seconds) for slot in run.slots})


def tasks(slot: SlotStatistics) -> int:
    """Return the tasks that a slot has put, or done: whichever its role is there for."""
    return slot.produced if slot.role is Role.PRODUCER else slot.processed


@dataclass(frozen=True, slots=True)
class Since:
    """An earlier moment to compare with: how long ago it was, and what was counted then."""

    seconds: float
    earlier: Reading

    def rate(self, slot: SlotStatistics) -> float:
        """Return the slot's tasks a second."""
        before, _ = self.earlier.slots.get(slot.name, (0, 0.0))
        return max(0.0, (tasks(slot) - before) / self.seconds)

    def busy(self, slot: SlotStatistics) -> float:
        """Return the share of the time that the slot was busy, from 0 to 1."""
        _, before = self.earlier.slots.get(slot.name, (0, 0.0))
        return min(1.0, max(0.0, (slot.busy_seconds - before) / self.seconds))


class Rates:
    """Remembers what was seen of a run in the last seconds. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the readings, which any thread that answers adds to
        self._readings: collections.deque[Reading] = collections.deque()

    def since(self, run: RunStatistics) -> Since:
        """Remember this moment, and return the one to compare it with."""
        now = run.elapsed_seconds
        with self._lock:
            readings = self._readings
            while readings and now - readings[0].elapsed_seconds > STALE_SECONDS:
                readings.popleft()
            while len(readings) > 1 and now - readings[1].elapsed_seconds >= WINDOW_SECONDS:
                readings.popleft()
            earlier = readings[0] if readings else Reading(0.0, {})
            if not readings or now - readings[-1].elapsed_seconds >= APART_SECONDS:
                readings.append(Reading.of(run))
        if now - earlier.elapsed_seconds < APART_SECONDS:
            earlier = Reading(0.0, {})
        return Since(max(now - earlier.elapsed_seconds, 0.001), earlier)
