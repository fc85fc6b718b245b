"""The store: what is written is read again, all of a transaction or nothing; what is wrong with a file is said."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conveyor.queues.codec import Codec
from conveyor.queues.letters import Cause
from conveyor.spool import store as module
from conveyor.spool.recovery import Progress
from conveyor.spool.store import SHRINK_PAGES, VERSION, Changes, RunRow, Store, StoreError
from support.spools import chunk_row, letter, slot_row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path, "normal")) as store:
        yield store


@contextlib.contextmanager
def reopened(store: Store) -> Iterator[Store]:
    """Have what another process finds after a SIGKILL of this one, at another path."""
    copy = store.path.with_name("copy")
    copy.mkdir()
    for path in store.path.parent.glob("tasks.db*"):
        (copy / path.name).write_bytes(path.read_bytes())
    with contextlib.closing(Store(copy / store.path.name, "full")) as found:
        yield found


def test_a_new_store_is_empty(store: Store) -> None:
    assert (store.run(), store.slots(), store.last_key(), store.tasks()) == (RunRow(), [], 0, 0)
    assert (store.load(0, 10, 10), store.progress(), store.letters(0, 10), store.letter_numbers()) == ([], {}, [], [])


def test_all_of_it_is_found_after_a_kill(store: Store) -> None:
    run = RunRow("numbers", 3, added=-2, dead_lettered=1, redeliveries={"death": 4})
    slots = [slot_row("producer-1", 0, 5), slot_row("consumer-1", 1)._replace(words=b"\0\xff" * 20)]
    chunks = [chunk_row(1), chunk_row(2, 1, b"", account=3), chunk_row(9, 3, memoryview(b"abc"))]  # type: ignore[arg-type]
    progress = {2: Progress([(0, 1), (3, 5)], {2: 1}, {7: 2, 8: 1})}
    store.write(Changes(slots=slots, chunks=chunks, progress=progress, letters=[letter("17")], run=run))
    with reopened(store) as found:
        assert (found.run(), found.slots(), found.progress()) == (run, slots, progress)
        assert found.load(0, 10, 10**6) == [chunk._replace(payload=bytes(chunk.payload)) for chunk in chunks]
        assert (found.last_key(), found.tasks()) == (9, 14)
        assert found.letter(1) == letter("17", number=1)


def test_changes_of_what_is_there(store: Store) -> None:
    store.write(
        Changes(
            slots=[slot_row("producer-1", 0), slot_row("consumer-1", 1)],
            chunks=[chunk_row(1), chunk_row(2)],
            progress={1: Progress([(0, 1)]), 2: Progress([(0, 9)])},
            letters=[letter("1"), letter("2"), letter("3")],
        )
    )
    store.write(
        Changes(
            puts={0: 20},
            finished={0},
            settled={1: 77},
            progress={1: Progress([(0, 4)])},
            over=[2],
            forgotten=[1, 3],
            run=RunRow("numbers"),
        )
    )
    with reopened(store) as found:
        assert found.slots() == [slot_row("producer-1", 0, 20, finished=True), slot_row("consumer-1", 1, settled=77)]
        assert found.progress() == {1: Progress([(0, 4)])}
        assert [chunk.key for chunk in found.load(0, 10, 10**6)] == [1]
        assert found.letter_numbers() == [2]
        assert found.run() == RunRow("numbers")


def everything(store: Store) -> tuple[object, ...]:
    return store.run(), store.slots(), store.load(0, 100, 10**6), store.progress(), store.letters(0, 100)


def test_changes_are_made_all_or_none(store: Store) -> None:
    store.write(Changes(slots=[slot_row("producer-1", 0)], chunks=[chunk_row(1)], run=RunRow("numbers")))
    before, commits = everything(store), store.commits
    with pytest.raises(StoreError, match="UNIQUE"):
        store.write(
            Changes(
                slots=[slot_row("consumer-1", 1)],
                chunks=[chunk_row(2), chunk_row(1)],
                puts={0: 5},
                over=[1],
                letters=[letter()],
                run=RunRow("other"),
            )
        )
    assert (everything(store), store.commits) == (before, commits)
    store.write(Changes(chunks=[chunk_row(2)]))  # it goes on
    with reopened(store) as found:
        assert [chunk.key for chunk in found.load(0, 10, 10**6)] == [1, 2]
        assert found.slots() == [slot_row("producer-1", 0)]


def test_a_transaction_that_somebody_leaves_by_an_exception_changes_nothing(store: Store) -> None:
    def leave() -> None:
        with store.transaction():
            store.write_run(RunRow("numbers"))
            store.write_chunks([chunk_row(1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert (store.run(), store.tasks()) == (RunRow(), 0)


def test_chunks_are_loaded_in_order_within_both_bounds_but_always_one(store: Store) -> None:
    sizes = [10, 10, 500, 10, 10]
    store.write(Changes(chunks=[chunk_row(key, 1, bytes(size)) for key, size in reversed(list(enumerate(sizes, 1)))]))

    def loaded(after: int, most_chunks: int, most_bytes: int) -> list[int]:
        return [chunk.key for chunk in store.load(after, most_chunks, most_bytes)]

    assert loaded(0, 2, 10**6) == [1, 2]
    assert loaded(0, 10, 100) == [1, 2]
    assert loaded(2, 10, 100) == [3]
    assert loaded(3, 10, 0) == [4]
    assert loaded(5, 10, 100) == []


def test_progress_and_sizes_are_found_by_keys(store: Store) -> None:
    keys = range(1, 1200)  # more than one statement takes
    store.write(Changes(chunks=[chunk_row(key, key, b"") for key in keys], progress={5: Progress([(0, 1)])}))
    assert store.tasks_of([*keys, 5000]) == {key: key for key in keys}
    assert store.progress([4, 5, 6]) == {5: Progress([(0, 1)])}
    assert store.progress([]) == {}


def test_letters_are_listed_in_pages_without_payloads(store: Store) -> None:
    store.write(Changes(letters=[letter(str(n), b"x" * n) for n in range(1, 8)]))
    assert [found.number for found in store.letters(0, 3)] == [1, 2, 3]
    assert store.letters(3, 2) == [letter("4", b"", 4), letter("5", b"", 5)]
    assert store.letter(4) == letter("4", b"xxxx", 4)
    assert store.letter(8) is None


def test_a_letter_is_kept_whatever_its_task_looks_like(store: Store) -> None:
    odd = replace(letter("'\udcff\0\n'"), cause=Cause.TIMEOUT, codec=Codec.BUFFERS, trace="", reason="\ud800")
    store.write(Changes(letters=[odd]))
    found = store.letter(1)
    assert found == replace(odd, number=1, task="'\\udcff\0\n'", reason="\\ud800")


def test_what_deleted_chunks_leave_is_given_back_to_the_disk(store: Store, path: Path) -> None:
    keys = range(1, SHRINK_PAGES // 8)
    store.write(Changes(chunks=[chunk_row(key, 1, os.urandom(4096 * 4)) for key in keys]))
    store.shrink()
    full = path.stat().st_size
    assert path.with_name("tasks.db-wal").stat().st_size == 0
    store.write(Changes(over=list(keys)))
    store.shrink()
    assert path.stat().st_size < full / 10
    assert store.load(0, 10, 10) == []


# -- files that are no stores ------------------------------------------------------------------------------------


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    assert_refused(path, "it is a database of another program")


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"something else " * 1000)
    assert_refused(path, "file is not a database")


def test_a_newer_version_is_refused_with_both_numbers(path: Path) -> None:
    with contextlib.closing(Store(path, "normal")) as store:
        store._db.execute("PRAGMA user_version = 7")
    assert_refused(path, rf"written by a newer version \(format 7, this one knows {VERSION}\)")


@pytest.mark.parametrize("page", ["the first", "the middle", "the end is missing"])
def test_a_damaged_file_is_refused(path: Path, page: str) -> None:
    with contextlib.closing(Store(path, "normal")) as store:
        store.write(Changes(chunks=[chunk_row(key, 1, bytes(3000)) for key in range(100)]))
    content = bytearray(path.read_bytes())
    match page:
        case "the first":
            content[100:4096] = os.urandom(3996)
        case "the middle":
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        case _:
            del content[len(content) // 2 :]
    path.write_bytes(content)
    assert_refused(path, "damaged|malformed")


def assert_refused(path: Path, reason: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreError, match=reason):
        Store(path, "normal")
    assert path.read_bytes() == before


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="unable to open"):
        Store(path, "normal")


@pytest.mark.parametrize(
    "change",
    [
        "chunks SET payload = x'00'", "chunks SET tasks = tasks + 1", "chunks SET codec = 1", "chunks SET key = 7",
        "chunks SET put_at = 0", "progress SET done = '[[0, 2]]'", "slots SET put = put - 1", "slots SET settled = 9",
        "slots SET is_finished = 1", "slots SET words = x'01'", "letters SET payload = x'01'", "letters SET task = ''",
        """run SET value = '{"name": "other"}'""",
    ],
)  # fmt: skip
def test_a_row_that_is_not_what_was_written_is_found(path: Path, change: str) -> None:
    """The structure of the file is sound, so SQLite itself finds nothing."""
    with contextlib.closing(Store(path, "normal")) as store:
        store.write(
            Changes(
                chunks=[chunk_row(1)],
                slots=[slot_row("producer-1", 0)],
                progress={1: Progress([(0, 1)])},
                letters=[letter()],
                run=RunRow("numbers"),
            )
        )
        store.write(Changes(puts={0: 10}, settled={0: 3}))  # which change a row in part
    with contextlib.closing(Store(path, "normal")):
        pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE {change}")
        db.commit()
    with pytest.raises(StoreError, match=f"it is damaged: its {change.split()[0]} are not what was written"):
        Store(path, "normal")


def test_a_chunk_of_a_store_too_large_to_be_checked_is_checked_when_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHECKED_BYTES", 0)
    with contextlib.closing(Store(path, "normal")) as store:
        store.write(Changes(chunks=[chunk_row(1), chunk_row(2)]))
        store._db.execute("UPDATE chunks SET payload = x'00' WHERE key = 2")
    with contextlib.closing(Store(path, "normal")) as store:
        assert [chunk.key for chunk in store.load(0, 1, 10)] == [1]
        with pytest.raises(StoreError, match="it is damaged: chunk 2 is not what was written"):
            store.load(1, 1, 10)


def test_what_is_deleted_is_not_overwritten(store: Store) -> None:
    """Else each large task is written three times, where SQLite is built to do that."""
    assert store._db.execute("PRAGMA secure_delete").fetchone() == (0,)
