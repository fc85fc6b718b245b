"""WHAT IS COUNTED: a table of 8-byte words in shared memory, one row for each worker slot.

Who writes: the process that fills a slot writes its row; the supervisor writes the header, and a row only
while no process lives in it. Who reads: the supervisor, and the exporter at each scrape. There is no lock.

What happens when a writer is SIGKILLed: nothing is lost and nothing is half done, because every fact is
committed by one 8-byte store.

- A task is *put*, *started* or *finished* by adding 1 to one word. Started tasks are the sum of the histogram
  of waiting times, finished ones the sum of the two histograms of task times (succeeded, failed). A total that
  is derived cannot disagree with its histogram, wherever the process died.
- Busy and blocked time are stopwatches held in one word each, so no reader ever sees half a switch.

Rows belong to slots, not to processes: totals survive a restart and never fall.
"""

from __future__ import annotations

import enum
import mmap
import os
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor.descriptors import Descriptor

# Upper edges in seconds, `le` of the two histograms; the last bucket, +Inf, has no edge.
TASK_EDGES_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAIT_EDGES_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0,
)  # fmt: skip
NANOSECONDS = 1_000_000_000
_TASK_EDGES = [int(edge * NANOSECONDS) for edge in TASK_EDGES_SECONDS]
_WAIT_EDGES = [int(edge * NANOSECONDS) for edge in WAIT_EDGES_SECONDS]

# The words of a row. Finished tasks lie before started ones; `Row.read` relies on it.
_SUCCEEDED = 0
_FAILED = _SUCCEEDED + len(_TASK_EDGES) + 1
_STARTED = _FAILED + len(_TASK_EDGES) + 1
_PUT = _STARTED + len(_WAIT_EDGES) + 1
_OFFERED = _PUT + 1
_STATE = _PUT + 2
_HEARTBEAT = _PUT + 3
_TASK_BEGAN = _PUT + 4
_TASK_TIME = _PUT + 5
_WAIT_TIME = _PUT + 6
_BUSY = _PUT + 7
_BLOCKED = _PUT + 8
WORDS_PER_ROW = 64
_RUNNING = 1 << 63  # the flag of a stopwatch that runs


class State(enum.IntEnum):
    """What the process in a slot says of itself."""

    STARTING = 0
    RUNNING = 1
    REPORTING = 2  # telling the queue that a task is done
    STOPPING = 3
    FINISHED = 4  # the last store of a process that leaves because its work is over
    FAILED = 5  # the last store of one that leaves before that


class Order(enum.IntEnum):
    """What the supervisor asks of everybody; the header's first word."""

    WORK = 0
    STOP_PRODUCING = 1
    STOP = 2


@dataclass(frozen=True, slots=True)
class Tally:
    """One row, read at one moment. Times in nanoseconds of the monotonic clock."""

    state: State
    put: int
    offered: int
    waits: tuple[int, ...]
    succeeded: tuple[int, ...]
    failures: tuple[int, ...]
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
        """Tasks that were taken from the queue."""
        return sum(self.waits)

    @property
    def failed(self) -> int:
        """Tasks that were finished by an exception."""
        return sum(self.failures)

    @property
    def processed(self) -> int:
        """Tasks that were finished, well or badly."""
        return sum(self.succeeded) + self.failed


class Row:
    """One slot's words. Each method that writes is for the one process in the slot."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview) -> None:
        self._words = words

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

    def start_task(self, now_ns: int, waited_ns: int) -> None:
        words = self._words
        words[_TASK_BEGAN] = now_ns
        words[_STARTED + bisect_left(_WAIT_EDGES, waited_ns)] += 1
        words[_WAIT_TIME] += max(0, waited_ns)
        words[_HEARTBEAT] = now_ns
        self.resume_busy(now_ns)

    def finish_task(self, now_ns: int, *, failed: bool = False) -> None:
        words = self._words
        took_ns = now_ns - words[_TASK_BEGAN]
        words[(_FAILED if failed else _SUCCEEDED) + bisect_left(_TASK_EDGES, took_ns)] += 1
        words[_TASK_TIME] += took_ns
        words[_HEARTBEAT] = now_ns
        self.pause_busy(now_ns)

    def resume_busy(self, now_ns: int) -> None:
        self._resume(_BUSY, now_ns)

    def pause_busy(self, now_ns: int) -> None:
        self._pause(_BUSY, now_ns)

    def resume_blocked(self, now_ns: int) -> None:
        self._resume(_BLOCKED, now_ns)

    def pause_blocked(self, now_ns: int) -> None:
        self._pause(_BLOCKED, now_ns)

    def _resume(self, word: int, now_ns: int) -> None:
        self._words[word] = _RUNNING | (now_ns - self._words[word])

    def _pause(self, word: int, now_ns: int) -> None:
        if self._words[word] & _RUNNING:
            self._words[word] = now_ns - (self._words[word] ^ _RUNNING)

    # -- written by the supervisor, while no process is in the slot ---------------------------------------

    def settle(self, now_ns: int) -> None:
        """Stop the watches that a dead process left running."""
        self._pause(_BUSY, now_ns)
        self._pause(_BLOCKED, now_ns)

    def withdraw(self) -> None:
        """Forget the offer that a dead producer left in doubt; the supervisor has noted it."""
        self._words[_OFFERED] = self._words[_PUT]

    # -- read by anybody ----------------------------------------------------------------------------------

    def read(self, now_ns: int) -> Tally:
        """Return the row as it stands. Take `now_ns` before the call: no watch then reads backwards."""
        # Two copies: with finished tasks read first, a task is never seen finished and not started.
        copy = bytes(self._words[:_STARTED]), bytes(self._words[_STARTED:])
        words: Sequence[int] = memoryview(b"".join(copy)).cast("Q")
        busy, blocked = words[_BUSY], words[_BLOCKED]
        return Tally(
            state=State(words[_STATE]),
            put=words[_PUT],
            offered=words[_OFFERED],
            waits=tuple(words[_STARTED:_PUT]),
            succeeded=tuple(words[_SUCCEEDED:_FAILED]),
            failures=tuple(words[_FAILED:_STARTED]),
            heartbeat_ns=words[_HEARTBEAT],
            task_began_ns=words[_TASK_BEGAN],
            task_ns=words[_TASK_TIME],
            wait_ns=words[_WAIT_TIME],
            busy_ns=_elapsed(busy, now_ns),
            blocked_ns=_elapsed(blocked, now_ns),
            is_busy=bool(busy & _RUNNING),
            is_blocked=bool(blocked & _RUNNING),
        )


def _elapsed(watch: int, now_ns: int) -> int:
    return max(0, now_ns - (watch ^ _RUNNING)) if watch & _RUNNING else watch


class Ledger:
    """The whole table: a header and `slots` rows, in memory that has no name and needs no clean-up.

    It is passed to a worker as an argument of its process; the kernel frees it with the last holder.
    """

    def __init__(self, slots: int, memory: Descriptor | None = None) -> None:
        size = 8 * WORDS_PER_ROW * (slots + 1)
        if memory is None:
            memory = Descriptor(os.memfd_create("conveyor-ledger", os.MFD_CLOEXEC))
            os.truncate(memory.number, size)
        self._memory = memory
        self._slots = slots
        weakref.finalize(self, memory.close)
        self._words = memoryview(mmap.mmap(memory.number, size)).cast("Q")
        self.rows = [Row(self._words[WORDS_PER_ROW * (slot + 1) : WORDS_PER_ROW * (slot + 2)]) for slot in range(slots)]

    @property
    def order(self) -> Order:
        return Order(self._words[0])

    @order.setter
    def order(self, order: Order) -> None:
        """For the supervisor alone."""
        self._words[0] = order

    def __reduce__(self) -> tuple[object, ...]:
        return Ledger, (self._slots, self._memory)
