"""Ends consumers that are in one task for longer than a task may take. `overtime.py` decides who that is.

Called by the supervisor, in its loop. One that is asked to end with a SIGTERM shows its stack and dies, if Python can
still do that; who is deaf, or stopped, is killed a moment later. What becomes of the task is the queue's matter, as
after any other death.
"""

from __future__ import annotations

import logging
import signal
import time

from conveyor.logs import fields
from conveyor.overtime import Hand, Overtime
from conveyor.roster import Roster
from conveyor.slot import Slot

log = logging.getLogger(__name__)

MAX_LOOK_SECONDS = 0.25


class Timekeeper:
    """Watches the consumers of a roster."""

    def __init__(self, roster: Roster, timeout_seconds: float) -> None:
        self._roster = roster
        self._timeout_seconds = timeout_seconds
        self._overtime = Overtime(timeout_seconds)
        self.look_seconds = min(MAX_LOOK_SECONDS, timeout_seconds / 10)
        """How often to look: a tenth of the timeout is as exact as it needs to be."""

    def look(self) -> None:
        """See to those whose time is up."""
        now_ns = time.monotonic_ns()
        slots = {slot.name: slot for slot in self._roster.consumers}
        hands = {name: hand for name, slot in slots.items() if (hand := _hand(slot, now_ns)) is not None}
        verdicts = self._overtime.look(now_ns, hands)
        for name in verdicts.pardon:
            slots[name].pardon()
        for name in verdicts.end:
            about = fields(slot=name, pid=slots[name].pid, timeout_seconds=self._timeout_seconds)
            log.warning("task takes too long: worker is ended", extra=about)
            slots[name].time_out(hands[name].finished)
        for name in verdicts.kill:
            slots[name].signal(signal.SIGKILL)


def _hand(slot: Slot, now_ns: int) -> Hand | None:
    tally = slot.tally(now_ns)
    return Hand(slot.pid, tally.passed) if slot.pid is not None and tally.in_progress else None
