"""What counting, timing and watching cost: each queue in a pipeline, against a plain program with the same queue.

Run by `make bench`. Both sides in turn, several times; what is compared are the medians of one run on one machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

import conveyor
from conveyor import Pipeline, Producer

TASK = ("chef-1", "bun", 1, 3.14)
MAXSIZE = 1000


def make(tasks: int) -> Iterator[tuple[str, str, int, float]]:
    for _ in range(tasks):
        yield TASK


def do(task: object) -> None: ...


def in_a_pipeline(queue: str, workers: int, tasks: int) -> None:
    """Do the work with Conveyor; all of it, or raise."""
    producers = [Producer(make, tasks // workers) for _ in range(workers)]
    report = Pipeline(producers=producers, consumer=do, consumers=workers, maxsize=MAXSIZE, queue=queue).run()
    assert report.processed == tasks, report


def put_all(queue: Any, tasks: int) -> None:
    for task in make(tasks):
        queue.put(task)


def get_until_none(queue: Any, received: Any) -> None:
    number = 0
    while (task := queue.get()) is not None:
        do(task)
        number += 1
    with received.get_lock():
        received.value += number


def get_for_ever(queue: Any, received: Any) -> None:
    while True:
        do(queue.get())
        with received.get_lock():
            received.value += 1
        queue.task_done()


def plain(queue: str, workers: int, tasks: int) -> None:
    """Do the work as a program with `multiprocessing` alone does it."""
    context: BaseContext = multiprocessing.get_context("forkserver")
    carrier: Any = context.Queue(MAXSIZE) if queue == "sentinel" else context.JoinableQueue(MAXSIZE)
    received = context.Value("q", 0)
    consume = get_until_none if queue == "sentinel" else get_for_ever
    process: Callable[..., Any] = context.Process  # type: ignore[attr-defined]
    consumers = [process(target=consume, args=(carrier, received), daemon=True) for _ in range(workers)]
    producers = [process(target=put_all, args=(carrier, tasks // workers)) for _ in range(workers)]
    for worker in (*consumers, *producers):
        worker.start()
    for worker in producers:
        worker.join()
    if queue == "sentinel":
        for _ in range(workers):
            carrier.put(None)
        for worker in consumers:
            worker.join()
    else:
        carrier.join()
        for worker in consumers:
            worker.terminate()
            worker.join()
    assert received.value == tasks, received.value


def seconds(work: Callable[[str, int, int], None], *arguments: Any) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def compare(queue: str, workers: int, tasks: int, rounds: int) -> str:
    """Return a line of the table: both sides in turn, and the ratio of their medians."""
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(seconds(plain, queue, workers, tasks))
        ours.append(seconds(in_a_pipeline, queue, workers, tasks))
    rate, bare = (tasks / statistics.median(side) for side in (ours, theirs))
    name = f"{queue} {workers}x{workers}"
    return f"{name:14} pipeline {rate:9,.0f}/s   plain {bare:9,.0f}/s   {rate / bare:.2f} of plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    where = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}"
    print(f"conveyor {conveyor.__version__}, {where}")
    print(f"{given.tasks:,} small tuples, maxsize {MAXSIZE}, median of {given.rounds}")
    for queue in ("sentinel", "joinable"):
        for workers in (1, 2):
            print(compare(queue, workers, given.tasks, given.rounds), flush=True)


if __name__ == "__main__":
    main()
