"""What a drop-in queue holds: the items that wait, who has which, and how many are unfinished. Pure.

A holder is a process that gets. It is sent more items than it asked for while it is fast; those of them that it has
not taken still count as waiting, and are called back when somebody else has nothing. What it has taken is its own
until it says *done*. Its items are numbered from 1 in the order in which they were sent, so three numbers tell all:
`granted >= taken >= done`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from conveyor.dropin.runs import Run

BUDGET_NS: Final = 1_000_000  # a holder is sent about so much work ahead
MAX_BATCH: Final = 1024  # items; arbitrary, for the time that others wait while we divide
MAX_BYTES: Final = 1 << 18  # of one message: less than a socket takes, and enough to go on with


class Holder:
    """One process that gets, and what it has."""

    __slots__ = ("batch", "done", "foreign", "granted", "has_asked", "runs", "sent", "sent_ns", "taken")

    def __init__(self) -> None:
        self.runs: deque[Run] = deque()  # the items from `done` to `granted`
        self.granted = 0
        self.taken = 0
        self.done = 0
        self.foreign = 0
        """Of its items, those that another process has marked as done."""
        self.has_asked = False
        self.batch = 1
        self.sent = 0
        self.sent_ns = 0


class Stock:
    """All items of a queue. Time, as nanoseconds, and what happened are arguments."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.holders: dict[int, Holder] = {}
        self.waiting_items = 0
        """Items that nobody has been sent."""
        self.untaken_items = 0
        """Items that somebody has been sent and has not taken."""
        self.is_shut = False
        self.is_discarding = False
        """Shut down at once: what comes back is not wanted any more."""
        self._waiting: deque[Run] = deque()
        self._accepted = 0
        self._finished = 0
        self._askers = 0
        self._early = 0  # marked as done before anybody took one

    @property
    def size(self) -> int:
        """Return how many items wait: `qsize()`."""
        return self.waiting_items + self.untaken_items

    @property
    def unfinished(self) -> int:
        return max(0, self._accepted - self._finished)

    def join(self, number: int) -> Holder:
        """Take in a new process."""
        holder = self.holders[number] = Holder()
        return holder

    def accept(self, run: Run) -> None:
        """Take in new items."""
        run.place = self._accepted
        self._accepted += run.count
        if self.is_discarding:
            self._finish(run.count)
            return
        self.waiting_items += run.count
        self._waiting.append(run)

    # -- giving --------------------------------------------------------------------------------------------

    def ask(self, number: int, taken: int, now_ns: int) -> None:
        """Take note that a holder has nothing untaken, and how fast it was."""
        holder = self.holders[number]
        if not holder.has_asked:
            holder.has_asked = True
            self._askers += 1
        self.advance(number, taken, holder.done - holder.foreign)
        self.recall(number)
        if holder.sent:
            each_ns = max(1, (now_ns - holder.sent_ns) // holder.sent)
            holder.batch = max(1, min(BUDGET_NS // each_ns, 4 * holder.batch, MAX_BATCH))

    def grant(self, number: int, most: int, now_ns: int) -> list[Run]:
        """Give a holder what it shall have next: items that fit a message, or one parcel. `most` is its own wish."""
        holder = self.holders[number]
        most = max(most, min(holder.batch, -(-self.waiting_items // max(1, self._askers))))
        runs, room = list[Run](), MAX_BYTES
        while self._waiting and most and room > 0:
            run = self._waiting[0]
            if runs and (run.parcel or run.end - run.start > room):
                break
            part = run.first(most, room)
            if not run.count:
                self._waiting.popleft()
            runs.append(part)
            most -= part.count
            room -= part.end - part.start
            if part.parcel:
                break
        count = sum(run.count for run in runs)
        holder.runs.extend(runs)
        holder.granted += count
        holder.sent, holder.sent_ns = count, now_ns
        self.waiting_items -= count
        self.untaken_items += count
        return runs

    # -- what the holders say ------------------------------------------------------------------------------

    def advance(self, number: int, taken: int, done: int) -> None:
        """Take note of how far a holder is."""
        holder = self.holders[number]
        taken = min(taken, holder.granted)
        self.untaken_items -= taken - holder.taken  # may fall by one: a claim that was withdrawn
        holder.taken = taken
        new = min(done + holder.foreign, holder.granted) - holder.done
        if new > 0:
            holder.done += new
            self._finish(new)
            _drop(holder.runs, new)

    def finish_for_another(self) -> bool:
        """Mark an item as done that the caller does not hold; return False if none is unfinished."""
        if not self.unfinished:
            return False
        for number, holder in self.holders.items():
            if holder.taken > holder.done:
                holder.foreign += 1
                self.advance(number, holder.taken, holder.done - holder.foreign + 1)
                return True
        self._early += 1
        self._finish(1)
        return True

    def _finish(self, count: int) -> None:
        self._finished = min(self._finished + count, self._accepted)

    # -- taking back ---------------------------------------------------------------------------------------

    def recall(self, number: int) -> None:
        """Take back what a holder has not taken, and is sure not to take."""
        holder = self.holders[number]
        count = holder.granted - holder.taken
        if not count:
            return
        kept = _first(holder.runs, holder.taken - holder.done)
        back, holder.runs = holder.runs, kept
        holder.granted = holder.taken
        self.untaken_items -= count
        self._put_back(back, count)

    def bury(self, number: int) -> int:
        """Take back all that a dead process had and had not done; return how many items these are."""
        holder = self.holders.pop(number)
        self._askers -= holder.has_asked
        self.untaken_items -= holder.granted - holder.taken
        count = holder.granted - holder.done
        forgiven = min(self._early, count)  # marked as done by somebody, before
        if forgiven:
            self._early -= forgiven
            _drop(holder.runs, forgiven)
        self._put_back(holder.runs, count - forgiven)
        return count - forgiven

    def _put_back(self, runs: deque[Run], count: int) -> None:
        if self.is_discarding:
            self._finish(count)
            return
        waiting = self._waiting
        before = deque[Run]()
        for run in sorted(runs, key=_place):  # each to where it was: mostly the very front
            while waiting and waiting[0].place < run.place:
                before.append(waiting.popleft())
            before.append(run)
        waiting.extendleft(reversed(before))
        self.waiting_items += count

    def discard(self) -> None:
        """Drop all that waits, now and later: shut down at once."""
        self.is_discarding = True
        self._finish(self.waiting_items)
        self._waiting.clear()
        self.waiting_items = 0


def _first(runs: deque[Run], count: int) -> deque[Run]:
    """Cut off and return the first items."""
    cut: deque[Run] = deque()
    while count:
        part = runs[0].first(count, 1 << 62)
        if not runs[0].count:
            runs.popleft()
        cut.append(part)
        count -= part.count
    return cut


def _drop(runs: deque[Run], count: int) -> None:
    while count and runs[0].count <= count:  # mostly whole runs, which need not be read
        count -= runs.popleft().count
    _first(runs, count)


def _place(run: Run) -> int:
    return run.place
