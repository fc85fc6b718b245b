"""When a dead worker's slot gets a new process: pure, with the time as an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 5.0
# A process that lived this long was well: the next one starts at once. Arbitrary; as long
# as the longest delay, so that a slot cannot spend more time waiting than working for ever.
CALM_SECONDS = 5.0
CRASH_LOOP_DEATHS = 5
CRASH_LOOP_SECONDS = 30.0


@dataclass(slots=True)
class RestartPolicy:
    """One slot's back-off: none after a process that was well, else 50 ms, doubled with each death in a row up to 5 s.

    Well was one that has finished a task, or lived for long: it is the task that kills, or somebody outside, and others
    wait for what it would do. One that dies before it was ready never worked; five of these in 30 s are a crash loop.
    """

    _in_a_row: int = 0
    _unready: deque[float] = field(default_factory=lambda: deque(maxlen=CRASH_LOOP_DEATHS))

    def on_death(self, now: float, lived_seconds: float, was_ready: bool, was_useful: bool) -> float | None:
        """Return the seconds to wait before a new process, or None for a crash loop."""
        if not was_ready:
            self._unready.append(now)
            if len(self._unready) == CRASH_LOOP_DEATHS and now - self._unready[0] <= CRASH_LOOP_SECONDS:
                return None
        if was_useful or (was_ready and lived_seconds >= CALM_SECONDS):
            self._in_a_row = 0
            return 0.0
        delay = min(FIRST_DELAY_SECONDS * 2.0**self._in_a_row, MAX_DELAY_SECONDS)
        self._in_a_row = min(self._in_a_row + 1, 16)  # far past the longest delay; keeps the power small
        return delay
