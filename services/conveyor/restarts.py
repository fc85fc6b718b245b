"""When a dead worker's slot gets a new process: pure, with the time as an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from conveyor.snapshot import Role

FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 5.0
# A process that lived this long was well: the next one starts at once. Arbitrary; as long
# as the longest delay, so that a slot cannot spend more time waiting than working for ever.
CALM_SECONDS = 5.0
CRASH_LOOP_DEATHS = 5
CRASH_LOOP_SECONDS = 30.0
# After deaths in tasks, while nothing else gets done. Short, as each costs the task an attempt until it is given up;
# doubled with each so many in a row, for the case that all tasks kill.
TASK_DELAY_SECONDS = 0.005
MAX_TASK_DELAY_SECONDS = 0.1
DEATHS_TO_DOUBLE = 10
MAX_START_DELAY_SECONDS = 1.0
# A role has nobody for so long because none can be started: then nothing goes on. Arbitrary; as long as the longest
# back-off, so that who comes back from that is not too late.
START_PATIENCE_SECONDS = 5.0
TELL_SECONDS = 30.0


@dataclass(slots=True)
class RestartPolicy:
    """One slot's back-off: none after a process that was well, else 50 ms, doubled with each death in a row up to 5 s.

    Well was one that has finished a task, or lived for long: it is the task that kills, or somebody outside, and others
    wait for what it would do. One that dies before it was ready never worked; five of these in 30 s are a crash loop.
    A death in a task is the task's fault, and no reason to wait while tasks get done anywhere in the run.
    """

    _in_a_row: int = 0
    _in_tasks_in_a_row: int = 0
    _unready: deque[float] = field(default_factory=lambda: deque(maxlen=CRASH_LOOP_DEATHS))

    def on_death(
        self,
        now: float,
        lived_seconds: float,
        was_ready: bool,
        was_useful: bool,
        in_task: bool = False,
        is_moving: bool = False,
    ) -> float | None:
        """Return the seconds to wait before a new process, or None for a crash loop.

        `is_moving` says that tasks were done since the last death, by whomever.
        """
        if not was_ready:
            self._unready.append(now)
            if len(self._unready) == CRASH_LOOP_DEATHS and now - self._unready[0] <= CRASH_LOOP_SECONDS:
                return None
        if was_useful or (was_ready and lived_seconds >= CALM_SECONDS):
            self._in_a_row = self._in_tasks_in_a_row = 0
            return 0.0
        if in_task:
            return self._after_task(is_moving)
        delay = min(FIRST_DELAY_SECONDS * 2.0**self._in_a_row, MAX_DELAY_SECONDS)
        self._in_a_row = min(self._in_a_row + 1, 16)  # far past the longest delay; keeps the power small
        return delay

    def _after_task(self, is_moving: bool) -> float:
        if is_moving:
            self._in_tasks_in_a_row = 0
            return 0.0
        doublings = min(self._in_tasks_in_a_row // DEATHS_TO_DOUBLE, 16)
        self._in_tasks_in_a_row += 1
        return min(TASK_DELAY_SECONDS * 2.0**doublings, MAX_TASK_DELAY_SECONDS)


@dataclass(slots=True)
class StartPolicy:
    """When processes that the system would not start are tried again, and when that is hopeless."""

    _failures: int = 0
    _missing_since: dict[Role, float] = field(default_factory=dict)
    _told_at: float = 0.0

    def on_failure(self, now: float, missing: Collection[Role], has_started: bool) -> float | None:
        """Return the seconds to the next try, or None if a role is missing for too long.

        `missing` are the roles that have nobody; `has_started` says that others could be started just before.
        """
        self._missing_since = {role: self._missing_since.get(role, now) for role in missing}
        if any(now - since >= START_PATIENCE_SECONDS for since in self._missing_since.values()):
            return None
        self._failures = 0 if has_started else min(self._failures + 1, 16)
        return min(FIRST_DELAY_SECONDS * 2.0**self._failures, MAX_START_DELAY_SECONDS)

    def should_tell(self, now: float) -> bool:
        """Return whether it is time to say again that some wait."""
        if self._told_at and now - self._told_at < TELL_SECONDS:
            return False
        self._told_at = now
        return True
