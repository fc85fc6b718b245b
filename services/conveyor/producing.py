"""A producer's loop: pull tasks from the user's iterator, make chunks of them, offer these to the queue.

Tasks are pickled as they are yielded, before the iterator goes on, so that no consumer sees what it does to them
afterwards. The exception are plain tasks (see `codec.py`), for which the moment makes no difference: a stream of them
is gathered and pickled at once, in a fifth of the time. Three signs tell that a task is plain: those before it were,
its hash could be taken when it was yielded, and the pickle meets no other type in it.

What happens when this process dies: what the queue has accepted is done, what was gathered here is lost with it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import Any

from conveyor.errors import TaskNotPicklableError, TaskTooLargeError
from conveyor.interruptions import Interruptions, leave_fork
from conveyor.ledger import Row
from conveyor.queues import codec
from conveyor.queues.codec import LARGE_BYTES, PROTOCOL, Chunk, Codec, NotPlainError, Piece
from conveyor.queues.seam import Outlet

# A blocked producer shows a sign of life at least this often.
BEAT_SECONDS = 1.0
# So long a gathered task waits at most for others to travel with.
LINGER_SECONDS = 0.001
MAX_LINGER_SECONDS = 0.008  # while an iterator sleeps in the middle of a batch: the next is then made in smaller ones
PLAIN_AFTER = 64  # plain tasks in a row make a plain stream; arbitrary
PLAIN_BYTES = 2048  # of a task, on average; to hash a larger one costs more than the one pickle gains
CHUNK_BYTES = 1 << 19  # about; a larger chunk gains nothing and falls out of the processor's cache

_now_ns = time.monotonic_ns
_nothing: dict[object, object] = {}
_refuses_mutable = _nothing.__contains__  # never true, but it raises for what has no hash
_at_work: weakref.WeakSet[Production] = weakref.WeakSet()  # in this process
_watched_forks: list[bool] = []  # one entry once forks are watched: the hook cannot be taken back


def _come_back() -> None:
    """Have a child that an iterator has forked leave the loop, if it ever comes back to it."""
    for production in _at_work:
        production._tickets.clear()


class Production:
    """One producer process at work."""

    def __init__(
        self,
        outlet: Outlet,
        row: Row,
        interruptions: Interruptions,
        refuse: Callable[[TaskNotPicklableError], None] | None = None,
    ) -> None:
        """Have `refuse` told of each task that cannot be pickled, and go on; without it, such a task ends the work."""
        self._outlet = outlet
        self._row = row
        self._refuse = refuse
        self._interruptions = interruptions
        self._pid = os.getpid()
        self._codec = Codec.APART
        self._plain_in_a_row = 0
        self._is_mutable = False
        self._mean_bytes = 0.0
        self._batch = 1
        # The tasks at hand, those before `_shipped` already offered. The main thread adds to it while the flusher may
        # ship; who ships holds the lock.
        self._gathered: list[Any] = []
        self._gathered_codec = Codec.APART
        self._shipped = 0
        self._shipping = threading.Lock()
        self._gathering = threading.Event()
        self._flusher: threading.Thread | None = None
        self._is_over = False
        self._tickets: list[int] = []
        _at_work.add(self)
        if not _watched_forks:
            _watched_forks.append(True)
            os.register_at_fork(after_in_child=_come_back)
        self._trouble: BaseException | None = None
        self._offered = 0
        """Tasks."""

    def run(self, iterator: Iterator[object]) -> None:
        """Put all that the iterator yields. Raises what it raises, once all that it had yielded before is put."""
        if not isinstance(iterator, GeneratorType):
            iterator = (task for task in iterator)  # a generator that has raised is over for good
        try:
            while self._pull(iterator):
                pass
        finally:
            self._is_over = True
            self._gathering.set()  # so that the flusher sees it

    def _pull(self, iterator: Iterator[object]) -> bool:
        """Gather some tasks and put them; return whether there may be more."""
        wanted = self._size()
        source, kept = itertools.tee(itertools.islice(iterator, wanted))
        odd: list[object] = []
        gathered = self._begin(wanted)
        began_ns = _now_ns()
        self._row.resume_busy(began_ns)
        try:
            with self._interruptions:
                gathered.extend(self._prepared(source, wanted))  # in C: no step of ours between two tasks
        except BaseException as error:
            if os.getpid() != self._pid:
                leave_fork(error)
            odd = self._odd_one(error, gathered, kept)
            if not odd:
                raise
        else:
            if len(gathered) < wanted:  # the end, or a task whose pickling raised StopIteration
                odd = self._odd_one(None, gathered, kept)
        finally:
            if os.getpid() != self._pid:
                leave_fork(None)
            took_ns = _now_ns() - began_ns
            self._row.pause_busy(began_ns + took_ns)
            self._gathering.clear()
            with self._shipping:
                self._ship(len(gathered))
        if self._trouble is not None:
            raise self._trouble
        if odd:
            self._codec, self._plain_in_a_row = Codec.APART, 0
            payload = self._pickled(odd[0])
            if payload is not None:
                self._offer(codec.apart([payload], _now_ns()))
        else:
            self._learn(itertools.islice(kept, len(gathered)))
        self._batch = max(1, wanted // 8) if took_ns > LINGER_SECONDS * 1e9 else 2 * wanted
        return bool(odd) or len(gathered) == wanted

    def _odd_one(self, error: BaseException | None, gathered: list[Any], kept: Iterator[object]) -> list[object]:
        """Return the task that was yielded and could not be gathered, if it was that."""
        if error is not None and not isinstance(error, Exception):
            return []  # asked to stop: the iterator must not be touched
        # If it is not the task's fault the iterator is over, and yields nothing more.
        return list(itertools.islice(kept, len(gathered), len(gathered) + 1))

    def _size(self) -> int:
        """Return how many tasks to gather: as many as the queue wants, unless they come slowly or are large."""
        if self._codec is Codec.BUFFERS and self._is_mutable:
            return 1
        wanted = min(self._batch, self._outlet.wanted())
        return max(1, min(wanted, int(CHUNK_BYTES / self._mean_bytes))) if self._mean_bytes else wanted

    def _prepared(self, source: Iterator[object], wanted: int) -> Iterator[object]:
        """Return the tasks as they are gathered: pickled at once, or known to have a hash."""
        # One for each task; a child that the iterator has forked finds none, and comes back at once.
        self._tickets = tickets = [PROTOCOL] * wanted
        if self._gathered_codec is Codec.APART:
            return map(pickle.dumps, source, iter(tickets))
        if self._gathered_codec is Codec.PLAIN:
            return itertools.compress(itertools.filterfalse(_refuses_mutable, source), iter(tickets))
        prepared = map(self._frozen if wanted > 1 else codec.pieces_of, source)
        return itertools.compress(prepared, iter(tickets))

    def _frozen(self, task: object) -> list[Piece]:
        """Return a large task in pieces that do not change with it."""
        pieces = codec.pieces_of(task)
        if not codec.is_immutable(pieces):
            self._is_mutable = True  # from now on one at a time: it is in shared memory before the iterator goes on
            pieces = [bytes(piece) for piece in pieces]
        return pieces

    def _learn(self, tasks: Iterator[object]) -> None:
        """Choose how the next tasks are written, after some that have gone well."""
        if self._mean_bytes >= LARGE_BYTES:
            self._codec = Codec.BUFFERS
        elif self._codec is Codec.BUFFERS or self._mean_bytes > PLAIN_BYTES:
            self._codec, self._plain_in_a_row, self._is_mutable = Codec.APART, 0, False
        elif self._codec is Codec.APART:
            for task in itertools.islice(tasks, PLAIN_AFTER):
                self._plain_in_a_row = self._plain_in_a_row + 1 if codec.is_plain(task) else 0
            if self._plain_in_a_row >= PLAIN_AFTER:
                self._codec = Codec.PLAIN

    # -- shipping ------------------------------------------------------------------------------------------

    def _begin(self, wanted: int) -> list[Any]:
        """Start a new gathering, and have the flusher look after it if it may take long."""
        with self._shipping:
            gathered = self._gathered = []
            self._gathered_codec, self._shipped = self._codec, 0
        if wanted > 1:
            self._gathering.set()
            if self._flusher is None:
                flusher = threading.Thread(target=self._flush_late, name="flusher", daemon=True)
                with contextlib.suppress(RuntimeError):  # there are too many threads now; tried again next time
                    flusher.start()
                    self._flusher = flusher
        return gathered

    def _flush_late(self) -> None:
        """Put what the iterator has yielded while it takes its time for the next."""
        seen, pause_seconds = None, LINGER_SECONDS
        while self._gathering.wait() and not self._is_over:
            if seen is not self._gathered:
                seen, pause_seconds = self._gathered, LINGER_SECONDS
            time.sleep(pause_seconds)  # the time that a task may linger; who gathers tells nobody of each task
            with self._shipping:
                if self._is_over or seen is not self._gathered or not self._gathering.is_set():
                    continue
                if len(seen) == self._shipped:  # the iterator takes long for the next
                    pause_seconds = min(2 * pause_seconds, MAX_LINGER_SECONDS)
                    continue
                pause_seconds = LINGER_SECONDS
                try:
                    self._ship(len(seen))
                except BaseException as error:  # for the main thread: it is the one that ends the process
                    self._trouble = error
                    return

    def _ship(self, until: int) -> None:
        tasks = self._gathered[self._shipped : until]
        self._shipped = until
        for chunk in self._chunks(tasks) if tasks else ():
            self._mean_bytes = chunk.size / chunk.count
            self._offer(chunk)

    def _chunks(self, tasks: Sequence[Any]) -> Iterator[Chunk]:
        now_ns = _now_ns()
        if self._gathered_codec is Codec.BUFFERS:
            chunk = codec.large(tasks, now_ns)
            yield from [chunk] if self._fits(chunk) else (codec.large([task], now_ns) for task in tasks)
            return
        if self._gathered_codec is Codec.PLAIN:
            try:
                chunk = codec.plain(tasks, now_ns)
                if self._fits(chunk):
                    yield chunk
                    return
            except NotPlainError:
                self._codec, self._plain_in_a_row = Codec.APART, 0
        ready, size = list[bytes](), 0
        for task in tasks:
            try:
                payload = task if self._gathered_codec is Codec.APART else self._pickled(task)
            except TaskNotPicklableError:
                if ready:
                    yield codec.apart(ready, now_ns)
                raise
            if payload is None:
                continue
            if ready and size + len(payload) > CHUNK_BYTES:
                yield codec.apart(ready, now_ns)
                ready, size = [], 0
            ready.append(payload)
            size += len(payload)
        if ready:
            yield codec.apart(ready, now_ns)

    def _pickled(self, task: object) -> bytes | None:
        """Return the task as bytes, or None if it cannot be pickled and whoever wants to know has been told."""
        try:
            return codec.pickled(task)
        except TaskNotPicklableError as error:
            if self._refuse is None:
                raise
            self._refuse(error)
            return None

    def _fits(self, chunk: Chunk) -> bool:
        """Return whether the queue can keep the chunk."""
        return self._outlet.max_bytes is None or chunk.size <= self._outlet.max_bytes

    def _offer(self, chunk: Chunk) -> None:
        """Put a chunk, however long that takes; the time without room is counted.

        Raises `TaskTooLargeError` for one that the queue could never keep: to wait for room would be for ever.
        """
        row, outlet = self._row, self._outlet
        if not self._fits(chunk):
            raise TaskTooLargeError(
                f"task {self._offered + 1:,} of those that it yielded in this start takes {chunk.size:,} bytes, and a "
                f"spool keeps at most {outlet.max_bytes:,} in one task; yield smaller ones, or run without a spool"
            )
        self._offered += chunk.count
        if not outlet.counts_puts:
            row.offer()
        if not outlet.offer(chunk, 0.0):
            row.resume_blocked(_now_ns())
            try:
                while not outlet.offer(chunk, BEAT_SECONDS):
                    row.beat(_now_ns())
                    self._interruptions.check()
            finally:
                row.pause_blocked(_now_ns())
        if outlet.counts_puts:
            row.beat(_now_ns())
        else:
            row.count_put(_now_ns())
