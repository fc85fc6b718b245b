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

SLICE_SECONDS = 0.1  # of starting in one turn of the loop; one takes some 10 ms, far more on a machine that is busy


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
        self._is_scheduled = False
        """Whether the loop will have those that wait started."""
        self.is_short = False
        """Whether the last one failed, and others wait for that."""
        self.reason = ""
        """Why it failed."""

    @property
    def waiting(self) -> Sequence[Slot]:
        """The slots that are to have a process and have none yet."""
        return self._waiting

    def try_to_start(self, slot: Slot) -> bool:
        """Start a process in a slot now, or later if it cannot be; return whether it is now."""
        if not self.is_short and self._started(slot):
            return True
        self._add([slot])
        if not self.is_short:
            self._fail(has_started=False)
        return False

    def start_all(self, slots: Sequence[Slot]) -> None:
        """Start a process in each of these: some now, the others in the next turns of the loop."""
        self._add(slots)
        if not self._is_scheduled:
            self._go_on()

    def _add(self, slots: Sequence[Slot]) -> None:
        self._waiting += [slot for slot in slots if slot not in self._waiting]

    def _started(self, slot: Slot) -> bool:
        try:
            if not system_limits.has_room():
                raise ConveyorError(f"too few file descriptors are left (ulimit -n is {system_limits.soft_limit()})")
            self._start(slot)
        except ConveyorError as error:
            self.reason = str(error)
            return False
        return True

    def _go_on(self) -> None:
        """Start those that wait, the roles that have nobody first, until one cannot be or time is up."""
        self._is_scheduled = False
        waiting = self._waiting = [slot for slot in self._waiting if self._is_wanted(slot)]
        missing = self._missing(waiting)
        waiting.sort(key=lambda slot: slot.role not in missing)
        before, until = len(waiting), time.monotonic() + SLICE_SECONDS
        while waiting:
            slot = waiting[0]
            if not self._started(slot):
                self._fail(has_started=len(waiting) < before)
                return
            waiting.pop(0)
            if self.is_short:
                log.info("worker started after all", extra=fields(slot=slot.name, pid=slot.pid))
            if waiting and time.monotonic() > until:
                self._schedule(0.0)
                return
        self.is_short, self._policy = False, StartPolicy()

    def _fail(self, *, has_started: bool) -> None:
        """See when to try again what could not be started, if ever."""
        now, missing = time.monotonic(), self._missing(self._waiting) if self.is_short else set[Role]()
        if not self.is_short:
            log.warning("worker not started", extra=fields(slot=self._waiting[0].name, reason=self.reason))
            self.is_short = True
        elif self._policy.should_tell(now):
            log.warning("workers not started", extra=fields(number=len(self._waiting), reason=self.reason))
        delay = self._policy.on_failure(now, missing, has_started)
        if delay is None:
            self._give_up(f"no {' and no '.join(sorted(missing))} can be started: {self.reason}")
        else:
            self._schedule(delay)

    def _schedule(self, delay_seconds: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.after(delay_seconds, self._go_on)

    def _missing(self, waiting: Sequence[Slot]) -> set[Role]:
        """Return the roles of which somebody is wanted, and nobody is there."""
        return {slot.role for slot in waiting} - {slot.role for slot in self._slots() if slot.process is not None}
