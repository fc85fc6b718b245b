"""What the standard library offers, used as its documentation shows, with its default start method.

Where consumers are killed on purpose, the programs around a queue watch their processes and replace the dead.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from conveyor.bench.jobs import Contestant, Job
from conveyor.bench.tasks import function, produce

_LOOK_SECONDS = 0.05


# -- queues ---------------------------------------------------------------------------------------------------


class Crew:
    """The processes of a program without a pool."""

    def __init__(self, job: Job) -> None:
        # Fork, the default, would copy the thread that waits in `join` while others are replaced.
        self.context: Any = multiprocessing.get_context("forkserver" if job.replace_dead else None)
        self._job = job
        self._consumers: list[BaseProcess] = []
        self._producers: list[BaseProcess] = []
        self._work: tuple[Callable[..., None], Any] | None = None

    def start(self, consume: Callable[..., None], put_all: Callable[..., None], carrier: object) -> None:
        """Start the consumers, then the producers."""
        self._work = consume, carrier
        self._consumers = [self._consumer() for _ in range(self._job.consumers)]
        for part in range(self._job.producers):
            producer = self.context.Process(target=put_all, args=(carrier, self._job, part))
            producer.start()
            self._producers.append(producer)

    def _consumer(self) -> BaseProcess:
        assert self._work is not None
        consume, carrier = self._work
        process: BaseProcess = self.context.Process(target=consume, args=(carrier, self._job), daemon=True)
        process.start()
        return process

    def until_all_is_put(self) -> None:
        """Return when the producers have ended."""
        for producer in self._producers:
            self._until_ended(producer)

    def until_ended(self) -> None:
        """Return when the consumers have."""
        for process in list(self._consumers):
            process.join()

    def until(self, wait: Callable[[], object]) -> None:
        """Return when this function has returned."""
        if not self._job.replace_dead:
            wait()
            return
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(_LOOK_SECONDS)
            self._replace_dead()

    def stop(self) -> None:
        """End the consumers, which wait for tasks that will not come."""
        for consumer in self._consumers:
            consumer.terminate()
            consumer.join()

    def _until_ended(self, process: BaseProcess) -> None:
        while process.is_alive():
            process.join(_LOOK_SECONDS if self._job.replace_dead else None)
            self._replace_dead()

    def _replace_dead(self) -> None:
        if self._job.replace_dead:
            self._consumers = [c if c.is_alive() else self._consumer() for c in self._consumers]


def run_joinable(job: Job, queue: Callable[..., Any] | None = None) -> None:
    """Run the job with a `JoinableQueue`: the seed's third chapter."""
    crew = Crew(job)
    tasks = crew.context.JoinableQueue(job.maxsize) if queue is None else queue(job.maxsize, ctx=crew.context)
    crew.start(_do_for_ever, _put_all, tasks)
    crew.until_all_is_put()
    crew.until(tasks.join)
    crew.stop()


def _run_sentinel(job: Job) -> None:
    crew = Crew(job)
    tasks = crew.context.Queue(job.maxsize)
    crew.start(_do_until_none, _put_all, tasks)
    crew.until_all_is_put()
    for _ in range(job.consumers):
        tasks.put(None)
    crew.until_ended()


def _put_all(tasks: Any, job: Job, part: int) -> None:
    for task in produce(job, part, job.producers):
        tasks.put(task)


def _do_for_ever(tasks: Any, job: Job) -> None:
    do = function(job.payload)
    while True:
        do(tasks.get())
        tasks.task_done()


def _do_until_none(tasks: Any, job: Job) -> None:
    do = function(job.payload)
    while (task := tasks.get()) is not None:
        do(task)


# -- pools ----------------------------------------------------------------------------------------------------


def _run_pool(job: Job, batch: int = 1) -> None:
    with multiprocessing.Pool(job.consumers) as pool:
        for _ in pool.imap_unordered(function(job.payload), produce(job, 0, 1), chunksize=batch):
            pass


def _run_pool_in_chunks(job: Job) -> None:
    _run_pool(job, job.batch)


def _run_executor(job: Job) -> None:
    with concurrent.futures.ProcessPoolExecutor(job.consumers) as executor:
        for _ in executor.map(function(job.payload), produce(job, 0, 1), chunksize=job.batch):
            pass


CONTESTANTS: Sequence[Contestant] = (
    Contestant(name="JoinableQueue", how="put, get, task_done, join", run=run_joinable, expected_rate=100_000),
    Contestant(name="Queue", how="put, get, a None for each consumer", run=_run_sentinel, expected_rate=120_000),
    Contestant(
        name="Pool",
        how="imap_unordered, default chunksize (1)",
        run=_run_pool,
        expected_rate=30_000,
    ),
    Contestant(
        name="Pool, chunks",
        how="imap_unordered, chunksize chosen for the row",
        run=_run_pool_in_chunks,
        expected_rate=600_000,
    ),
    Contestant(
        name="ProcessPoolExecutor",
        how="map, chunksize chosen for the row",
        run=_run_executor,
        expected_rate=400_000,
    ),
)
