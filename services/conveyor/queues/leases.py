"""Who does what: the chunks that wait, the leases on them, and what becomes of both when a consumer dies. Pure.

A lease is some consecutive tasks of one chunk in the hands of one consumer. It is owned by a live process, not by a
clock: only a death, or the consumer itself, gives it back. A consumer does its leases in the order in which it was
given them, and its row of the ledger counts its finished tasks: so this count alone tells which of its tasks are
done, and the next one is in its hands.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from conveyor.queues.codec import Codec
from conveyor.queues.pace import LEASE_NS, Pace

# A second lease is sent ahead while tasks are fast, so that no consumer waits for us between two; more than two only
# if all together are few tasks.
AHEAD_LEASES = 2
AHEAD_TASKS = 32
_TASKS = operator.attrgetter("tasks")


@dataclass(slots=True, eq=False)
class StoredChunk:
    """A chunk that was accepted, and lies in its producer's arena until all of it is done."""

    arena: int
    number: int
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
    """The task that a dead consumer had in hand."""

    chunk: StoredChunk
    place: int
    attempt: int
    is_dead_letter: bool


@dataclass(slots=True, eq=False)
class Holder:
    """A consumer process that is ready, and what it holds."""

    slot: int
    finished: int
    """Its row's count of finished tasks before the first of its leases."""
    leases: deque[Lease] = field(default_factory=deque)
    tasks: int = 0
    is_isolated: bool = False
    """It holds a suspect, and gets nothing beside it."""


class Leases:
    """All chunks and leases of a queue. Time, as nanoseconds, and what happened are arguments."""

    def __init__(self, max_attempts: int, pace: Pace) -> None:
        self._max_attempts = max_attempts
        self._pace = pace
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
        """Tasks that nobody holds."""

    @property
    def is_empty(self) -> bool:
        return not self.waiting_tasks

    def accept(self, chunk: StoredChunk) -> None:
        """Take in a new chunk."""
        self._waiting.append(Span(chunk, 0, chunk.count))
        self.waiting_tasks += chunk.count

    def join(self, slot: int, finished: int) -> None:
        """Take in a consumer that is ready; its row says that the slot has finished so many tasks."""
        holder = self._holders[slot] = Holder(slot, finished)
        self._rank(holder)

    def retire(self, slot: int) -> None:
        """Give nothing more to the process in the slot, ready or not, until it is buried."""
        self._leaving.add(slot)
        self._idle.pop(slot, None)
        self._hungry.pop(slot, None)

    # -- giving --------------------------------------------------------------------------------------------

    @property
    def may_grant(self) -> bool:
        """Return whether there is something to give, and somebody who can take it."""
        return bool((self._waiting or self._suspects) and (self._idle or self._hungry))

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

    def report(self, slot: int, number: int, done: int) -> tuple[Span, int] | None:
        """Take in a consumer's word on its first lease; None if it has no such lease.

        Return what it did of it, and how many tasks it has handed back.
        """
        holder = self._holders.get(slot)
        if holder is None or not holder.leases or holder.leases[0].number != number:
            return None
        span = holder.leases.popleft().span
        done = min(done, span.tasks)
        holder.tasks -= span.tasks
        self._held_tasks -= span.tasks
        holder.finished += done
        if done < span.tasks:
            self._take_back(Span(span.chunk, span.first + done, span.last))
        span.chunk.left -= done
        self._rank(holder)
        return Span(span.chunk, span.first, span.first + done), span.tasks - done

    def bury(self, slot: int, finished: int, in_hand: int) -> tuple[list[Span], list[Span], Suspect | None]:
        """Take everything back from a dead consumer.

        Its row says how many tasks it had finished, and the number of the lease of which it had one in hand, or 0.
        Return what needs no other consumer any more, what waits again, and the task that it had in hand.
        """
        self._leaving.discard(slot)
        holder = self._holders.pop(slot, None)
        if holder is None:
            return [], [], None
        self._idle.pop(slot, None)
        self._hungry.pop(slot, None)
        self._held_tasks -= holder.tasks
        done, again, suspect = list[Span](), list[Span](), None
        count = finished - holder.finished
        for lease in holder.leases:
            span = lease.span
            here = min(count, span.tasks)
            count -= here
            if here:
                span.chunk.left -= here
                done.append(Span(span.chunk, span.first, span.first + here))
            first = span.first + here
            if lease.number == in_hand and first < span.last:
                suspect = self._suspect(span.chunk, first)
                first += 1
                if suspect.is_dead_letter:
                    span.chunk.left -= 1
                    done.append(Span(span.chunk, first - 1, first))
                else:
                    self._suspects.append(Span(span.chunk, first - 1, first))
                    self.waiting_tasks += 1
                    again.append(Span(span.chunk, first - 1, first))
            if first < span.last:
                again.append(Span(span.chunk, first, span.last))
        for span in reversed(again):
            if not (suspect and span.chunk is suspect.chunk and span.first == suspect.place):
                self._take_back(span)
        return done, again, suspect

    def _suspect(self, chunk: StoredChunk, place: int) -> Suspect:
        if chunk.attempts is None:
            chunk.attempts = {}
        attempt = chunk.attempts[place] = chunk.attempts.get(place, 0) + 1
        return Suspect(chunk, place, attempt, attempt >= self._max_attempts)

    def _take_back(self, span: Span) -> None:
        # A suspect is never part of a longer span. It stays one if its next consumer has not even begun with it.
        is_suspect = span.tasks == 1 and span.first in (span.chunk.attempts or ())
        (self._suspects if is_suspect else self._waiting).appendleft(span)
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
