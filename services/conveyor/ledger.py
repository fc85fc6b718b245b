"""WHAT IS COUNTED: a table of 8-byte words in shared memory, one row for each worker slot.

Who writes: the process that fills a slot writes its row, the supervisor the header. Some words of a row are the
supervisor's (`put` under a queue that counts itself, and what it orders); the others are its only while no process
lives in the slot. No word has two writers, so there is no lock. Who reads: the supervisor, and the exporter at each
scrape.

What happens when a writer is SIGKILLed: nothing is lost and nothing is half done, because every fact is
committed by one 8-byte store.

- A task is finished by one store: of the count of tasks that succeeded, or of a bucket of those that failed.
- What a lease came to is noted in one word, a task that ends it by raising included.
- The class of its exception is announced before, in one word that holds the new count of the class and the number of
  failed tasks with which it is valid. It reaches the table of classes when the next one is announced.
- Succeeded tasks reach their histogram after that, fast ones a stride at a time. Until then a reader counts them in
  the last bucket: so the histogram's count is always the number of finished tasks, and no bucket ever falls.
- A consumer holds a lease until it has finished as many tasks as `lease_end` says; while it has not, it is in one.
- Busy and blocked time are stopwatches held in one word each, so no reader ever sees half a switch.

Rows belong to slots, not to processes: totals survive a restart and never fall.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, overload

from conveyor.descriptors import Descriptor, new_memory

# Upper edges in seconds, `le` of the two histograms; the last bucket, +Inf, has no edge.
TASK_EDGES_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAIT_EDGES_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0,
)  # fmt: skip
NANOSECONDS = 1_000_000_000
_TASK_EDGES = [int(edge * NANOSECONDS) for edge in TASK_EDGES_SECONDS]
_WAIT_EDGES = [int(edge * NANOSECONDS) for edge in WAIT_EDGES_SECONDS]

# The words of a row. Histograms lie before the counts that they may lag behind; `Row.read` relies on it.
_SUCCEEDED = 0
_FAILED = _SUCCEEDED + len(_TASK_EDGES) + 1
_WAITS = _FAILED + len(_TASK_EDGES) + 1
_DONE = _WAITS + len(_WAIT_EDGES) + 1  # tasks that succeeded
(
    _LEASE_END, _ABANDONED, _LEASE, _HALT, _VOID, _STOP, _PUT, _OFFERED, _STATE, _HEARTBEAT, _TASK_BEGAN,
    _TASK_TIME, _WAIT_TIME, _BUSY, _BLOCKED, _LEAVE, _RETRIED, _BASE,
) = range(_DONE + 1, _DONE + 19)  # fmt: skip
_STAMP = 1  # of the header: the second word; the first is the order
_READ = _BASE + 1  # words of a row that `Row.read` reads; those of error classes and closed leases lie behind
# Failed tasks by the class of their exception: the one that is being counted, then names with their counts.
_ERROR = _READ
_ERRORS = _ERROR + 1
_NAME_WORDS = 5
ERROR_CLASSES = 10  # of each slot that are told apart; the others are the rest of its failed tasks
_ERROR_PLACES = range(_ERRORS, _ERRORS + ERROR_CLASSES * (_NAME_WORDS + 1), _NAME_WORDS + 1)
_ERROR_COUNT, _ERROR_PLACE = 48, 8  # bits of the word for the one that is being counted; the rest says when it is valid
_CLOSED = 128
CLOSED_LEASES = 128  # of each slot that are remembered; far more than a consumer is ever given ahead
WORDS_PER_ROW = _CLOSED + CLOSED_LEASES
_ROW = struct.Struct(f"{_READ}Q")
_TOTALS = (
    *range(_DONE + 1), _ABANDONED, _PUT, _RETRIED, _TASK_TIME, _WAIT_TIME, _BUSY, _BLOCKED,
    *range(_ERROR, _ERROR_PLACES.stop),  # not there in what older versions stored
)  # fmt: skip
_RUNNING = 1 << 63  # the flag of a stopwatch that runs
# Of its other bits: the clock may be younger than the time that was counted, after a restart of the machine.
_TIME = _RUNNING - 1
_WAIT_UNIT = 1000  # nanoseconds: millions of tasks that wait for hours add up to more than a word of them
_HALT_TASKS = 32  # bits of the halt word for the number of tasks; the rest is the lease's number
_LOW = (1 << (64 - _HALT_TASKS)) - 1  # of a lease's number, as much as fits beside them
_CLOSED_DONE = 30  # bits of a closed lease's word for its finished tasks, then two for what ended it
# What the leave word says: stay; leave between two tasks; from here on, be out of time in the task after so many.
_STAY, _LEAVE_NOW, _OUT_OF_TIME = 0, 1, 2


class State(enum.IntEnum):
    """What the process in a slot says of itself."""

    STARTING = 0
    RUNNING = 1
    REPORTING = 2  # telling the queue that a task is done
    STOPPING = 3
    FINISHED = 4  # the last store of a process that leaves because its work is over
    FAILED = 5  # the last store of one that leaves before that
    RECYCLED = 6  # the last store of one that has done, or grown to, as much as one process may: another goes on
    LEFT = 7  # the last store of one that was asked to leave before its work was over


class Order(enum.IntEnum):
    """What the supervisor asks of everybody; the header's first word."""

    WORK = 0
    STOP_PRODUCING = 1
    STOP = 2


class Flaw(enum.IntEnum):
    """Whether a lease was closed by a task that raised: the one behind those that it finished."""

    NONE = 0
    AGAIN = 1  # it is to be tried again
    FINAL = 2  # it has failed for good


_STATES = tuple(State)  # by number; to call the enum takes longer


class Closed(NamedTuple):
    """What a lease came to: its first `done` tasks went well, and the next one raised if there is a flaw."""

    done: int
    flaw: Flaw


class Tally(NamedTuple):
    """One row, read at one moment. Times in nanoseconds of the monotonic clock."""

    state: State
    put: int
    offered: int
    waits: tuple[int, ...]
    succeeded: tuple[int, ...]
    failures: tuple[int, ...]
    failed: int
    """Tasks that were finished by an exception."""
    processed: int
    """Tasks that were finished, well or badly."""
    retried: int
    """Tasks that raised, and go back to the queue for another attempt."""
    in_progress: int
    """1 while a task is in hand, else 0."""
    abandoned: int
    """Tasks that were in hand when a process of this slot died."""
    lease: int
    lease_passed: int
    """Tasks of it that the consumer has behind it."""
    heartbeat_ns: int
    task_began_ns: int
    task_ns: int
    wait_ns: int
    busy_ns: int
    blocked_ns: int
    is_busy: bool
    is_blocked: bool

    @property
    def started(self) -> int:
        """Tasks whose function was called."""
        return self.passed + self.in_progress + self.abandoned

    @property
    def passed(self) -> int:
        """Tasks that a consumer has behind it: finished, or on their way back."""
        return self.processed + self.retried


class Row:
    """One slot's words. Each method that writes is for the one process in the slot."""

    __slots__ = ("_words", "done", "stop")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self.done = words[_DONE : _DONE + 1]
        """The count of tasks that succeeded, for the loop that stores it after each."""
        self.stop = words[_STOP : _STOP + 1]
        """Not 0 if that loop is to look, after the task that it is in, how far it may go: see `revoke`."""

    # -- written by the worker ---------------------------------------------------------------------------

    def enter(self, state: State, now_ns: int) -> None:
        self._words[_STATE] = state
        self._words[_HEARTBEAT] = now_ns

    def beat(self, now_ns: int) -> None:
        self._words[_HEARTBEAT] = now_ns

    def offer(self) -> None:
        """Say that the next task is on its way; `count_put` follows. In doubt if the process dies between."""
        self._words[_OFFERED] = self._words[_PUT] + 1

    def count_put(self, now_ns: int) -> None:
        self._words[_PUT] += 1
        self._words[_HEARTBEAT] = now_ns

    def open_lease(self, number: int, tasks: int, now_ns: int) -> bool:
        """Take so many tasks in hand, or return False: they were taken back before, or this process is to leave.

        A process that dies from here on was in the first of them that is not finished.
        """
        words = self._words
        passed = self._passed()
        words[_BASE] = (number & _LOW) << _HALT_TASKS | passed & _LOW  # from here it is the last that was opened
        words[_LEASE] = number  # stored before the order is read: see `revoke`
        if number <= words[_VOID] or words[_LEAVE] == _LEAVE_NOW:
            return False
        words[_TASK_BEGAN] = now_ns
        words[_LEASE_END] = passed + words[_ABANDONED] + tasks
        self.resume_busy(now_ns)
        return True

    def allowed(self, number: int, finished: int, tasks: int) -> int:
        """Return how many of the next tasks of the open lease the supervisor lets pass; `finished` are before them."""
        if self._words[_LEAVE] == _LEAVE_NOW:
            return 0
        halt = self._words[_HALT]
        if halt >> _HALT_TASKS != number & _LOW:
            return tasks
        return max(0, min(tasks, (halt & ((1 << _HALT_TASKS) - 1)) - finished))

    def begin_tasks(self, number: int, now_ns: int, waited_ns: int) -> None:
        """Begin with tasks, one after the other from now on, and count so many as having waited so long."""
        words = self._words
        words[_TASK_BEGAN] = words[_HEARTBEAT] = now_ns
        words[_WAITS + bisect_left(_WAIT_EDGES, waited_ns)] += number
        words[_WAIT_TIME] += number * max(0, waited_ns) // _WAIT_UNIT

    def fail_task(self, number: int, done: int, took_ns: int, error: str = "") -> None:
        """Finish a task that raised, and with it the lease, of which so many before it went well.

        `error` is the class of the exception. All notes are made before the count: who dies in between has the task
        still in hand.
        """
        self._note(number, done, Flaw.FINAL)
        self._announce(error)
        self._words[_FAILED + bisect_left(_TASK_EDGES, took_ns)] += 1

    def _announce(self, error: str) -> None:
        """Say for which class of exceptions the next failed task counts; for none, if there is no room for it."""
        words, name = self._words, _name_of(error)
        self._count_announced()
        free = count = 0
        for place in _ERROR_PLACES if error else ():
            count = words[place + _NAME_WORDS]
            if count and bytes(words[place : place + _NAME_WORDS]) == name:
                break
            free = free or (0 if count else place)
        else:
            place, count = free, 0
            if free:  # what stands there, if anything, is the name of a class that never counted
                words[place : place + _NAME_WORDS] = memoryview(name).cast("Q")
        valid_with = self._failed() + 1 & 0xFF
        words[_ERROR] = valid_with << _ERROR_COUNT + _ERROR_PLACE | place << _ERROR_COUNT | count + 1 if place else 0

    def _count_announced(self) -> None:
        """Put into the table what was announced for the last failed task. Twice makes no difference."""
        announced = _announced(self._words[_ERROR], self._failed())
        if announced is not None:
            place, count = announced
            self._words[place + _NAME_WORDS] = count

    def _failed(self) -> int:
        return sum(self._words[_FAILED:_WAITS])

    def give_back_task(self, number: int, done: int) -> None:
        """Have a task that raised done again; otherwise like `fail_task`."""
        self._note(number, done, Flaw.AGAIN)
        self._words[_RETRIED] += 1

    def time_tasks(self, number: int, took_ns: int, *, failed: bool = False) -> None:
        """Put tasks that succeeded into their buckets; they took so long together, with one that failed perhaps."""
        words = self._words
        words[_TASK_TIME] += took_ns
        if number and took_ns > _TASK_EDGES[0] and not failed:
            # So long only for a task that was slower than the others of its stride, or that was alone.
            words[_SUCCEEDED + bisect_left(_TASK_EDGES, took_ns)] += 1
            number -= 1
        if number:
            words[_SUCCEEDED] += number

    def close_lease(self, now_ns: int) -> None:
        """Have nothing in hand any more, whether all of the lease is done or not."""
        words = self._words
        passed = self._passed()
        if not self.closed(words[_LEASE]):
            self._note(words[_LEASE], passed - words[_BASE] & _LOW, Flaw.NONE)
        words[_LEASE_END] = passed + words[_ABANDONED]
        words[_HEARTBEAT] = now_ns
        self.pause_busy(now_ns)

    def _passed(self) -> int:
        words = self._words
        return words[_DONE] + self._failed() + words[_RETRIED]

    def _note(self, number: int, done: int, flaw: Flaw) -> None:
        """Keep what a lease came to, for a supervisor that comes after the death of all: see `outcome`."""
        came_to = flaw << _CLOSED_DONE | done
        # The sum, and not the number alone: so a bit that a disk has changed makes it another lease's note.
        self._words[_CLOSED + number % CLOSED_LEASES] = (number + came_to & _LOW) << _HALT_TASKS | came_to

    def resume_busy(self, now_ns: int) -> None:
        self._resume(_BUSY, now_ns)

    def pause_busy(self, now_ns: int) -> None:
        self._pause(_BUSY, now_ns)

    def resume_blocked(self, now_ns: int) -> None:
        self._resume(_BLOCKED, now_ns)

    def pause_blocked(self, now_ns: int) -> None:
        self._pause(_BLOCKED, now_ns)

    def _resume(self, word: int, now_ns: int) -> None:
        self._words[word] = _RUNNING | (now_ns - self._words[word] & _TIME)

    def _pause(self, word: int, now_ns: int) -> None:
        if self._words[word] & _RUNNING:
            self._words[word] = now_ns - self._words[word] & _TIME

    def release(self) -> None:
        """Make every later store raise `ValueError`: for a child that user code has forked from the worker."""
        self.done.release()
        self.stop.release()
        self._words.release()

    # -- written by the supervisor ------------------------------------------------------------------------

    def accept(self, tasks: int) -> None:
        """Count tasks as put, under a queue that counts them itself when it accepts them."""
        self._words[_PUT] += tasks

    def revoke(self, number: int, tasks: int) -> None:
        """Order a consumer to do no more than so many tasks of the lease.

        It may have gone on while we wrote. Only if, a moment later, `lease` and `processed` still read the same, it is
        certain to stop there: it stores that a task is finished before it reads the order, and we do it the other way
        round.
        """
        self._words[_HALT] = (number & _LOW) << _HALT_TASKS | tasks
        self._words[_STOP] = 1

    def relent(self) -> None:
        """Take back the order to look after each task, but for one who is to leave."""
        self._words[_STOP] = self._words[_LEAVE] == _LEAVE_NOW

    def order_leave(self) -> None:
        """Order a consumer to leave after the task that it is in, with nothing in hand. A SIGTERM ends its wait."""
        self._words[_LEAVE] = _LEAVE_NOW
        self._words[_STOP] = 1

    def time_out(self, finished: int) -> None:
        """Say that the task after so many finished ones has taken too long. The SIGTERM that follows ends the process.

        The number is what makes it safe: should the task end meanwhile, the next one is not meant.
        """
        self._words[_LEAVE] = _OUT_OF_TIME + finished

    def pardon(self, *, leaves: bool) -> None:
        """Take back `time_out`: the task has ended after all. Whether the consumer is to leave is as before."""
        self._words[_LEAVE] = _LEAVE_NOW if leaves else _STAY

    def void(self, number: int) -> None:
        """Order a consumer to pass over every lease up to this one that it has not opened."""
        self._words[_VOID] = number

    # -- written by the supervisor, while no process is in the slot ---------------------------------------

    def settle(self, now_ns: int) -> None:
        """Put in order what a dead process left behind: its watches, and the stride that was under way."""
        self._pause(_BUSY, now_ns)
        self._pause(_BLOCKED, now_ns)
        self._words[_SUCCEEDED] += self._words[_DONE] - sum(self._words[_SUCCEEDED:_FAILED])

    def close_for_dead(self, number: int, closed: Closed) -> None:
        """Note what the open lease of a dead process came to, before the next process opens one; 0 is none."""
        if number:
            self._note(number, *closed)

    def abandon(self) -> None:
        """Count the task that a dead process had in hand as abandoned, and its lease as closed."""
        words = self._words
        words[_LEASE_END] = self._passed() + words[_ABANDONED] + 1
        words[_ABANDONED] += 1  # with this store the task is in hand no more

    def employ(self) -> None:
        """Forget what the process before the next one was ordered."""
        self._words[_LEAVE] = _STAY
        self._words[_STOP] = 0

    def withdraw(self) -> None:
        """Forget the offer that a dead producer left in doubt; the supervisor has noted it."""
        self._words[_OFFERED] = self._words[_PUT]

    def restore(self, words: bytes, put: int) -> None:
        """Go on from the totals that `totals` returned of a row of an earlier run, if any. For a row never used.

        `put` is known better elsewhere: the totals are older, if what was counted since was lost by a power cut.
        """
        if words:
            for index, value in zip(_TOTALS, _unpacked(words), strict=False):
                self._words[index] = value
        self._words[_PUT] = self._words[_OFFERED] = put
        self._words[_LEASE_END] = self._passed() + self._words[_ABANDONED]

    def totals(self) -> bytes:
        """Return what outlives a run, of a row in which nobody is any more."""
        return struct.pack(f"{len(_TOTALS)}Q", *(self._words[index] for index in _TOTALS))

    # -- read by anybody ----------------------------------------------------------------------------------

    @property
    def must_leave(self) -> bool:
        """Whether the supervisor has ordered this consumer to leave between two tasks."""
        return self._words[_LEAVE] == _LEAVE_NOW

    @property
    def is_called(self) -> bool:
        """Whether a SIGTERM to this process alone comes from the supervisor."""
        return self._words[_LEAVE] != _STAY

    @property
    def is_out_of_time(self) -> bool:
        """Whether it is the task in hand now that has taken too long."""
        return self._words[_LEAVE] == _OUT_OF_TIME + self._passed()

    def read(self, now_ns: int) -> Tally:
        """Return the row as it stands. Take `now_ns` before the call: no watch then reads backwards."""
        # Two copies: with the histograms read first, they never hold more than the counts.
        words = _ROW.unpack(bytes(self._words[:_DONE]) + bytes(self._words[_DONE:_READ]))
        busy, blocked = words[_BUSY], words[_BLOCKED]
        fast = words[_SUCCEEDED : _FAILED - 1]
        failures = words[_FAILED:_WAITS]
        failed = sum(failures)
        processed, retried = words[_DONE] + failed, words[_RETRIED]
        lease, lease_passed = _opened(words[_LEASE], words[_BASE], processed + retried)
        return Tally(
            state=_STATES[words[_STATE]],
            put=words[_PUT],
            offered=words[_OFFERED],
            waits=words[_WAITS:_DONE],
            succeeded=(*fast, words[_DONE] - sum(fast)),
            failures=failures,
            failed=failed,
            processed=processed,
            retried=retried,
            in_progress=int(words[_LEASE_END] > processed + retried + words[_ABANDONED]),
            abandoned=words[_ABANDONED],
            lease=lease,
            lease_passed=lease_passed,
            heartbeat_ns=words[_HEARTBEAT],
            task_began_ns=words[_TASK_BEGAN],
            task_ns=words[_TASK_TIME],
            wait_ns=words[_WAIT_TIME] * _WAIT_UNIT,
            busy_ns=_elapsed(busy, now_ns),
            blocked_ns=_elapsed(blocked, now_ns),
            is_busy=bool(busy & _RUNNING),
            is_blocked=bool(blocked & _RUNNING),
        )

    def errors(self) -> dict[str, int]:
        """Return the failed tasks by the class of their exception, for as many classes as there is room for."""
        words = [*self._words[_ERROR : _ERROR_PLACES.stop]]
        announced = _announced(words[0], self._failed())
        if announced is not None:
            place, count = announced
            words[place + _NAME_WORDS - _ERROR] = count
        counts: dict[str, int] = {}
        for place in range(1, len(words), _NAME_WORDS + 1):
            *name, count = words[place : place + _NAME_WORDS + 1]
            if count:
                shown = struct.pack(f"{_NAME_WORDS}Q", *name).rstrip(b"\0").decode("utf-8", "replace")
                counts[shown] = counts.get(shown, 0) + count
        return counts

    def closed(self, number: int) -> Closed | None:
        """Return what is noted of a lease, or None if nothing is."""
        word = self._words[_CLOSED + number % CLOSED_LEASES]
        if not word or (word >> _HALT_TASKS) - word & _LOW != number & _LOW:
            return None
        return Closed(word & ((1 << _CLOSED_DONE) - 1), Flaw(word >> _CLOSED_DONE & 3))

    def outcome(self, number: int) -> Closed:
        """Return what a lease came to, in whose hands nobody is any more: none of it, if it was never opened.

        A note of a task that raised counts only once the task is counted; until then it was in hand.
        """
        noted, words = self.closed(number), self._words
        last, passed = _opened(words[_LEASE], words[_BASE], self._passed())
        if number != last:
            return noted or Closed(0, Flaw.NONE)
        if noted and noted.flaw and passed > noted.done:
            return noted
        return Closed(passed, Flaw.NONE)

    def is_torn(self) -> bool:
        """Return whether no process can have left the row like this. For one that was read from a file."""
        words = self._words
        succeeded = sum(words[_SUCCEEDED:_FAILED])
        is_known = words[_STATE] < len(_STATES) and not any(words[_ERROR_PLACES.stop : _CLOSED])
        place = words[_ERROR] >> _ERROR_COUNT & (1 << _ERROR_PLACE) - 1
        is_known &= not words[_ERROR] or place in _ERROR_PLACES
        by_class = sum(words[place + _NAME_WORDS] for place in _ERROR_PLACES)
        return not is_known or by_class > self._failed() or not 0 <= words[_DONE] - succeeded < 1 << 32

    def convert_notes(self) -> None:
        """Put what is noted of leases as format 1 of the spool had it, the number alone, as it is noted now."""
        for at in range(_CLOSED, WORDS_PER_ROW):
            word = self._words[at]
            if word:
                self._words[at] = ((word >> _HALT_TASKS) + word & _LOW) << _HALT_TASKS | word & _LOW


def processed_in(totals: bytes) -> int:
    """Return the tasks that were finished, of the totals of a row; none if it has none yet."""
    if not totals:
        return 0
    words = _unpacked(totals)
    return sum(words[_FAILED:_WAITS]) + words[_DONE]


def _unpacked(totals: bytes) -> tuple[int, ...]:
    return struct.unpack(f"{len(totals) // 8}Q", totals)


def _name_of(error: str) -> bytes:
    """Return the name of a class as the table has it: of a long one the end, which tells more."""
    name = error.encode("utf-8", "backslashreplace")[-8 * _NAME_WORDS :]
    return name.ljust(8 * _NAME_WORDS, b"\0")


def _announced(word: int, failed: int) -> tuple[int, int] | None:
    """Return the place of a class in the table, and its new count, if the task for it is among the failed ones."""
    if not word or word >> _ERROR_COUNT + _ERROR_PLACE != failed & 0xFF:
        return None
    return word >> _ERROR_COUNT & (1 << _ERROR_PLACE) - 1, word & (1 << _ERROR_COUNT) - 1


def _opened(lease: int, base: int, passed: int) -> tuple[int, int]:
    """Return the number of the lease that was opened last, and how many of its tasks are passed.

    `base` says both in one word, the number by its low bits; `lease` may still be the one before.
    """
    return lease + ((base >> _HALT_TASKS) - lease & _LOW), passed - base & _LOW


def _elapsed(watch: int, now_ns: int) -> int:
    elapsed = now_ns - watch & _TIME if watch & _RUNNING else watch
    return elapsed if elapsed <= _TIME >> 1 else 0  # it began after we took the time


class Rows(Sequence[Row]):
    """The rows of a ledger, each made when it is first asked for: a worker needs one of a thousand."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._rows: list[Row | None] = [None] * (len(words) // WORDS_PER_ROW - 1)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def stamp(self) -> int:
        """That of the ledger."""
        return self._words[_STAMP]

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self._rows[index]
        if row is None:
            start = WORDS_PER_ROW * (range(len(self))[index] + 1)
            row = self._rows[index] = Row(self._words[start : start + WORDS_PER_ROW])
        return row


class Ledger:
    """The whole table: a header and `slots` rows, in memory that has no name and needs no clean-up.

    It is passed to a worker as an argument of its process; the kernel frees it with the last holder.
    """

    def __init__(self, slots: int, memory: Descriptor | None = None) -> None:
        size = self.size(slots)
        if memory is None:
            memory = Descriptor(new_memory("conveyor-ledger"))
            os.truncate(memory.number, size)
        self._memory = memory
        self._slots = slots
        weakref.finalize(self, memory.close)
        self._words = memoryview(mmap.mmap(memory.number, size)).cast("Q")
        self.rows: Sequence[Row] = Rows(self._words)

    @staticmethod
    def size(slots: int) -> int:
        """Return the bytes that a table with so many rows takes."""
        return 8 * WORDS_PER_ROW * (slots + 1)

    @property
    def order(self) -> Order:
        return Order(self._words[0])

    @order.setter
    def order(self, order: Order) -> None:
        """For the supervisor alone."""
        self._words[0] = order

    @property
    def stamp(self) -> int:
        """Which start of a spool it is of; 0 without one. Written by the supervisor before the first worker starts."""
        return self._words[_STAMP]

    @stamp.setter
    def stamp(self, stamp: int) -> None:
        self._words[_STAMP] = stamp

    def __reduce__(self) -> tuple[object, ...]:
        return Ledger, (self._slots, self._memory)
