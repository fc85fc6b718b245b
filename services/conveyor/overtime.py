"""Who is in one task for longer than a task may take: pure, with the time and what the rows say as arguments.

A row tells since when a task runs, but of fast tasks only since when a stride of them does. So the time of a task
counts from when it was first seen in hand: it may get a little longer than it should, by the time between two looks,
and never has to answer for the tasks before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from conveyor.ledger import NANOSECONDS

# Between two looks. We were stopped ourselves, perhaps with all others: a paused container, a debugger.
MAX_LOOK_GAP_NS = 1_000_000_000
# From SIGTERM to SIGKILL: time for the stack to be written, or for a handler of the user's own to tidy up.
GRACE_NS = 1_000_000_000


class Hand(NamedTuple):
    """A task in hand, known by the process and by how many its slot had finished before it."""

    pid: int
    finished: int


class Verdicts(NamedTuple):
    """What is to be done, by slot."""

    end: list[str]
    """Ask these to end: they have just run out of time."""
    kill: list[str]
    """These were asked and are still in that task."""
    pardon: list[str]
    """These were asked, and have come out of that task meanwhile."""


class Overtime:
    """Watches the tasks in hand."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_ns = int(timeout_seconds * NANOSECONDS)
        self._since: dict[str, tuple[Hand, int]] = {}
        """By slot: the task in hand, and since when its time counts."""
        self._asked: dict[str, tuple[Hand, int]] = {}
        """By slot: the task in which it ran out of time, and when it was asked to end."""
        self._looked_at_ns = 0

    def look(self, now_ns: int, hands: Mapping[str, Hand]) -> Verdicts:
        """Return what must be done now, given who has which task in hand. To be called several times a second."""
        was_away = now_ns - self._looked_at_ns > MAX_LOOK_GAP_NS
        self._looked_at_ns = now_ns
        before = {} if was_away else self._since
        self._since = {
            slot: before[slot] if slot in before and before[slot][0] == hand else (hand, now_ns)
            for slot, hand in hands.items()
        }
        pardon = [slot for slot, (hand, _) in self._asked.items() if hands.get(slot) != hand]
        for slot in pardon:
            del self._asked[slot]
        kill = [slot for slot, (_, asked_ns) in self._asked.items() if now_ns - asked_ns > GRACE_NS]
        end = [
            slot
            for slot, (_, since_ns) in self._since.items()
            if slot not in self._asked and now_ns - since_ns > self._timeout_ns
        ]
        self._asked |= {slot: (hands[slot], now_ns) for slot in end}
        return Verdicts(end, kill, pardon)
