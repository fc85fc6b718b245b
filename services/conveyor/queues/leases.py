"""Who does what: the chunks that wait, the leases on them, and what becomes of both when a consumer dies. Pure.

A lease is some consecutive tasks of one chunk in the hands of one consumer. It is owned by a live process, not by a
clock: only a death, or the consumer itself, gives it back. A consumer does its leases in the order in which it was
given them, and reports on each before it begins the next; its row of the ledger counts the tasks that it has behind
it. So one number tells which tasks of a dead consumer are done, and the next one was in its hands. A task that raises
ends its lease.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conveyor.ledger import Closed
from conveyor.queues.codec import Codec
from conveyor.queues.pace import LEASE_NS, Pace
from conveyor.queues.retries import Retries

# A second lease is sent ahead while tasks are fast, so that no consumer waits for us between two; more than two only
# if all together are few tasks.
AHEAD_LEASES = 2
AHEAD_TASKS = 32
OWN_ARENA = 0  # the number of the queue's own; producers' have others
_TASKS = operator.attrgetter("tasks")


@dataclass(slots=True, eq=False)
class StoredChunk:
    """A chunk that was accepted, and lies in an arena until all of it is done."""

    arena: int
    """Whose memory it lies in: its producer's, or the queue's own."""
    number: int
    """Its producer's for it."""
    codec: Codec
    count: int
    offset: int
    size: int
    offered_ns: int
    left: int
    """Tasks that are not done."""
    is_freed: bool = False
    attempts: dict[int, int] | None = None
    """Deliveries that ended in a death, by the place of the task."""
    failures: dict[int, int] | None = None
    """Attempts that raised, by the place of the task."""
    account: int = 0
    """Whose credit it counts against while it waits."""
    key: int = 0
    """Its number in the spool; 0 without one."""
    done: list[tuple[int, int]] = field(default_factory=list)
    """With a spool, the places that are over, as (first, last)."""


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive tasks of a chunk: from `first` up to, not with, `last`."""

    chunk: StoredChunk
    first: int
    last: int
    tasks: int = field(init=False)

    def __post_init__(self) -> None:
        self.tasks = self.last - self.first


@dataclass(slots=True, eq=False)
class Lease:
    """A span in the hands of a consumer."""

    number: int
    span: Span
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """The task that a dead consumer had in hand: given up, or to be done by another."""

    span: Span
    attempt: int
    is_dead_letter: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that raised: it waits for its next attempt, or has failed for good."""

    span: Span
    failures: int
    is_final: bool


@dataclass(slots=True)
class Returned:
    """What comes back from a consumer, with a report or by its death."""

    done: list[Span] = field(default_factory=list)
    """What needs no other consumer any more."""
    again: list[Span] = field(default_factory=list)
    """What waits again, at once."""
    failed: Failed | None = None
    suspect: Suspect | None = None


@dataclass(slots=True, eq=False)
class Holder:
    """A consumer process that is ready, and what it holds."""

    slot: int
    leases: deque[Lease] = field(default_factory=deque)
    tasks: int = 0
    is_isolated: bool = False
    """It holds a suspect, and gets nothing beside it."""


class Leases:
    """All chunks and leases of a queue. Time, as nanoseconds, and what happened are arguments."""

    def __init__(self, max_attempts: int, pace: Pace, retries: Retries) -> None:
        self._max_attempts = max_attempts
        self._pace = pace
        self._retries = retries
        self._delayed: list[tuple[int, int, Span]] = []  # a heap, by the time at which they are due
        self._order = itertools.count()
        self._waiting: deque[Span] = deque()
        self._suspects: deque[Span] = deque()
        self._holders: dict[int, Holder] = {}
        self._numbers: dict[int, int] = {}
        self._idle: dict[int, Holder] = {}  # as ordered sets: who has waited longest comes first
        self._hungry: dict[int, Holder] = {}
        self._leaving: set[int] = set()
        """Slots whose process gets nothing more."""
        self._held_tasks = 0
        self.waiting_tasks = 0
        """Tasks that nobody holds, and that are due."""

    @property
    def is_empty(self) -> bool:
        return not self.waiting_tasks and not self._delayed

    @property
    def delayed_tasks(self) -> int:
        """Tasks whose next attempt is not due."""
        return len(self._delayed)

    def accept(self, chunk: StoredChunk, done: Sequence[tuple[int, int]] = ()) -> None:
        """Take in a new chunk, but for those of its tasks that are done: some (first, last), in order."""
        edges = [0, *itertools.chain.from_iterable(done), chunk.count]
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if first < last:
                self._accept(Span(chunk, first, last))

    def _accept(self, span: Span) -> None:
        """Take in a part of a chunk, with those of its tasks apart that must travel alone."""
        chunk = span.chunk
        alone = sorted({*(chunk.attempts or ()), *(chunk.failures or ())}) if chunk.attempts or chunk.failures else ()
        for place in alone:
            if span.first <= place < span.last:
                if span.first < place:
                    self._append(Span(chunk, span.first, place))
                self._append(Span(chunk, place, place + 1))
                span = Span(chunk, place + 1, span.last)
        if span.tasks:
            self._append(span)

    def _append(self, span: Span) -> None:
        (self._suspects if self._is_suspect(span) else self._waiting).append(span)
        self.waiting_tasks += span.tasks

    def join(self, slot: int) -> None:
        """Take in a consumer that is ready."""
        holder = self._holders[slot] = Holder(slot)
        self._rank(holder)

    @property
    def oldest_ns(self) -> int | None:
        """The time at which the first of the tasks that wait, and are due, was offered. Safe from any thread."""
        seen = [span.chunk.offered_ns for waiting in (self._waiting, self._suspects) for span in _first(waiting)]
        return min(seen, default=None)

    def retire(self, slot: int) -> None:
        """Give nothing more to the process in the slot, ready or not, until it is buried."""
        self._leaving.add(slot)
        self._idle.pop(slot, None)
        self._hungry.pop(slot, None)

    # -- giving --------------------------------------------------------------------------------------------

    @property
    def next_due_ns(self) -> int | None:
        """The time at which the next task is due whose attempt was put off."""
        return self._delayed[0][0] if self._delayed else None

    def ripen(self, now_ns: int) -> list[Span]:
        """Have those wait whose time has come; return them."""
        ripe = []
        while self._delayed and self._delayed[0][0] <= now_ns:
            span = heapq.heappop(self._delayed)[2]
            self._take_back(span)
            ripe.append(span)
        return ripe

    def tries_left(self, span: Span) -> int:
        """Return how often a task of the span that raises is tried again."""
        failures = span.chunk.failures
        return self._retries.left(failures.get(span.first, 0) if failures and span.tasks == 1 else 0)

    @property
    def may_grant(self) -> bool:
        """Return whether there is something to give, and somebody who can take it."""
        return bool((self._waiting or self._suspects) and (self._idle or self._hungry))

    @property
    def may_want(self) -> bool:
        """Return whether somebody could take more than there is."""
        return bool(self._idle or self._hungry) and not self._waiting

    def grants(self, now_ns: int) -> Iterator[tuple[int, Lease]]:
        """Yield (slot, lease) for all that can be given out now."""
        while self._suspects and self._idle:
            holder = next(iter(self._idle.values()))
            holder.is_isolated = True
            yield holder.slot, self._give(holder, self._suspects.popleft(), now_ns)
        while self._waiting:
            if self._idle:
                holder = next(iter(self._idle.values()))
            elif self._hungry and not self._suspects:  # one of them must get idle first
                holder = min(self._hungry.values(), key=_TASKS)
            else:
                return
            span = self._waiting.popleft()
            most = self._pace.lease(self.waiting_tasks, len(self._holders))
            if span.tasks > most:
                self._waiting.appendleft(Span(span.chunk, span.first + most, span.last))
                span = Span(span.chunk, span.first, span.first + most)
            yield holder.slot, self._give(holder, span, now_ns)

    def _give(self, holder: Holder, span: Span, now_ns: int) -> Lease:
        number = self._numbers[holder.slot] = self._numbers.get(holder.slot, 0) + 1
        lease = Lease(number, span, now_ns)
        holder.leases.append(lease)
        holder.tasks += span.tasks
        self._held_tasks += span.tasks
        self.waiting_tasks -= span.tasks
        self._rank(holder)
        return lease

    def _rank(self, holder: Holder) -> None:
        """Put a consumer among those that have nothing, that may have more, or neither."""
        slot = holder.slot
        self._idle.pop(slot, None)
        self._hungry.pop(slot, None)
        if slot in self._leaving:
            return
        if not holder.leases:
            holder.is_isolated = False
            self._idle[slot] = holder
        elif not holder.is_isolated:
            few = len(holder.leases) < AHEAD_LEASES or holder.tasks < AHEAD_TASKS
            if few and holder.tasks < self._pace.ahead_tasks:
                self._hungry[slot] = holder

    # -- taking back ---------------------------------------------------------------------------------------

    def report(self, slot: int, number: int, closed: Closed, now_ns: int) -> Returned | None:
        """Take in a consumer's word on its first lease; None if it has no such lease."""
        holder = self._holders.get(slot)
        if holder is None or not holder.leases or holder.leases[0].number != number:
            return None
        back = Returned()
        span = holder.leases.popleft().span
        holder.tasks -= span.tasks
        self._held_tasks -= span.tasks
        first = self._conclude(span, closed, back, now_ns)
        if first < span.last:
            self._take_back(Span(span.chunk, first, span.last))
            back.again.append(Span(span.chunk, first, span.last))
        self._rank(holder)
        return back

    def first_number(self, slot: int) -> int:
        """Return the number of the lease that a consumer is in, or takes up next; 0 if it holds none."""
        holder = self._holders.get(slot)
        return holder.leases[0].number if holder is not None and holder.leases else 0

    def bury(self, slot: int, closed: Closed, is_in_task: bool, now_ns: int) -> Returned:
        """Take everything back from a dead consumer: all but what its first lease came to.

        Only that one can have been begun. `is_in_task`: it died in the task behind those.
        """
        self._leaving.discard(slot)
        back, holder = Returned(), self._holders.pop(slot, None)
        if holder is None:
            return back
        self._idle.pop(slot, None)
        self._hungry.pop(slot, None)
        self._held_tasks -= holder.tasks
        for lease in holder.leases:
            span, first = lease.span, lease.span.first
            if lease is holder.leases[0]:
                first = self._conclude(span, closed, back, now_ns)
                if is_in_task and first < span.last:
                    self._abandon(Span(span.chunk, first, first + 1), back)
                    first += 1
            if first < span.last:
                back.again.append(Span(span.chunk, first, span.last))
        for span in reversed(back.again):
            self._take_back(span)
        return back

    def _abandon(self, span: Span, back: Returned) -> None:
        """Count an attempt at the task that a dead consumer had in hand, and give it up after the last one allowed."""
        chunk, place = span.chunk, span.first
        if chunk.attempts is None:
            chunk.attempts = {}
        attempt = chunk.attempts[place] = chunk.attempts.get(place, 0) + 1
        back.suspect = Suspect(span, attempt, attempt >= self._max_attempts)
        if back.suspect.is_dead_letter:
            self._finish(span, back)
        else:  # behind the other suspects: the innocent among them are done first
            self._suspects.append(span)
            self.waiting_tasks += 1

    def _conclude(self, span: Span, closed: Closed, back: Returned, now_ns: int) -> int:
        """Take note of what a lease of a span came to; return the place of its first task that was not begun."""
        first = span.first + min(closed.done, span.tasks)
        if first > span.first:
            self._finish(Span(span.chunk, span.first, first), back)
        if closed.flaw and first < span.last:
            back.failed = self._fail(Span(span.chunk, first, first + 1), now_ns)
            first += 1
            if back.failed.is_final:
                self._finish(back.failed.span, back)
        return first

    def _finish(self, span: Span, back: Returned) -> None:
        span.chunk.left -= span.tasks
        back.done.append(span)

    def _fail(self, span: Span, now_ns: int) -> Failed:
        """Count a failure of a task; unless it was the last allowed, its next attempt is put off."""
        chunk = span.chunk
        if chunk.failures is None:
            chunk.failures = {}
        failures = chunk.failures[span.first] = chunk.failures.get(span.first, 0) + 1
        is_final = not self._retries.left(failures - 1)
        if not is_final:
            due_ns = now_ns + self._retries.delay_ns(failures)
            heapq.heappush(self._delayed, (due_ns, next(self._order), span))
        return Failed(span, failures, is_final)

    def _is_suspect(self, span: Span) -> bool:
        # A suspect is never part of a longer span. It stays one if its next consumer has not even begun with it.
        return span.tasks == 1 and span.first in (span.chunk.attempts or ())

    def _take_back(self, span: Span) -> None:
        (self._suspects if self._is_suspect(span) else self._waiting).appendleft(span)
        self.waiting_tasks += span.tasks

    # -- one slow task delays nothing but itself -----------------------------------------------------------

    @property
    def may_be_overdue(self) -> bool:
        """Return whether somebody has nothing to do while another holds tasks."""
        return bool(self._idle) and not self._waiting and bool(self._held_tasks)

    def overdue(self, now_ns: int) -> list[Holder]:
        """Return the consumers that have been on their first lease for too long, if others idle."""
        if not self.may_be_overdue:
            return []
        return [
            holder
            for holder in self._holders.values()
            if holder.leases and now_ns - holder.leases[0].sent_ns > LEASE_NS
        ]

    def cut(self, slot: int, number: int, tasks: int) -> list[Span]:
        """Take back all but the first tasks of a consumer's first lease; return what waits again.

        The consumer must be sure not to do them.
        """
        holder = self._holders.get(slot)
        if holder is None or not holder.leases or holder.leases[0].number != number:
            return []
        first = holder.leases[0].span
        again = [lease.span for lease in list(holder.leases)[1:]]
        while len(holder.leases) > 1:
            holder.leases.pop()
        if tasks < first.tasks:
            again.insert(0, Span(first.chunk, first.first + tasks, first.last))
            first.last, first.tasks = first.first + tasks, tasks
        for span in reversed(again):
            self._take_back(span)
            self._held_tasks -= span.tasks
        holder.tasks = first.tasks
        self._hungry.pop(slot, None)
        return again

    def last_number(self, slot: int) -> int:
        """Return the number of the last lease that was given to the slot."""
        return self._numbers.get(slot, 0)


def _first(waiting: deque[Span]) -> list[Span]:
    try:
        return [waiting[0]]
    except IndexError:
        return []
