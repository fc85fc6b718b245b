"""What a spool cannot keep fails its producer; and no clock that was set back makes a task younger than new."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conveyor import Pipeline, Producer
from conveyor.errors import TaskTooLargeError
from conveyor.interruptions import Interruptions
from conveyor.ledger import Ledger, Order
from conveyor.producing import Production
from conveyor.queues import backlog, codec
from conveyor.queues.arena import NO_LIMIT, Arena, new_memory
from conveyor.queues.backlog import Backlog
from conveyor.queues.codec import Chunk
from conveyor.spool.folder import Spool
from conveyor.spool.store import Changes, RunRow, Store
from support.spools import HandLoop, chunk_row

LIMIT = 1 << 20


def growing(first: int) -> Iterator[bytes]:
    for size in (10, 100_000, 900_000, LIMIT + 1, 10):
        yield bytes(first + size)


def test_a_task_that_is_too_large_fails_its_producer_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Store, "max_payload_bytes", property(lambda store: LIMIT))
    pipeline = Pipeline(
        producers=[Producer(growing, 0, name="large"), Producer(range, 20, name="good")], consumer=len_of, consumers=1
    )
    with caplog.at_level(logging.INFO, logger="conveyor"):
        report = pipeline.run(spool=tmp_path / "spool")
    assert (report.produced, report.processed, report.failed, int(report.exit_code)) == (23, 23, 0, 3)
    (record,) = [record for record in caplog.records if record.message == "worker failed"]
    said = str(record.__dict__)
    assert "task 4 of those that it yielded in this start takes 1,048," in said
    assert f"and a spool keeps at most {LIMIT:,} in one task; yield smaller ones, or run without a spool" in said
    assert "Traceback" not in said


def len_of(task: object) -> None: ...


def test_the_limit_is_that_of_the_database(tmp_path: Path) -> None:
    """What is offered is written: with a lower limit, and so a smaller payload."""
    with contextlib.closing(Spool(tmp_path, "normal")) as spool:
        spool.store._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 3 << 20)
        payload = bytes(spool.store.max_payload_bytes)
        assert len(payload) == 2 << 20
        spool.store.write(Changes(chunks=[chunk_row(1, 1, payload)]))
        (chunk,) = spool.store.load(0, 1, 0)
        assert chunk.payload == payload


class Outlet:
    """A queue's end that keeps chunks up to a size."""

    counts_puts = True

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: int | None = max_bytes
        self.chunks: list[Chunk] = []

    def wanted(self) -> int:
        return 1000

    def offer(self, chunk: Chunk, timeout_seconds: float) -> bool:
        assert self.max_bytes is None or chunk.size <= self.max_bytes
        self.chunks.append(chunk)
        return True

    def close(self) -> None: ...

    def tasks(self) -> list[object]:
        return [
            task
            for chunk in self.chunks
            for task in codec.tasks_of(chunk.codec, memoryview(b"".join(chunk.pieces)), chunk.count, 0, chunk.count)
        ]


@pytest.mark.parametrize("small", [1, "word", b"\0" * 70_000, bytearray(70_000)])
def test_tasks_that_are_too_large_together_travel_apart(small: object) -> None:
    """The size of a batch follows the tasks before it, so it can be far too large for those that come."""
    tasks = [*itertools.repeat(small, 300), *itertools.repeat("x" * 400_000, 40)]
    ledger, outlet = Ledger(1), Outlet(1_000_000)
    Production(outlet, ledger.rows[0], Interruptions(ledger, ledger.rows[0], Order.STOP)).run(iter(tasks))
    assert outlet.tasks() == tasks


def test_one_that_is_too_large_alone_is_told_by_its_number() -> None:
    ledger, outlet = Ledger(1), Outlet(1_000_000)
    tasks = [*range(200), "x" * 2_000_000]
    production = Production(outlet, ledger.rows[0], Interruptions(ledger, ledger.rows[0], Order.STOP))
    with pytest.raises(TaskTooLargeError, match=r"task 201 of those .* takes 2,000,0\d\d bytes"):
        production.run(iter(tasks))
    assert outlet.tasks() == tasks[:200]


@pytest.mark.parametrize("put_at", [1e18, 4e9, 0.0, -1e300])
def test_a_task_is_never_younger_than_new(tmp_path: Path, put_at: float) -> None:
    """When it was put is known by a clock that may have been set back since, or forward."""
    with contextlib.closing(Spool(tmp_path, "normal")) as spool:
        spool.store.write(Changes(chunks=[chunk_row(1, 1)._replace(put_at=put_at)], run=RunRow("numbers")))
        restored = spool.begin("numbers", {}, 1)
        loaded = Backlog(spool, restored, Arena(new_memory(), NO_LIMIT), HandLoop(), lambda: None)
        ((chunk, _),) = loaded.load(is_urgent=True)
        age_ns = time.monotonic_ns() - chunk.offered_ns
    assert 0 <= age_ns <= (backlog.MAX_AGE_SECONDS + 100) * 1e9
