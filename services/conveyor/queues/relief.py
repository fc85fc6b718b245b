"""One slow task delays nothing but itself: who sits on tasks while others are idle is relieved of them.

A consumer that is in a long task, or stopped, cannot hand anything back. So the supervisor takes it, with the help of
a few words in the ledger: the consumer stores that a task is done before it reads whether it may go on, and the
supervisor says that it may not before it reads what is done. One of the two sees the other, and a moment later both
know.

Called in the supervisor's loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence

from conveyor.ledger import Row, Tally
from conveyor.queues.leases import Holder, Leases, Span
from conveyor.queues.seam import Watcher

# How often one who sits on tasks is looked for while others are idle; less and less often while it is in vain.
LOOK_SECONDS, MAX_LOOK_SECONDS = 0.005, 0.25
SETTLE_SECONDS = 0.001  # until what a worker stored is surely seen here, and the other way round: far more than enough


class Relief:
    """Looks for consumers that sit on tasks, and takes these back."""

    def __init__(
        self, leases: Leases, rows: Sequence[Row], loop: Watcher, wait_again: Callable[[Iterable[Span]], None]
    ) -> None:
        """`wait_again` is called with what was taken back."""
        self._leases = leases
        self._rows = rows
        self._loop = loop
        self._wait_again = wait_again
        self._is_looking = False
        self._halted: set[int] = set()
        self._pause_seconds = LOOK_SECONDS

    def look_later(self) -> None:
        """Look soon, if there may be something to see."""
        if self._is_looking:
            return
        if self._leases.may_be_overdue:
            self._is_looking = True
            self._loop.after(self._pause_seconds, self._look)
        else:
            self._pause_seconds = LOOK_SECONDS

    def reported(self, slot: int) -> None:
        """Take note that a consumer has said how far it came."""
        if slot in self._halted:
            self._halted.discard(slot)
            self._rows[slot].relent()

    def _look(self) -> None:
        self._is_looking = False
        for holder in self._leases.overdue(time.monotonic_ns()):
            self._halt(holder)
        self._pause_seconds = min(2 * self._pause_seconds, MAX_LOOK_SECONDS)
        self.look_later()

    def _halt(self, holder: Holder) -> None:
        """Order a consumer to stop after the task that it is in, and look soon whether it obeys."""
        slot, lease = holder.slot, holder.leases[0]
        row = self._rows[slot]
        seen = row.read(0)
        is_open = seen.lease == lease.number
        if seen.lease > lease.number or (is_open and holder.tasks == 1):
            return  # its report is on its way, or there is nothing but the task that it is in
        tasks = _tasks_left_to(row, seen, lease.number)
        last = self._leases.last_number(slot)
        row.void(last)
        row.revoke(lease.number, tasks)
        self._halted.add(slot)
        check = functools.partial(self._cut, slot, lease.number, last, (seen.lease, seen.passed), tasks)
        self._loop.after(SETTLE_SECONDS, check)

    def _cut(self, slot: int, number: int, last: int, seen: tuple[int, int], tasks: int) -> None:
        """Take back all but the first tasks of a consumer's lease, if it has not gone on meanwhile."""
        now = self._rows[slot].read(0)
        if (now.lease, now.passed) == seen and self._leases.last_number(slot) == last:
            again = self._leases.cut(slot, number, tasks)
            if again:
                self._pause_seconds = LOOK_SECONDS
                self._wait_again(again)


def _tasks_left_to(row: Row, seen: Tally, number: int) -> int:
    """Return how many tasks of its first lease a consumer keeps: those that it has behind it, and the one it is in."""
    closed = row.closed(number)
    if closed is not None:  # it does no more of them, but may be stopped before it says so
        return closed.done + bool(closed.flaw)
    return seen.lease_passed + 1 if seen.lease == number else 0
