"""The consumers of a run: how many there are to be, and which slots they fill. It changes while the run goes on.

Used by the supervisor, in its loop. A slot that is not needed any more keeps its row and its counts, so that no total
ever falls; its process leaves after the task that it is in. When more are wanted, such slots are filled first, the
lowest number first, then new ones are made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from conveyor.errors import ConfigurationError
from conveyor.logs import fields
from conveyor.roster import Roster
from conveyor.scaling import Autoscaler, Bounds, Load
from conveyor.slot import Slot
from conveyor.snapshot import Role, RunStatistics, Scaling

log = logging.getLogger(__name__)


class Crew:
    """The consumer slots of a roster, their number between bounds."""

    def __init__(self, roster: Roster, bounds: Bounds, new_slot: Callable[[int], Slot]) -> None:
        """`new_slot` makes the nth consumer's slot, counted from 1."""
        self.bounds = bounds
        self.scalings = dict.fromkeys(Scaling, 0)
        """How often consumers were added, or taken away."""
        self._roster = roster
        self._new_slot = new_slot
        self._autoscaler = Autoscaler()

    @property
    def wanted(self) -> list[Slot]:
        """The slots that are to hold a process, the lowest number first."""
        return [slot for slot in self._roster.consumers if slot.is_wanted]

    def rebound(self, bounds: Bounds) -> list[Slot]:
        """Have another number of consumers from now on, or other bounds for it; return the slots to fill.

        Raises `ConfigurationError` if one of them could not have a name of its own; then nothing has changed.
        """
        number = min(max(len(self.wanted), bounds.least), bounds.most)
        self._new_slots(bounds.most)
        self.bounds = bounds
        self._autoscaler.forget()
        return self._resize(number)

    def follow(self, look: Callable[[], RunStatistics]) -> list[Slot]:
        """Have as many as the load asks for; return the slots to fill.

        To be called a few times a second, while the queue is not paused.
        """
        if self.bounds.least == self.bounds.most:
            return []
        run = look()
        consumers = [slot for slot in run.slots if slot.role is Role.CONSUMER]
        load = Load(
            consumers=len(self.wanted),
            backlog=run.queue.waiting - run.queue.delayed,
            put=run.total("produced"),
            done=run.total("processed"),
            busy_seconds=sum(slot.busy_seconds for slot in consumers),
            producers=run.desired[Role.PRODUCER],
            blocked_seconds=sum(slot.blocked_seconds for slot in run.slots),
        )
        number = self._autoscaler.look(time.monotonic(), load, self.bounds)
        return self._resize(number)

    def rest(self) -> None:
        """Forget the load that was: it says nothing of what comes after a pause."""
        self._autoscaler.forget()

    def _new_slots(self, number: int) -> list[Slot]:
        """Return the slots that are missing for so many consumers."""
        made = [self._new_slot(n) for n in range(len(self._roster.consumers) + 1, number + 1)]
        names = {slot.name for slot in self._roster.slots}
        for slot in made:
            if slot.name in names or not slot.name or not slot.name.isprintable():
                raise ConfigurationError(f"a consumer more would be called {slot.name!r}, which is no name of its own")
            names.add(slot.name)
        return made

    def _resize(self, number: int) -> list[Slot]:
        """Want so many consumers; return the slots that are to be filled for that."""
        wanted = self.wanted
        if number == len(wanted):
            return []
        direction = Scaling.UP if number > len(wanted) else Scaling.DOWN
        self.scalings[direction] += 1
        log.info("consumers scaled", extra=fields(before=len(wanted), after=number))
        for slot in wanted[number:]:
            slot.retire()
        spare = [slot for slot in self._roster.consumers if slot not in wanted]
        engaged = spare[: max(0, number - len(wanted))]
        for slot in engaged:
            slot.engage()
        new = self._new_slots(number)
        self._roster.add(new)
        # Those that have not left yet leave first, and are replaced then.
        return [slot for slot in (*engaged, *new) if slot.process is None]
