"""What a drop-in queue holds: the items that wait, who has which, and how many are unfinished. Pure.

A holder is a process that gets. It is sent more items than it asked for while it is fast; those of them that it has
not taken still count as waiting, and are called back when somebody else has nothing. What it has taken is its own
until it says *done*. Its items are numbered from 1 in the order in which they were sent, so three numbers tell nearly
all: `granted >= taken >= done`. Up to `done` all are finished, but for those that are *kept*.

A mark without a name says that an item is done, and not which: `task_done` has no argument. It counts at once. An item
is given up for it only when it is certain, or as good as certain, to be done; at a death, all that may be unfinished
come back.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from conveyor.dropin.runs import Run

BUDGET_NS: Final = 1_000_000  # a holder is sent about so much work ahead
MAX_BATCH: Final = 1024  # items; arbitrary, for the time that others wait while we divide
NO_BOUND: Final = 1 << 62
MAX_BYTES: Final = 1 << 18  # of one message: less than a socket takes, and enough to go on with


class Holder:
    """One process that gets, and what it has."""

    __slots__ = ("batch", "done", "gaps", "granted", "has_asked", "kept", "runs", "sent", "sent_ns", "taken", "unnamed")

    def __init__(self) -> None:
        self.runs: deque[Run] = deque()  # the items from `done` to `granted`, without those that have left
        self.kept: dict[int, Run] = {}
        """Items that are not finished, by number, each in a run of its own; out of the way of `done`."""
        self.gaps: set[int] = set()
        """Numbers above `done` of items that were kept or have been returned."""
        self.granted = 0
        self.taken = 0
        self.done = 0
        self.unnamed = 0
        """How many of its items it has finished without saying which; fewer than it has."""
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
        self._unnamed = 0  # of all holders
        self._foreign = 0  # marks by processes that held nothing, for an item of another one, or for one yet to come

    @property
    def size(self) -> int:
        """Return how many items wait: `qsize()`."""
        return self.waiting_items + self.untaken_items

    @property
    def unfinished(self) -> int:
        return max(0, self._accepted - self._finished - self._unnamed - self._foreign)

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
        self.advance(number, taken, holder.done)
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
        before = holder.granted
        for run in runs:
            run.number = holder.granted + 1
            holder.granted += run.count
        count = holder.granted - before
        holder.runs.extend(runs)
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
        done = min(done, holder.granted)
        passed = done - holder.done
        if passed > 0:
            holder.done = done
            found = _drop(holder.runs, done)
            self._finish(found)
            if found != passed:
                self._close_gaps(holder, passed - found)
        if self._foreign:
            self._name_the_overtaken()

    def _close_gaps(self, holder: Holder, missing: int) -> None:
        """Find out why `done` has passed items that are not there."""
        passed = {number for number in holder.gaps if number <= holder.done}
        holder.gaps -= passed
        self._foreign += missing - len(passed)  # somebody else's mark was taken for these: it is for another item then

    def keep(self, number: int, first: int, last: int) -> None:
        """Take note that items are unfinished, which `done` passes."""
        holder = self.holders[number]
        for run in self._take_out(holder, first, last):
            while run.count:
                one = run.first(1, NO_BOUND)
                holder.kept[one.number] = one

    def finish(self, number: int, first: int, last: int) -> None:
        """Take note that items are finished which were kept."""
        holder = self.holders[number]
        for item in range(first, last + 1):
            if holder.kept.pop(item, None):
                self._finish(1)
            else:
                self._foreign += 1  # another mark was taken for it: that one is for another item then

    def return_items(self, number: int, first: int, last: int) -> None:
        """Put back items that were taken, and that their holder has not got."""
        holder = self.holders[number]
        back = deque(holder.kept.pop(item) for item in range(first, last + 1) if item in holder.kept)
        back += self._take_out(holder, first, last)
        self._put_back(back, sum(run.count for run in back))

    def say_unnamed(self, number: int, count: int) -> None:
        """Take note of how many items a holder has finished without saying which."""
        holder = self.holders[number]
        self._unnamed += count - holder.unnamed
        holder.unnamed = count

    def _take_out(self, holder: Holder, first: int, last: int) -> deque[Run]:
        found = _cut(holder.runs, first, last)
        for run in found:
            holder.gaps.update(range(run.number, run.number + run.count))
        return found

    def finish_for_another(self) -> bool:
        """Mark an item as done that the caller does not hold; return False if none is unfinished."""
        if not self.unfinished:
            return False
        self._foreign += 1
        self._name_the_overtaken()
        return True

    def _name_the_overtaken(self) -> None:
        """Let the marks for others' items be for those after which their holder has taken another one.

        A holder's last item stays unfinished as long as it may be: it is the one that it is most likely busy with.
        """
        for holder in self.holders.values():
            while self._foreign and holder.runs and holder.runs[0].number < holder.taken:
                self._foreign -= 1
                holder.runs[0].first(1, NO_BOUND)
                if not holder.runs[0].count:
                    holder.runs.popleft()
                self._finish(1)

    def _finish(self, count: int) -> None:
        self._finished = min(self._finished + count, self._accepted)

    # -- taking back ---------------------------------------------------------------------------------------

    def recall(self, number: int) -> int:
        """Take back what a holder has not taken, and is sure not to take; return how many items these are."""
        holder = self.holders[number]
        count = holder.granted - holder.taken
        if count:
            back = _cut(holder.runs, holder.taken + 1, holder.granted)
            holder.granted = holder.taken
            self.untaken_items -= count
            self._put_back(back, count)
        return count

    def bury(self, number: int) -> int:
        """Take back all that a dead process had and had not done; return how many items these are."""
        untaken = self.recall(number)
        holder = self.holders.pop(number)
        self._askers -= holder.has_asked
        self._unnamed -= holder.unnamed
        back = deque([*holder.kept.values(), *holder.runs])
        count = sum(run.count for run in back)
        if holder.unnamed >= count or self._is_marked(count):
            self._finish(count)
            return untaken
        self._put_back(back, count)
        return untaken + count

    def _is_marked(self, count: int) -> bool:
        """Return whether all of a dead process's items are done, as others have said so often enough."""
        others = (
            sum(
                len(holder.kept) + sum(run.count for run in holder.runs if run.number <= holder.taken)
                for holder in self.holders.values()
            )
            if self._foreign
            else 0
        )
        marks = min(count, max(0, self._foreign - others))
        self._foreign -= marks  # where these are only some of its items, all come again, and so do their marks
        return marks == count

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


def _cut(runs: deque[Run], first: int, last: int) -> deque[Run]:
    """Cut out and return the items with these numbers, as far as they are there."""
    cut, before = deque[Run](), deque[Run]()
    while runs and runs[0].number <= last:
        run = runs[0]
        if run.number < first:
            before.append(run.first(first - run.number, NO_BOUND))
        else:
            cut.append(run.first(last + 1 - run.number, NO_BOUND))
        if not run.count:
            runs.popleft()
    runs.extendleft(reversed(before))
    return cut


def _drop(runs: deque[Run], done: int) -> int:
    """Cut off the items up to that number; return how many there were."""
    found = 0
    while runs and runs[0].number <= done:
        run = runs[0]
        if run.number + run.count - 1 <= done:  # mostly whole runs, which need not be read
            found += run.count
            runs.popleft()
        else:
            found += run.first(done + 1 - run.number, NO_BOUND).count
    return found


def _place(run: Run) -> int:
    return run.place
