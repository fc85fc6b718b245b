"""Starts workers, and later those that could not be started: for lack of processes, of memory, of descriptors.

Used by the supervisor, in its loop. A system that has no room now may have some in a moment, when another program or
another worker has ended; so a run goes on with those that there are, and the others are tried again, a few times a
second at first and once a second at last. Only where a role has nobody at all for too long the run cannot go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from conveyor import system_limits
from conveyor.errors import ConveyorError
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.restarts import StartPolicy
from conveyor.slot import Slot
from conveyor.snapshot import Role

log = logging.getLogger(__name__)


class Starts:
    """The starts of one run, and the slots that wait for theirs."""

    def __init__(
        self,
        loop: Loop,
        start: Callable[[Slot], None],
        is_wanted: Callable[[Slot], bool],
        give_up: Callable[[str], None],
        slots: Callable[[], Sequence[Slot]],
    ) -> None:
        """`start` raises `ConveyorError`; `is_wanted` tells whether a slot still is to have a process."""
        self._loop = loop
        self._start = start
        self._is_wanted = is_wanted
        self._give_up = give_up
        self._slots = slots
        self._waiting: list[Slot] = []
        self._policy = StartPolicy()
        self.reason = ""
        """Why the last one failed."""

    @property
    def waiting(self) -> Sequence[Slot]:
        """The slots that have no process only because none could be started."""
        return self._waiting

    def try_to_start(self, slot: Slot) -> bool:
        """Start a process in a slot, now or later; return whether it is now."""
        if not self._waiting and self._started(slot):
            return True
        if slot not in self._waiting:
            self._waiting.append(slot)
        if len(self._waiting) == 1:  # nobody waits for the next try yet
            log.warning("worker not started", extra=fields(slot=slot.name, reason=self.reason))
            delay = self._policy.on_failure(time.monotonic(), missing=(), has_started=False)
            self._loop.after(delay or 0.0, self._try_again)
        return False

    def _started(self, slot: Slot) -> bool:
        try:
            if not system_limits.has_room():
                raise ConveyorError(f"too few file descriptors are left (ulimit -n is {system_limits.soft_limit()})")
            self._start(slot)
        except ConveyorError as error:
            self.reason = str(error)
            return False
        return True

    def _try_again(self) -> None:
        """Start those that wait, the roles that have nobody first, until one cannot be."""
        waiting = [slot for slot in self._waiting if self._is_wanted(slot)]
        missing = self._missing(waiting)
        waiting.sort(key=lambda slot: slot.role not in missing)
        before = len(waiting)
        while waiting and self._started(waiting[0]):
            log.info("worker started after all", extra=fields(slot=waiting[0].name, pid=waiting[0].pid))
            waiting.pop(0)
        self._waiting = waiting
        if not waiting:
            self._policy = StartPolicy()
            return
        missing = self._missing(waiting)
        delay = self._policy.on_failure(time.monotonic(), missing, has_started=len(waiting) < before)
        if delay is None:
            self._give_up(f"no {' and no '.join(sorted(missing))} can be started: {self.reason}")
            return
        if self._policy.should_tell(time.monotonic()):
            log.warning("workers not started", extra=fields(number=len(waiting), reason=self.reason))
        self._loop.after(delay, self._try_again)

    def _missing(self, waiting: Sequence[Slot]) -> set[Role]:
        """Return the roles of which somebody is wanted, and nobody is there."""
        return {slot.role for slot in waiting} - {slot.role for slot in self._slots() if slot.process is not None}
