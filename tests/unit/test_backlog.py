"""What waits behind the leases: accepted once it is written, loaded in order, kept whatever the disk does meanwhile."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conveyor.errors import RunBrokenError
from conveyor.ledger import CLOSED_LEASES
from conveyor.queues import backlog as module
from conveyor.queues import codec
from conveyor.queues.arena import NO_LIMIT, Arena, new_memory
from conveyor.queues.backlog import Backlog, Incoming
from conveyor.queues.leases import AHEAD_TASKS, OWN_ARENA, Lease, Span, StoredChunk
from conveyor.queues.letters import Counted
from conveyor.snapshot import RedeliveryReason, Role
from conveyor.spool.folder import Spool
from conveyor.spool.leasebook import Entry
from conveyor.spool.store import Changes, Store, StoreError
from support.spools import HandLoop, letter

PRODUCER, CONSUMER = 0, 1
NAMES = {"producer-1": PRODUCER, "consumer-1": CONSUMER}
TASKS = 4  # of a chunk
FULL = "database or disk is full"


class Disk:
    """Stands between a spool and its disk; it can be full, for all or but for what is done."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_full = self.has_no_room_for_chunks = False
        self.attempts = 0
        write, reserve = Store.write, Spool.reserve

        def write_or_not(store: Store, changes: Changes) -> None:
            self.attempts += 1
            if self.is_full or (self.has_no_room_for_chunks and changes.chunks):
                raise StoreError(FULL)
            write(store, changes)

        def reserve_or_not(spool: Spool) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            reserve(spool)

        patch.setattr(Store, "write", write_or_not)
        patch.setattr(Spool, "reserve", reserve_or_not)


class World:
    """A backlog with a spool of its own, and what the queue around it does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder, "normal")
        self.restored = self.spool.begin("numbers", NAMES, len(NAMES))
        self.loop = HandLoop()
        self.memory = new_memory()
        self.arena = Arena(self.memory, NO_LIMIT)
        self.accepted: list[Incoming] = []
        self.backlog = Backlog(self.spool, self.restored, self.arena, self.loop, self.write)
        self.backlog.enrol(PRODUCER, "producer-1", Role.PRODUCER)
        self.backlog.enrol(CONSUMER, "consumer-1", Role.CONSUMER)
        self.number = 0

    @property
    def store(self) -> Store:
        return self.spool.store

    def write(self) -> None:
        self.accepted += self.backlog.write()

    def offer(self, *names: str, size: int = 0) -> list[StoredChunk]:
        """Offer a chunk of tasks for each name."""
        chunks = []
        for name in names:
            made = codec.apart([codec.pickled(f"{name}{place}{'.' * size}") for place in range(TASKS)], 0)
            payload = b"".join(made.pieces)
            chunk = StoredChunk(1, 1, made.codec, TASKS, 0, len(payload), 10**9, TASKS, account=1)
            self.backlog.offer(chunk, PRODUCER, memoryview(payload))
            chunks.append(chunk)
        return chunks

    def put(self, *names: str, size: int = 0) -> list[StoredChunk]:
        """Have such chunks accepted; return those that stay in memory."""
        chunks = self.offer(*names, size=size)
        self.write()
        assert [incoming.chunk for incoming in self.accepted[-len(chunks) :]] == chunks
        return [chunk for chunk in chunks if self.backlog.keep_in_memory(chunk)]

    def load(self, *, is_urgent: bool = False) -> list[StoredChunk]:
        return [chunk for chunk, _ in self.backlog.load(is_urgent=is_urgent)]

    def name(self, chunk: StoredChunk) -> str:
        """Return the name of a chunk that was loaded, from the arena."""
        assert chunk.arena == OWN_ARENA
        payload = self.arena.memory[chunk.offset : chunk.offset + chunk.size]
        first = next(codec.tasks_of(chunk.codec, payload, chunk.count, 0, 1))
        return str(first)[0]

    def give(self) -> Lease:
        self.number += 1
        chunk = StoredChunk(1, 1, codec.Codec.APART, TASKS, 0, 10, 10**9, TASKS, key=1)
        lease = Lease(self.number, Span(chunk, 0, TASKS), 0)
        self.backlog.give(CONSUMER, lease)
        return lease

    def finish(self, chunk: StoredChunk) -> None:
        self.backlog.finish(Span(chunk, 0, chunk.count))
        self.backlog.end(chunk)

    def keys(self) -> list[int]:
        return [row.key for row in self.store.load(0, 1000, 1 << 30)]

    def put_in_store(self) -> int:
        return next(slot.put for slot in self.store.slots() if slot.row == PRODUCER)

    def close(self) -> None:
        self.spool.close()
        os.close(self.memory)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[World]:
    world = World(folder)
    with contextlib.closing(world):
        yield world


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def world(tmp_path: Path, disk: Disk) -> Iterator[World]:
    with opened(tmp_path) as world:
        yield world


# -- into the spool ------------------------------------------------------------------------------------------


def test_a_chunk_is_accepted_once_it_is_written_and_not_before(world: World) -> None:
    world.offer("a", "b")
    assert world.backlog.is_writing
    assert (world.keys(), world.accepted, world.put_in_store()) == ([], [], 0)
    world.write()
    assert not world.backlog.is_writing
    assert (world.keys(), len(world.accepted), world.put_in_store()) == ([1, 2], 2, 2 * TASKS)
    assert world.backlog.write() == []


def test_what_a_turn_has_brought_is_one_transaction(world: World, disk: Disk) -> None:
    before = disk.attempts
    world.put(*"abcdefgh")
    assert disk.attempts - before == 1


def test_what_became_of_chunks_is_written_a_little_later_all_together(world: World, disk: Disk) -> None:
    a, b = world.put("a", "b")
    before = disk.attempts
    world.backlog.settle(CONSUMER, 1)
    world.finish(a)
    world.backlog.finish(Span(b, 1, 2))
    world.write()
    assert (disk.attempts, world.keys()) == (before, [1, 2])
    world.loop.pass_time()
    assert (disk.attempts, world.keys()) == (before + 1, [2])
    assert world.store.progress()[2].done == [(1, 2)]
    assert {slot.row: slot.settled for slot in world.store.slots()}[CONSUMER] == 1


def test_a_producer_is_finished_only_with_its_last_chunk(world: World, disk: Disk) -> None:
    """Else the next start would not call it for what was never written."""
    disk.has_no_room_for_chunks = True
    world.offer("a")
    world.write()
    world.backlog.finish_producer(PRODUCER)
    world.loop.pass_time()
    assert not any(slot.is_finished for slot in world.store.slots())
    disk.has_no_room_for_chunks = False
    world.loop.pass_time()
    world.loop.pass_time()
    assert (world.keys(), [slot.row for slot in world.store.slots() if slot.is_finished]) == ([1], [PRODUCER])


# -- a disk that is full ---------------------------------------------------------------------------------------


def test_while_nothing_can_be_written_nothing_is_accepted_and_nothing_is_forgotten(world: World, disk: Disk) -> None:
    (a,) = world.put("a")
    disk.is_full = True
    world.offer("b")
    world.write()
    assert world.backlog.is_stuck
    assert world.backlog.statistics().trouble == FULL
    world.backlog.settle(CONSUMER, 3)
    world.finish(a)
    world.loop.pass_time()
    world.offer("c")
    world.loop.pass_time()
    assert (len(world.accepted), world.keys(), world.put_in_store()) == (1, [1], TASKS)
    disk.is_full = False
    world.loop.pass_time()
    world.loop.pass_time()
    assert not world.backlog.is_stuck
    assert (len(world.accepted), world.keys(), world.put_in_store()) == (3, [2, 3], 3 * TASKS)
    assert {slot.row: slot.settled for slot in world.store.slots()}[CONSUMER] == 3


def test_what_is_done_is_written_though_there_is_no_room_for_more(world: World, disk: Disk) -> None:
    a, b = world.put("a", "b")
    disk.has_no_room_for_chunks = True
    world.finish(a)
    world.offer("c", "d")
    world.loop.pass_time()  # with what is done, and then without
    world.loop.pass_time()
    assert (world.keys(), world.backlog.is_stuck) == ([2], True)
    world.finish(b)
    world.loop.pass_time()
    assert (world.keys(), world.put_in_store()) == ([], 2 * TASKS)


def test_trouble_that_came_while_nothing_was_offered_goes_by(world: World, disk: Disk) -> None:
    (a,) = world.put("a")
    disk.is_full = True
    world.finish(a)
    world.loop.pass_time()
    assert world.backlog.is_stuck
    disk.is_full = False
    world.loop.pass_time()
    world.loop.pass_time()
    assert (world.backlog.is_stuck, world.keys()) == (False, [])


def test_however_often_the_queue_looks_there_are_few_attempts_and_few_timers(world: World, disk: Disk) -> None:
    (a,) = world.put("a")
    disk.is_full = True
    world.finish(a)
    world.offer("b")
    world.write()
    before = disk.attempts
    for _ in range(100):
        world.write()
    assert disk.attempts == before
    for _ in range(10):
        world.loop.pass_time()
        assert len(world.loop.timers) <= 2
    assert disk.attempts <= before + 20


def test_it_is_said_once_that_there_is_no_room_and_once_that_there_is(
    world: World, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk.is_full = True
    world.offer("a")
    for _ in range(5):
        world.write()
        world.loop.pass_time()
    disk.is_full, disk.has_no_room_for_chunks = False, True
    for _ in range(5):
        world.loop.pass_time()
    disk.has_no_room_for_chunks = False
    for _ in range(5):
        world.loop.pass_time()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the spool cannot be written: producers wait", "the spool has room again"]


def test_what_was_held_back_is_there_for_what_is_done_and_held_back_again_later(world: World, disk: Disk) -> None:
    reserve = world.folder / "reserve"
    assert reserve.exists()
    disk.has_no_room_for_chunks = True
    world.offer("a")
    world.write()
    assert not reserve.exists()
    disk.is_full = True
    world.loop.pass_time()
    assert not reserve.exists()
    disk.is_full = disk.has_no_room_for_chunks = False
    world.loop.pass_time()
    world.loop.pass_time()
    assert reserve.exists()
    assert not world.backlog.is_stuck


def test_a_slot_that_cannot_be_enrolled_is_an_error_of_the_system(world: World, disk: Disk) -> None:
    disk.is_full = True
    world.backlog.enrol(CONSUMER, "consumer-1", Role.CONSUMER)  # it is known
    with pytest.raises(OSError, match=f"the spool cannot be written: {FULL}"):
        world.backlog.enrol(2, "consumer-2", Role.CONSUMER)


# -- in memory, or on disk alone ---------------------------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHUNKS", 4)
    monkeypatch.setattr(module, "LOAD_CHUNKS", 2)


@pytest.mark.usefixtures("_small")
def test_what_is_beyond_the_window_is_loaded_in_order_when_there_is_room(world: World) -> None:
    kept = world.put(*"abcdefgh")
    assert (len(kept), world.backlog.tasks_on_disk) == (4, 4 * TASKS)
    assert world.load() == []
    assert world.put("i") == []  # it does not overtake
    for chunk in kept[:2]:
        world.finish(chunk)
    first = world.load()
    assert ([world.name(chunk) for chunk in first], world.backlog.tasks_on_disk) == (["e", "f"], 3 * TASKS)
    assert world.load() == []
    for chunk in (*kept[2:], *first):
        world.finish(chunk)
    assert [world.name(chunk) for chunk in (*world.load(), *world.load())] == ["g", "h", "i"]
    assert (world.backlog.tasks_on_disk, world.load()) == (0, [])
    assert len(world.put("j")) == 1


@pytest.mark.usefixtures("_small")
def test_more_is_loaded_for_who_has_nothing_to_do(world: World) -> None:
    world.put(*"abcdef")
    assert world.load() == []
    assert [world.name(chunk) for chunk in world.load(is_urgent=True)] == ["e", "f"]


def test_the_window_has_a_size_in_bytes_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 5000)
    monkeypatch.setattr(module, "LOAD_BYTES", 3000)
    kept = world.put(*"abcdef", size=500)
    assert len(kept) == 2
    for chunk in kept:
        world.finish(chunk)
    assert [world.name(chunk) for chunk in world.load()] == ["c"]
    assert [world.name(chunk) for chunk in world.load()] == ["d"]


def test_a_chunk_larger_than_the_window_has_its_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert world.put("a", size=1000) == []
    assert [world.name(chunk) for chunk in world.load()] == ["a"]


def test_progress_and_attempts_outlive_a_start_in_the_store(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as world:
        a, b, c = world.put(*"abc")
        world.backlog.finish(Span(a, 1, 3))
        a.attempts, a.failures = {0: 2}, {3: 1}
        world.backlog.touch(a)
        world.finish(b)
        world.backlog.flush()
    with opened(tmp_path) as world:
        assert world.backlog.tasks_on_disk == world.restored.unfinished == 2 + TASKS
        (first, been), (second, nothing) = world.backlog.load(is_urgent=False)
        assert (world.name(first), been, first.left, first.attempts, first.failures) == (
            "a",
            [(1, 3)],
            2,
            {0: 2},
            {3: 1},
        )
        assert (world.name(second), nothing, second.left, second.attempts) == ("c", [], TASKS, None)
        assert (first.account, first.key, second.key) == (0, a.key, c.key)
        world.backlog.finish(Span(first, 0, 1))
        world.backlog.flush()
        assert world.store.progress()[first.key].done == [(0, 3)]
        assert len(world.put("d")) == 1  # and all that is new comes behind
        assert world.keys() == [1, 3, 4]


def test_a_store_that_cannot_be_read_ends_the_run_with_a_reason(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHUNKS", 0)
    world.put("a")
    monkeypatch.setattr(Store, "load", unreadable)
    with pytest.raises(RunBrokenError, match=f"the spool {world.folder} cannot be read: disk I/O error"):
        world.load(is_urgent=True)


def unreadable(store: Store, after: int, most_chunks: int, most_bytes: int) -> None:
    raise StoreError("disk I/O error")


# -- leases --------------------------------------------------------------------------------------------------------


def test_a_lease_is_in_the_book_when_it_is_given(world: World) -> None:
    (chunk,) = world.put("a")
    world.backlog.give(CONSUMER, Lease(1, Span(chunk, 1, 3), 0))
    assert list(world.spool.book.read(CONSUMER, 0)) == [Entry(1, chunk.key, 1, 3)]


def test_what_leases_came_to_is_written_before_their_entries_are_needed(world: World) -> None:
    for _ in range(1000):
        assert world.backlog.may_grant
        world.backlog.settle(CONSUMER, world.give().number)
        world.write()
    assert world.store.commits < 1000 / 32


def test_no_entry_is_overwritten_that_the_store_does_not_know(world: World, disk: Disk) -> None:
    """However long the disk is full, and though a consumer is given many leases at once."""
    disk.is_full = True
    world.give()  # so that it is no even number of times
    while world.backlog.may_grant:
        for _ in range(AHEAD_TASKS):
            world.backlog.settle(CONSUMER, world.give().number - 1)
        world.write()
        world.loop.pass_time()
    assert CLOSED_LEASES / 2 < world.number <= CLOSED_LEASES
    assert [entry.number for entry in world.spool.book.read(CONSUMER, 0)] == list(range(1, world.number + 1))
    disk.is_full = False
    world.loop.pass_time()
    world.loop.pass_time()
    assert world.backlog.may_grant


# -- letters -------------------------------------------------------------------------------------------------------

COUNTED = Counted(added=1, dead_lettered=0, redeliveries={RedeliveryReason.REQUEST: 1})


def revived(world: World, number: int) -> tuple[StoredChunk, bool]:
    found = world.backlog.letters.find(number)
    assert found is not None
    chunk = StoredChunk(OWN_ARENA, 0, found.codec, 1, 0, len(found.payload), 10**9, 1)
    return chunk, world.backlog.adopt(chunk, found, COUNTED)


def test_a_letter_is_written_with_what_says_that_its_task_is_over(world: World) -> None:
    (a,) = world.put("a")
    world.backlog.letters.add(letter("a"))
    world.finish(a)
    assert (len(world.backlog.letters), world.store.letter_numbers(), world.keys()) == (1, [], [1])
    world.loop.pass_time()
    assert (world.store.letter_numbers(), world.keys()) == ([1], [])


def test_a_letter_that_is_tried_again_is_a_task_and_no_letter_in_one_step(world: World) -> None:
    world.put("a")
    world.backlog.letters.add(letter("a"))
    chunk, is_in_memory = revived(world, 1)
    assert (chunk.key, is_in_memory) == (2, True)
    assert (world.keys(), world.store.letter_numbers(), len(world.backlog.letters)) == ([1, 2], [], 0)
    assert (world.store.run().added, world.store.run().redeliveries) == (1, {"request": 1})
    world.finish(chunk)
    world.loop.pass_time()
    assert world.keys() == [1]


@pytest.mark.usefixtures("_small")
def test_behind_a_backlog_on_disk_it_waits_there_and_is_loaded_once(world: World) -> None:
    kept = world.put(*"abcde")
    world.backlog.letters.add(letter("z"))
    chunk, is_in_memory = revived(world, 1)
    assert (is_in_memory, world.backlog.tasks_on_disk) == (False, TASKS + 1)
    world.put("f")
    for done in kept:
        world.finish(done)
    assert [loaded.key for loaded in (*world.load(), *world.load())] == [5, chunk.key, 7]
    assert world.backlog.tasks_on_disk == 0


def test_before_chunks_that_are_not_accepted_it_keeps_the_order(world: World) -> None:
    world.backlog.letters.add(letter("z"))
    world.offer("a")
    chunk, is_in_memory = revived(world, 1)
    assert not is_in_memory
    world.write()
    assert not world.backlog.keep_in_memory(world.accepted[0].chunk)
    assert [loaded.key for loaded in world.load()] == [1, chunk.key]


def test_while_the_disk_is_full_a_letter_stays_one(world: World, disk: Disk) -> None:
    world.backlog.letters.add(letter("z"))
    world.backlog.flush()
    disk.is_full = True
    world.backlog.touch(StoredChunk(1, 1, codec.Codec.APART, 1, 0, 1, 0, 1, key=9))
    with pytest.raises(OSError, match=f"the spool cannot be written: {FULL}"):
        revived(world, 1)
    assert (world.backlog.letters.numbers(), world.keys()) == ((1,), [])


def test_letters_that_are_purged_are_gone_from_the_disk_at_once(world: World) -> None:
    for name in "abc":
        world.backlog.letters.add(letter(name))
    assert world.backlog.letters.remove([1, 3, 7]) == 2
    assert world.store.letter_numbers() == [2]
    assert world.backlog.letters.numbers() == (2,)


def test_of_too_many_letters_the_oldest_make_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LETTERS", 3)
    for name in "abcde":
        world.backlog.letters.add(letter(name))
    assert [found.task for found in world.backlog.letters.list(0, 10)] == ["c", "d", "e"]
    assert len(world.backlog.letters) == 3


def test_letters_have_numbers_that_go_on_over_starts(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as world:
        world.backlog.letters.add(letter("a"))
        world.backlog.letters.add(letter("b"))
        world.backlog.flush()
    with opened(tmp_path) as world:
        world.backlog.letters.add(letter("c"))
        assert [(found.number, found.task) for found in world.backlog.letters.list(0, 10)] == [
            (1, "a"), (2, "b"), (3, "c"),
        ]  # fmt: skip
