"""The drop-in queues against those of `multiprocessing` whose place they take: the same program, in turn.

python tests/benchmarks/dropin.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from typing import Any

import conveyor

TASK = ("chef-1", "bun", 1, 3.14)
SIZES = (0, 1 << 10, 1 << 16, 1 << 18, 1 << 20)  # of an item in bytes; 0 is the small tuple


def put_all(queue: Any, items: int, size: int) -> None:
    for _ in range(items):
        queue.put(bytes(size) if size else TASK)


def get_for_ever(queue: Any) -> None:
    while True:
        queue.get()
        queue.task_done()


def rate(queues: Any, workers: int, items: int, size: int, maxsize: int) -> float:
    """Return items a second, from the first put to the return of `join`."""
    queue = queues.JoinableQueue(maxsize)
    process = multiprocessing.get_context("fork").Process
    getters = [process(target=get_for_ever, args=(queue,), daemon=True) for _ in range(workers)]
    putters = [process(target=put_all, args=(queue, items // workers, size)) for _ in range(workers)]
    for getter in getters:
        getter.start()
    began = time.perf_counter()
    for putter in putters:
        putter.start()
    for putter in putters:
        putter.join()
    queue.join()
    took = time.perf_counter() - began
    for getter in getters:
        getter.kill()
        getter.join()
    return items / took


def tell_delays(there: Any, back: Any) -> None:
    while (sent := there.get()) is not None:
        back.put(time.perf_counter() - sent)


def delays(queues: Any, pause_seconds: float, rounds: int) -> list[float]:
    """Return the sorted times from a put into an idle queue to its get in another process."""
    there, back = queues.Queue(), queues.Queue()
    child = multiprocessing.get_context("fork").Process(target=tell_delays, args=(there, back))
    child.start()
    found = []
    for _ in range(rounds):
        time.sleep(pause_seconds)
        there.put(time.perf_counter())
        found.append(back.get())
    there.put(None)
    child.join()
    return sorted(found[1:])


def compare(workers: int, items: int, size: int, maxsize: int, rounds: int) -> str:
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(rate(multiprocessing, workers, items // 2, size, maxsize))
        ours.append(rate(conveyor, workers, items, size, maxsize))
    a, b = statistics.median(ours), statistics.median(theirs)
    what = f"{size:,} bytes" if size else "small tuple"
    return f"{workers}x{workers} {what:>15} maxsize {maxsize:4}   {a:9,.0f}/s   theirs {b:9,.0f}/s   {a / b:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}, median of {given.rounds}")
    for size in SIZES:
        items = given.items if size <= 1 << 10 else given.items // 20 if size <= 1 << 16 else given.items // 200
        for workers in (1, 2):
            for maxsize in (1000, 0) if not size else (100,):
                print(compare(workers, items, size, maxsize, given.rounds), flush=True)
    for _ in range(given.rounds):
        for name, queues in (("ours", conveyor), ("theirs", multiprocessing)):
            found = delays(queues, 0.003, 300)
            p50, p99 = (1e6 * found[len(found) * share // 100] for share in (50, 99))
            print(f"{name:6} put to get, idle: p50 {p50:5.0f} us, p99 {p99:5.0f} us", flush=True)


if __name__ == "__main__":
    main()
