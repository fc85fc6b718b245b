"""Libraries that others have written for the same work, each in the best way that its documentation shows.

They are the optional extra `bench`. Imported when they run, and by name, as none of them has annotations.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from conveyor.bench.jobs import Contestant, Job
from conveyor.bench.stdlib import Crew
from conveyor.bench.tasks import SIZES, function, produce

EXTRA = "pip install 'conveyor[bench]'"
_FIFO_BYTES = 1_000_000  # its default
_FIFO_MOST_BYTES = 64 * 1024 * 1024


# -- faster-fifo: a queue only; programs around it are ours, as with the standard library's ---------------------


def _run_fifo(job: Job) -> None:
    # It is bounded by bytes: as many as `maxsize` tasks have, but at least its default.
    wanted = int(1.1 * job.maxsize * SIZES.get(job.payload, 0))
    tasks = importlib.import_module("faster_fifo").Queue(max(_FIFO_BYTES, min(wanted, _FIFO_MOST_BYTES)))
    crew = Crew(job)
    crew.start(_get_many if job.batch > 1 else _get_one, _put_many if job.batch > 1 else _put_one, tasks)
    crew.until_all_is_put()
    crew.until(functools.partial(_wait_for_empty, tasks) if job.replace_dead else lambda: None)
    for _ in range(job.consumers):
        tasks.put(None)
    crew.until_ended()


def _wait_for_empty(tasks: Any) -> None:
    """Return when all is taken: before that, consumers that are killed must be replaced."""
    while not tasks.empty():
        time.sleep(0.01)  # these queues tell nobody that they are empty


def _put_one(tasks: Any, job: Job, part: int) -> None:
    for task in produce(job, part, job.producers):
        _patiently(tasks.put, task)


def _put_many(tasks: Any, job: Job, part: int) -> None:
    iterator = produce(job, part, job.producers)
    while batch := list(itertools.islice(iterator, job.batch)):
        _patiently(tasks.put_many, batch)


def _patiently(put: Callable[[Any], None], what: Any) -> None:
    """Wait for room as long as it takes; it gives up after ten seconds by itself."""
    while True:
        try:
            put(what)
        except queue.Full:
            continue
        return


def _get_one(tasks: Any, job: Job) -> None:
    do = function(job.payload)
    while True:
        try:
            task = tasks.get()
        except queue.Empty:
            continue
        if task is None:
            return
        do(task)


def _get_many(tasks: Any, job: Job) -> None:
    do = function(job.payload)
    while True:
        try:
            batch = tasks.get_many(max_messages_to_get=job.batch)
        except queue.Empty:
            continue
        for place, task in enumerate(batch):
            if task is None:
                for sentinel in batch[place + 1 :]:  # those of the other consumers
                    tasks.put(sentinel)
                return
            do(task)


# -- pools ----------------------------------------------------------------------------------------------------


def _run_mpire(job: Job, chunks: bool) -> None:
    pool_of = importlib.import_module("mpire").WorkerPool
    # Each task wrapped, as it passes a tuple's parts as so many arguments.
    tasks = ((task,) for task in produce(job, 0, 1))
    with pool_of(job.consumers) as pool:
        chosen = {"chunk_size": job.batch} if chunks else {}
        for _ in pool.imap_unordered(function(job.payload), tasks, iterable_len=job.tasks, **chosen):
            pass


def _run_pebble(job: Job) -> None:
    """Go on after a task that its pool gives up: the others are still done."""
    pebble = importlib.import_module("pebble")
    given_up = 0
    with pebble.ProcessPool(job.consumers) as pool:
        results = pool.map(function(job.payload), produce(job, 0, 1), chunksize=job.batch).result()
        while True:
            try:
                next(results)
            except StopIteration:
                break
            except pebble.ProcessExpired:
                given_up += 1
    if given_up:
        raise RuntimeError(f"ProcessExpired for {given_up} tasks")


# -- queues on disk -------------------------------------------------------------------------------------------


def _run_persist(job: Job) -> None:
    """Put in one thread, and get, do and acknowledge in another: it is for the threads of one process."""
    queue_of = importlib.import_module("persistqueue").SQLiteAckQueue
    with tempfile.TemporaryDirectory(prefix="conveyor-bench-persist-") as folder:
        tasks, do = queue_of(folder, multithreading=True, auto_commit=True), function(job.payload)

        def put() -> None:
            for task in produce(job, 0, 1):
                tasks.put(task)

        producer = threading.Thread(target=put)
        producer.start()
        for _ in range(job.tasks):
            task = tasks.get()
            do(task)
            tasks.ack(task)
        producer.join()
        tasks.close()


CONTESTANTS: Sequence[Contestant] = (
    Contestant(
        name="faster-fifo",
        how="put_many, get_many; put, get where the batch is 1",
        run=_run_fifo,
        expected_rate=250_000,
        module="faster_fifo",
    ),
    Contestant(
        name="mpire",
        how="imap_unordered, chunk_size left to it",
        run=functools.partial(_run_mpire, chunks=False),
        expected_rate=200_000,
        module="mpire",
    ),
    Contestant(
        name="mpire, chunks",
        how="imap_unordered, chunk_size chosen for the row",
        run=functools.partial(_run_mpire, chunks=True),
        expected_rate=200_000,
        module="mpire",
    ),
    Contestant(
        name="persist-queue",
        how="SQLiteAckQueue with auto_commit, two threads of one process",
        run=_run_persist,
        expected_rate=1_500,
        module="persistqueue",
    ),
    Contestant(
        name="pebble",
        how="map, chunksize chosen for the row",
        run=_run_pebble,
        expected_rate=200_000,
        module="pebble",
    ),
)
