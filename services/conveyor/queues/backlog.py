"""What waits behind the leases: chunks on their way into the spool, and those that are on disk alone.

A chunk is accepted once it is written. The first ones stay in memory too, in their producer's arena; when there are
many, the next are on disk alone, and are loaded, in order, when those before them are done. What becomes of chunks is
gathered and written now and then: until then the ledger and the book of leases know it, which outlive the death of all.

Called in the supervisor's loop, but for `statistics`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from conveyor.errors import RunBrokenError
from conveyor.ledger import CLOSED_LEASES
from conveyor.logs import fields
from conveyor.queues.arena import Arena
from conveyor.queues.codec import Codec
from conveyor.queues.leases import AHEAD_TASKS, OWN_ARENA, Lease, Span, StoredChunk
from conveyor.queues.letters import Counted, DeadLetter
from conveyor.queues.seam import Watcher
from conveyor.snapshot import Role, SpoolStatistics
from conveyor.spool.folder import Spool
from conveyor.spool.leasebook import Entry
from conveyor.spool.recovery import Progress, Ranges, merged
from conveyor.spool.settling import Restored
from conveyor.spool.store import Changes, ChunkRow, RunRow, SlotRow, StoreError

log = logging.getLogger(__name__)

# In memory, whether they wait or are leased; more are on disk alone. Arbitrary: much beside what consumers do in the
# time that it takes to load more, little beside what a container has.
MAX_CHUNKS, MAX_BYTES = 4096, 32 << 20
LOAD_CHUNKS, LOAD_BYTES = 256, 4 << 20  # at a time: the loop must turn meanwhile
WRITE_SECONDS = 0.1  # so late, at most, it is written what became of chunks
# A lease's entry in the book is written over by that of the one so many later: what it came to is written before.
MAX_UNWRITTEN_LEASES = CLOSED_LEASES // 2
MAX_LEASES = CLOSED_LEASES - AHEAD_TASKS  # unwritten, of one slot; it may get as many more, of a task each, at a time
RETRY_SECONDS = 0.5  # between attempts to write, while that is not possible
GONE = "the spool was removed: what is left of the tasks ends with this run"
MAX_AGE_SECONDS = 1e9  # some 30 years
MAX_LETTERS = 100_000  # the oldest make room; arbitrary, some 100 MB


@dataclass(frozen=True, slots=True)
class Incoming:
    """A chunk that a producer has offered and that is not written."""

    chunk: StoredChunk
    row: int
    """The producer's."""
    payload: memoryview


class Backlog:
    """All of that, for the queue of one run."""

    def __init__(
        self, spool: Spool, restored: Restored, arena: Arena, loop: Watcher, write_again: Callable[[], None]
    ) -> None:
        """Go on from what was restored. What is loaded goes into the arena; `write_again` has `write` called soon."""
        self._spool, self.store, self._book = spool, spool.store, spool.book
        self._arena = arena
        self._loop = loop
        self._write_again = write_again
        self._run = restored.run
        self._puts = {slot.row: slot.put for slot in restored.slots}
        self._enrolled = {slot.row for slot in restored.slots}
        self._key = restored.last_key
        self._incoming: list[Incoming] = []
        self.changes = Changes()
        self._is_late = False
        self._has_timer = False
        self._given: dict[int, int] = {}
        self._written: dict[int, int] = {}
        """By slot, the number up to which the store knows of its leases."""
        self._loaded_key = 0
        """All chunks up to this key are in memory, or over."""
        self._chunks = self._bytes = 0
        """In memory."""
        self.tasks_on_disk = restored.unfinished
        """Tasks that are on disk alone."""
        self._trouble: str | None = None
        self._is_to_try = False
        """In trouble, it is time to see whether all can be written again."""
        self._waits_to_try = False
        self._is_gone = False
        self._ended: set[int] = set()
        """The rows of producers whose work is over and whose last chunks may not be written."""
        self.letters = LettersInSpool(self)

    # -- into the spool ------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Return whether a chunk that was offered is not accepted yet."""
        return bool(self._incoming)

    @property
    def is_stuck(self) -> bool:
        """Return whether no chunk can be accepted now."""
        return self._trouble is not None

    @property
    def may_grant(self) -> bool:
        """Return whether a lease can be given whose outcome, and those before it, will not be forgotten."""
        return all(number - self._written.get(slot, 0) <= MAX_LEASES for slot, number in self._given.items())

    def enrol(self, row: int, name: str, role: Role) -> None:
        """Have the store know the slot, before anything is done in it. Raises `OSError` if it cannot be written."""
        if row in self._enrolled:
            return
        try:
            self.store.write(Changes(slots=[SlotRow(name, role.value, row, 0, False, 0, b"")]))
        except StoreError as error:
            raise _unwritable(error) from error
        self._enrolled.add(row)

    def offer(self, chunk: StoredChunk, row: int, payload: memoryview) -> None:
        """Take a chunk of the producer in that row, to be written with the next."""
        self._key += 1
        chunk.key = self._key
        self._incoming.append(Incoming(chunk, row, payload))

    def write(self) -> list[Incoming]:
        """Write what there is to write, if it is time to; return the chunks that are accepted by that."""
        if self._trouble is not None and not self._may_try_again():
            return []
        if not (self._write_incoming() if self._incoming else self._write_what_was_done()):
            return []
        if self._trouble is not None:
            self._trouble = None
            log.warning("the spool has room again", extra=fields(folder=str(self._spool.folder)))
        accepted, self._incoming = self._incoming, []
        if self._ended:
            self._write_soon()
        return accepted

    def _write_incoming(self) -> bool:
        """Write the chunks that were offered, with what became of others if it is time to; return whether that went."""
        is_due = self._is_due
        changes = self._take_changes() if is_due else Changes()
        self._add_incoming(changes)
        try:
            self.store.write(changes)
        except StoreError as error:
            for incoming in self._incoming:
                self._puts[incoming.row] -= incoming.chunk.count
            if is_due:
                changes.chunks, changes.puts = [], {}
                self.changes = changes
            self._fail(error)
            return False
        self._written.update(changes.settled)
        return True

    def _add_incoming(self, changes: Changes) -> None:
        now_ns, now = time.monotonic_ns(), time.time()
        for incoming in self._incoming:
            chunk = incoming.chunk
            put_at = now - (now_ns - chunk.offered_ns) / 1e9
            changes.chunks.append(
                ChunkRow(chunk.key, chunk.codec, chunk.count, put_at, chunk.account, incoming.payload)
            )
            changes.puts[incoming.row] = self._puts[incoming.row] = self._puts.get(incoming.row, 0) + chunk.count

    def _write_what_was_done(self) -> bool:
        """Write what became of chunks, if it is time to; return False if that cannot be, and keep it."""
        if not self._is_due:
            return True
        changes = self._take_changes()
        try:
            self.store.write(changes)
        except StoreError as error:
            self.changes = changes
            self._fail(error)
            return False
        self._written.update(changes.settled)
        return True

    @property
    def _is_due(self) -> bool:
        if self._trouble is not None:
            return self._is_late  # not at each turn
        return self._is_late or any(
            number - self._written.get(slot, 0) >= MAX_UNWRITTEN_LEASES for slot, number in self.changes.settled.items()
        )

    def _take_changes(self) -> Changes:
        # A producer whose last chunks are not written is not through: the next start has to call it for them.
        ended = self._ended - {incoming.row for incoming in self._incoming}
        self._ended -= ended
        self.changes.finished |= ended
        changes, self.changes = self.changes, Changes()
        self._is_late = False
        return changes

    # -- while it cannot be written ------------------------------------------------------------------------

    def _fail(self, error: StoreError) -> None:
        """Have producers wait until the spool can be written; what is done meanwhile goes into what was held back."""
        is_news, self._trouble = self._trouble is None, str(error)
        self._spool.use_reserve()
        if is_news:
            log.error("the spool cannot be written: producers wait", extra=fields(reason=self._trouble))
            self._shrink()
        self._write_soon()
        self._try_later()

    def _may_try_again(self) -> bool:
        """Write what was done; return whether to try the rest as well: not often, and if there is some room."""
        if not self._write_what_was_done() or not self._is_to_try:
            return False
        self._is_to_try = False
        self._shrink()
        try:
            self._spool.reserve()
        except OSError:
            self._try_later()
            return False
        return True

    def _shrink(self) -> None:
        """Have the files of the store take no more of the disk than they need, as far as that can be."""
        with contextlib.suppress(StoreError):
            self.store.shrink()

    def _try_later(self) -> None:
        if not self._waits_to_try:
            self._waits_to_try = True
            self._loop.after(RETRY_SECONDS, self._try_now)

    def _try_now(self) -> None:
        self._waits_to_try = False
        self._is_to_try = True
        self._write_again()

    # -- in memory, or on disk alone -----------------------------------------------------------------------

    def keep_in_memory(self, chunk: StoredChunk) -> bool:
        """Return whether a chunk that was just accepted stays in memory; else it is loaded when its time comes."""
        if self.tasks_on_disk or self._incoming or self._chunks >= MAX_CHUNKS or self._bytes + chunk.size > MAX_BYTES:
            self.tasks_on_disk += chunk.count
            return False
        self._loaded_key = chunk.key
        self._chunks += 1
        self._bytes += chunk.size
        return True

    def load(self, *, is_urgent: bool) -> Iterator[tuple[StoredChunk, Ranges]]:
        """Yield chunks that were on disk alone, with what of them is over, once half of the memory for them is free.

        It is urgent where nothing waits in memory and a consumer has nothing to do: then it need not be half. Raises
        `RunBrokenError` if they cannot be read.
        """
        is_half_full = self._chunks > MAX_CHUNKS // 2 or self._bytes > MAX_BYTES // 2
        if not self.tasks_on_disk or (is_half_full and not is_urgent):
            return
        try:
            rows = self.store.load(self._loaded_key, LOAD_CHUNKS, LOAD_BYTES)
            progress = self.store.progress([row.key for row in rows])
        except StoreError as error:
            raise RunBrokenError(
                f"the spool {self._spool.folder} cannot be read: {error}; what is left of the tasks is in it"
            ) from error
        now_ns, now = time.monotonic_ns(), time.time()
        for row in rows:
            been = progress.get(row.key, Progress())
            offset = self._arena.write([row.payload], len(row.payload))
            assert offset is not None  # it has no limit: what limits it is how much is loaded
            chunk = StoredChunk(
                OWN_ARENA, 0, Codec(row.codec), row.tasks, offset, len(row.payload),
                now_ns - _age_ns(now - row.put_at), row.tasks - been.tasks_done,
                attempts=been.attempts or None, failures=been.failures or None, account=row.account, key=row.key,
            )  # fmt: skip
            chunk.done.extend(been.done)
            self.tasks_on_disk -= chunk.left
            self._loaded_key = row.key
            self._chunks += 1
            self._bytes += chunk.size
            yield chunk, been.done

    # -- what becomes of them ------------------------------------------------------------------------------

    def give(self, slot: int, lease: Lease) -> None:
        """Note a lease, before it is sent."""
        span = lease.span
        self._book.write(slot, Entry(lease.number, span.chunk.key, span.first, span.last))
        self._given[slot] = lease.number

    def settle(self, slot: int, number: int) -> None:
        """Take note that it is known what the leases of a slot up to this number came to."""
        self.changes.settled[slot] = number
        self._write_soon()

    def finish(self, span: Span) -> None:
        """Take note that these tasks are over."""
        span.chunk.done = merged([*span.chunk.done, (span.first, span.last)])
        self.touch(span.chunk)

    def touch(self, chunk: StoredChunk) -> None:
        """Take note of how far a chunk has come, and what its tasks have been through."""
        self.changes.progress[chunk.key] = Progress(chunk.done, chunk.attempts or {}, chunk.failures or {})
        self._write_soon()

    def end(self, chunk: StoredChunk) -> None:
        """Take note that all of a chunk is over."""
        self.changes.progress.pop(chunk.key, None)
        self.changes.over.append(chunk.key)
        self._chunks -= 1
        self._bytes -= chunk.size
        self._write_soon()

    def finish_producer(self, row: int) -> None:
        """Take note that a producer has put all that it had to."""
        self._ended.add(row)
        self._write_soon()

    def count(self, counted: Counted) -> None:
        """Take note of what is counted of the queue as a whole."""
        self.changes.run = self._run = self._with(counted)
        self._write_soon()

    def _with(self, counted: Counted) -> RunRow:
        redeliveries = {reason.value: number for reason, number in counted.redeliveries.items()}
        return replace(self._run, added=counted.added, dead_lettered=counted.dead_lettered, redeliveries=redeliveries)

    def adopt(self, chunk: StoredChunk, letter: DeadLetter, counted: Counted) -> bool:
        """Write a dead letter as a task anew; return whether it stays in memory, behind all that is there.

        Raises `OSError` if it cannot be written.
        """
        self.flush()
        if self._trouble is not None:
            raise OSError(errno.EIO, f"the spool cannot be written: {self._trouble}")
        chunk.key = self._key + 1
        run = self._with(counted)
        row = ChunkRow(chunk.key, chunk.codec, 1, time.time(), chunk.account, letter.payload)
        try:
            self.store.write(Changes(chunks=[row], forgotten=[letter.number], run=run))
        except StoreError as error:
            raise _unwritable(error) from error
        self._key, self._run = chunk.key, run
        self.letters.forget(letter.number)
        return self.keep_in_memory(chunk)

    def _write_soon(self) -> None:
        if not self._has_timer:
            self._has_timer = True
            self._loop.after(WRITE_SECONDS, self._write_now)

    def _write_now(self) -> None:
        self._has_timer = False
        if not self._is_gone and self._spool.is_gone():
            self._is_gone = True
            log.error(GONE, extra=fields(folder=str(self._spool.folder)))
        self._is_late = True
        self._write_again()

    def flush(self) -> None:
        """Write now what became of chunks, and of letters."""
        self._is_late = True
        self._write_what_was_done()

    def statistics(self) -> SpoolStatistics:
        """Return what of the queue is on disk. Safe from any thread."""
        return SpoolStatistics(
            folder=str(self._spool.folder),
            size_bytes=self._spool.size_bytes(),
            tasks=self.tasks_on_disk,
            commits=self.store.commits,
            commit_seconds=self.store.commit_seconds,
            trouble=self._trouble,
            is_gone=self._is_gone,
        )


def _age_ns(seconds: float) -> int:
    """Return the age of a task by a clock that may have been set since: not below 0, and not beyond what is sent."""
    return int(min(max(0.0, seconds), MAX_AGE_SECONDS) * 1e9)


def _unwritable(error: StoreError) -> OSError:
    return OSError(errno.EIO, f"the spool cannot be written: {error}")


class LettersInSpool:
    """Keeps dead letters in the store, each written with what says that its task is over."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._numbers = backlog.store.letter_numbers()
        self._next = itertools.count(self._numbers[-1] + 1 if self._numbers else 1)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, letter: DeadLetter) -> None:
        number = next(self._next)
        self._numbers.append(number)
        self._backlog.changes.letters.append(replace(letter, number=number))
        if len(self._numbers) > MAX_LETTERS:
            self._drop({self._numbers[0]})

    def list(self, after: int, most: int) -> Sequence[DeadLetter]:
        self._backlog.flush()
        return self._backlog.store.letters(after, most)

    def find(self, number: int) -> DeadLetter | None:
        self._backlog.flush()
        return self._backlog.store.letter(number)

    def numbers(self) -> Sequence[int]:
        return tuple(self._numbers)

    def forget(self, number: int) -> None:
        """Do not count one any more that was removed from the store."""
        self._numbers.remove(number)

    def remove(self, numbers: Sequence[int]) -> int:
        gone = set(numbers) & set(self._numbers)
        self._drop(gone)
        self._backlog.flush()  # who is told that they are forgotten does not meet them again after a kill
        return len(gone)

    def _drop(self, gone: set[int]) -> None:
        self._numbers = [number for number in self._numbers if number not in gone]
        self._backlog.changes.forgotten.extend(gone)
