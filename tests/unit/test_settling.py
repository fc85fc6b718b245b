"""The start after an end: store, ledger and book of leases agree on what is left, whichever of them is older."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conveyor.errors import ConfigurationError
from conveyor.ledger import Flaw, Ledger, Row, Rows, processed_in
from conveyor.queues import codec
from conveyor.queues.letters import Cause
from conveyor.snapshot import RedeliveryReason
from conveyor.spool.leasebook import Entry, LeaseBook
from conveyor.spool.recovery import Progress
from conveyor.spool.settling import Remains, Restored, settle
from conveyor.spool.store import Changes, ChunkRow, RunRow, Store
from support.spools import letter, slot_row, work

PRODUCER, CONSUMER, OTHER = 0, 1, 2
PLACES = {"producer-1": PRODUCER, "consumer-1": CONSUMER, "consumer-2": OTHER}
SPARE = 3
TASKS = 10  # of each chunk
RESTART = RedeliveryReason.RESTART.value


class World:
    """A spool in the middle of a run's second start, by hand: two chunks were put, nothing of them is done."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, "normal")
        self.memory = os.memfd_create("leases")
        os.truncate(self.memory, LeaseBook.size(SPARE))
        self.book = LeaseBook(self.memory)
        self.ledger = Ledger(SPARE)
        self.is_lost = False
        self.store.write(
            Changes(
                slots=[slot_row(name, row) for name, row in PLACES.items()],
                chunks=[chunk(1), chunk(2)],
                run=RunRow("numbers", epoch=2),
            )
        )
        self.store.write(Changes(puts={PRODUCER: 2 * TASKS}))

    @property
    def row(self) -> Row:
        return self.ledger.rows[CONSUMER]

    def give(self, number: int, key: int, first: int = 0, last: int = TASKS, slot: int = CONSUMER) -> None:
        self.book.write(slot, Entry(number, key, first, last))

    def remains(self, epoch: int) -> Remains | None:
        """Return a copy, as the folder does."""
        assert epoch == 2
        if self.is_lost:
            return None
        words = memoryview(bytearray(self.ledger._words.cast("B"))).cast("Q")
        return Remains(Rows(words), LeaseBook(self.memory, is_copy=True))

    def settle(self, name: str = "numbers", places: dict[str, int] = PLACES) -> Restored:
        return settle(self.store, name, self.remains, places, SPARE)

    def progress(self) -> dict[int, Progress]:
        return self.store.progress()


def chunk(key: int) -> ChunkRow:
    tasks = codec.apart([codec.pickled(f"task {place}") for place in range(TASKS)], 0)
    return ChunkRow(key, tasks.codec, TASKS, 1.7e9, 5, b"".join(tasks.pieces))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "tasks.db")
    yield world
    world.store.close()
    os.close(world.memory)


def counts(restored: Restored) -> tuple[int, int, int]:
    """Return put, processed and unfinished; they must agree, as `statistics` puts them together."""
    put = sum(slot.put for slot in restored.slots)
    processed = sum(processed_in(slot.words) for slot in restored.slots)
    assert restored.unfinished == put + restored.run.added - processed - restored.run.dead_lettered
    return put, processed, restored.unfinished


def test_a_first_start_goes_on_from_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path / "tasks.db", "normal")) as store:
        restored = settle(store, "numbers", lambda epoch: None, PLACES, SPARE)
        assert restored == Restored(RunRow("numbers", 1, redeliveries={RESTART: 0}))
        assert store.run() == restored.run


def test_what_consumers_did_since_the_last_commit_is_done(world: World) -> None:
    world.give(1, 1)
    world.give(2, 2, 0, 4)
    work(world.row, 1, TASKS, TASKS)
    work(world.row, 2, 4, 1, closes=False)
    restored = world.settle()
    assert counts(restored) == (20, 11, 9)
    assert restored.run.added == 0
    assert restored.run.redeliveries == {RESTART: 1}  # the one in hand
    assert (restored.run.epoch, restored.last_key) == (3, 2)
    assert [row.key for row in world.store.load(0, 10, 10**6)] == [2]
    assert world.progress() == {2: Progress([(0, 1)])}
    assert {row.account for row in world.store.load(0, 10, 10**6)} == {0}  # whose it was is no more
    ledger = Ledger(SPARE)
    for slot in restored.slots:
        ledger.rows[slot.row].restore(slot.words, slot.put)
    consumer = ledger.rows[CONSUMER].read(0)
    assert (consumer.processed, consumer.abandoned, consumer.in_progress) == (11, 1, 0)
    assert consumer.busy_ns <= 2  # until its last sign of life: not until now
    assert ledger.rows[PRODUCER].read(0).put == 20


def test_leases_that_the_store_has_heard_of_are_not_taken_in_again(world: World) -> None:
    world.give(1, 1, 0, 5)
    work(world.row, 1, 5, 5)
    world.store.write(Changes(progress={1: Progress([(0, 5)])}, settled={CONSUMER: 1}))
    world.give(2, 1, 5, TASKS)
    work(world.row, 2, 5, 2, closes=False)
    assert counts(world.settle()) == (20, 7, 13)
    assert world.progress() == {1: Progress([(0, 7)])}


def test_a_task_that_is_to_be_tried_again_has_failed_once_more(world: World) -> None:
    world.store.write(Changes(progress={1: Progress([], {2: 1}, {3: 1})}))
    world.give(1, 1)
    work(world.row, 1, TASKS, 3, Flaw.AGAIN)
    restored = world.settle()
    assert counts(restored) == (20, 3, 17)
    assert world.progress() == {1: Progress([(0, 3)], {2: 1}, {3: 2})}
    assert restored.run.redeliveries == {RESTART: 0}


def test_a_task_that_failed_for_good_is_a_letter_that_can_be_tried_again(world: World) -> None:
    world.store.write(Changes(progress={1: Progress([], {}, {3: 1})}))
    world.give(1, 1)
    work(world.row, 1, TASKS, 3, Flaw.FINAL)
    assert counts(world.settle()) == (20, 4, 16)
    (found,) = world.store.letters(0, 10)
    assert (found.cause, found.task, found.attempts, found.put_at) == (Cause.ERROR, "'task 3'", 2, 1.7e9)
    assert found.reason == "the run was killed before it could tell"
    whole = world.store.letter(found.number)
    assert whole is not None
    assert list(codec.tasks_of(whole.codec, memoryview(whole.payload), 1, 0, 1)) == ["task 3"]


def test_to_settle_twice_is_to_settle_once(world: World) -> None:
    """As when it is killed after that, and before anything is done."""
    world.give(1, 1)
    world.give(1, 2, slot=OTHER)
    work(world.row, 1, TASKS, 6, Flaw.FINAL)
    work(world.ledger.rows[OTHER], 1, TASKS, 2, closes=False)
    first = world.settle()
    letters, progress = world.store.letters(0, 10), world.progress()
    again = settle(world.store, "numbers", lambda epoch: None, PLACES, SPARE)
    assert again == replace(first, run=replace(first.run, epoch=4))
    assert (world.store.letters(0, 10), world.progress()) == (letters, progress)
    assert counts(again) == counts(first) == (20, 9, 11)


def test_a_failure_in_the_middle_changes_nothing_and_can_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.give(1, 1)
    work(world.row, 1, TASKS, 6, Flaw.FINAL)
    before = world.store.run(), world.store.slots(), world.progress(), world.store.letters(0, 10)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_run", lambda store, run: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            world.settle()
    assert (world.store.run(), world.store.slots(), world.progress(), world.store.letters(0, 10)) == before
    assert counts(world.settle()) == (20, 7, 13)


# -- a power cut: one is older than the other -------------------------------------------------------------------


def test_with_a_ledger_older_than_the_store_nothing_is_lost_and_the_counts_agree(world: World) -> None:
    world.store.write(Changes(over=[1], progress={2: Progress([(0, 3)])}, settled={CONSUMER: 5}))
    restored = world.settle()  # the ledger and the book are as at the beginning
    assert counts(restored) == (20, 0, 7)
    assert restored.run.added == -13
    assert world.progress() == {2: Progress([(0, 3)])}


def test_with_a_store_older_than_the_ledger_what_it_has_not_heard_of_is_left_out(world: World) -> None:
    world.give(1, 1)
    world.give(2, 77)  # a chunk that was accepted, and lost
    work(world.row, 1, TASKS, TASKS)
    work(world.row, 2, TASKS, 4, Flaw.FINAL)
    restored = world.settle()
    assert counts(restored) == (20, 15, 10)
    assert restored.run.added == 5
    assert world.store.letters(0, 10) == []
    assert set(world.progress()) == set()


def test_without_a_ledger_what_it_would_have_said_is_done_again(world: World) -> None:
    world.give(1, 1)
    work(world.row, 1, TASKS, TASKS)
    world.is_lost = True
    restored = world.settle()
    assert counts(restored) == (20, 0, 20)
    assert {slot.name: slot.put for slot in restored.slots} == {"producer-1": 20}  # it is not asked for them again


@pytest.mark.parametrize("seed", range(5))
def test_a_torn_ledger_is_as_none(world: World, seed: int) -> None:
    world.give(1, 1)
    work(world.row, 1, TASKS, TASKS)
    torn = memoryview(world.ledger._words).cast("B")
    torn[:] = os.urandom(len(torn))
    assert counts(world.settle()) == (20, 0, 20)


def test_a_ledger_with_fewer_rows_is_as_none(world: World) -> None:
    world.ledger = Ledger(1)
    assert counts(world.settle()) == (20, 0, 20)


def test_after_a_restart_of_the_machine_no_more_is_counted_as_busy_than_there_was(world: World) -> None:
    later = time.monotonic_ns() + 10**15  # the clock begins anew
    world.give(1, 1)
    assert world.row.open_lease(1, TASKS, later)
    world.row.begin_tasks(TASKS, later + 500, 0)
    restored = world.settle()
    (words,) = [slot.words for slot in restored.slots if slot.row == CONSUMER]
    row = Ledger(1).rows[0]
    row.restore(words, 0)
    assert row.read(0).busy_ns == 500


# -- whose it is ----------------------------------------------------------------------------------------------------


def test_tasks_of_another_pipeline_are_refused_and_kept(world: World) -> None:
    with pytest.raises(ConfigurationError, match="holds tasks of the pipeline 'numbers', not of 'other'"):
        world.settle("other")
    assert world.store.run() == RunRow("numbers", epoch=2)
    assert counts(world.settle()) == (20, 0, 20)


def end(world: World, *, is_finished: bool) -> None:
    world.give(1, 1)
    world.give(2, 2)
    work(world.row, 1, TASKS, TASKS)
    work(world.row, 2, TASKS, 9, Flaw.FINAL)
    world.store.write(Changes(finished={PRODUCER} if is_finished else set(), letters=[letter("before")]))


def test_a_run_of_another_pipeline_whose_producers_have_more_is_refused_though_nothing_waits(world: World) -> None:
    """Its producers would be taken for ours, and skip what theirs had put."""
    end(world, is_finished=False)
    with pytest.raises(ConfigurationError, match="or that one has more to put"):
        world.settle("other")


@pytest.mark.parametrize("name", ["numbers", "other"])
def test_after_a_run_that_came_to_its_end_the_next_is_a_new_one_that_keeps_the_letters(world: World, name: str) -> None:
    end(world, is_finished=True)
    restored = world.settle(name)
    assert restored == Restored(RunRow(name, 3, redeliveries={RESTART: 0}))
    assert [found.task for found in world.store.letters(0, 10)] == ["before", "'task 9'"]
    assert (world.store.slots(), world.store.tasks()) == ([], 0)


def test_a_producer_that_is_not_finished_goes_on(world: World) -> None:
    end(world, is_finished=False)
    restored = world.settle()
    assert counts(restored) == (20, 20, 0)
    assert {slot.name for slot in restored.slots} == {"producer-1", "consumer-1"}


# -- other slots than before --------------------------------------------------------------------------------------


def test_slots_go_where_their_names_are_now_and_those_that_are_no_more_behind_all(world: World) -> None:
    world.give(1, 1)
    world.give(1, 2, slot=OTHER)
    work(world.row, 1, TASKS, TASKS)
    work(world.ledger.rows[OTHER], 1, TASKS, 4)
    restored = world.settle(places={"producer-0": 0, "producer-1": 1, "consumer-2": 2})
    assert {slot.name: slot.row for slot in restored.slots} == {"producer-1": 1, "consumer-2": 2, "consumer-1": SPARE}
    assert counts(restored) == (20, 14, 6)
    assert sorted(world.store.slots()) == sorted(restored.slots)


def test_a_slot_without_a_past_is_forgotten(world: World) -> None:
    assert {slot.name for slot in world.settle().slots} == {"producer-1"}
