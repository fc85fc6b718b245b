"""Workloads for tests. Gates are files: a worker waits at one until the test makes it."""

from __future__ import annotations

import itertools
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conveyor import Pipeline, Producer


def wait_at(gate: Path, deadline_seconds: float = 60.0) -> None:
    """Return once the gate is open."""
    until = time.monotonic() + deadline_seconds
    while not gate.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{gate} never opened")
        time.sleep(0.005)


def count_up(first: int, tasks: int, gate_at: int, gate: Path) -> Iterator[int]:
    """Yield the numbers from `first`, with a gate before the one at position `gate_at`."""
    for number in range(tasks):
        if number == gate_at:
            wait_at(gate)
        yield first + number


class Worker:
    """Prints each task; `hold` is the task that waits at a gate, `villain` one that misbehaves."""

    def __init__(self, folder: Path, hold: int, villain: int, deed: str) -> None:
        self.folder, self.hold, self.villain, self.deed = folder, hold, villain, deed

    def __call__(self, task: int) -> None:
        if task == self.hold:
            (self.folder / "held-by").write_text(multiprocessing.current_process().name)
            wait_at(self.folder / "release")
        if task == self.villain:
            misbehave(self.deed)
        print(task)


def misbehave(deed: str) -> None:
    match deed:
        case "raise":
            raise ValueError("a task that fails")
        case "exit":
            raise SystemExit(0)
        case "_exit":
            os._exit(0)
        case "die holding the condition":  # as a SIGKILL inside task_done() would leave it
            multiprocessing.queues.JoinableQueue.task_done = die_holding_the_condition  # type: ignore[method-assign,assignment]
        case "die in the middle of a frame":  # as a SIGKILL inside the feeder's write would leave it
            multiprocessing.connection.Connection._send_bytes = die_in_the_middle_of_a_frame  # type: ignore[attr-defined]


def die_holding_the_condition(queue: Any) -> None:
    queue._cond.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle_of_a_frame(connection: Any, buffer: bytes) -> None:
    header = struct.pack("!i", len(buffer))
    os.write(connection.fileno(), header + bytes(buffer)[: len(buffer) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def numbers(
    folder: Path,
    tasks: int = 100,
    producers: int = 1,
    gate_at: int = -1,
    hold: int = -1,
    villain: int = -1,
    deed: str = "",
) -> Pipeline:
    """Numbers from 0, each printed once; every producer has its own thousand."""
    return Pipeline(
        name="numbers",
        producers=[
            Producer(count_up, 1_000_000 * share, tasks, gate_at, folder / "gate") for share in range(producers)
        ],
        consumer=Worker(folder, hold, villain, deed),
    )


def bad_producer(deed: str, tasks: int, gate: Path) -> Iterator[object]:
    """Yield some tasks, then misbehave."""
    yield from range(tasks)
    if gate.name == "gate":
        wait_at(gate)
    misbehave(deed)
    if deed:
        yield tasks  # one that dies on its way
        time.sleep(60.0)
    yield lambda: None  # cannot be pickled


def ending_badly(folder: Path, deed: str, tasks: int = 10, gated: bool = False) -> Pipeline:
    """A producer that ends as it should not, beside one that is well."""
    return Pipeline(
        name="ending-badly",
        producers=[
            Producer(bad_producer, deed, tasks, folder / ("gate" if gated else "no-gate"), name="bad"),
            Producer(count_up, 1_000_000, 10, -1, folder / "gate", name="good"),
        ],
        consumer=print,
    )


class Unborn:
    """A consumer that dies while it is unpickled in its process."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __setstate__(self, state: dict[str, int]) -> None:
        if os.getpid() != state["parent"]:
            os._exit(7)

    def __call__(self, task: object) -> None: ...


def unborn() -> Pipeline:
    """No consumer ever gets ready."""
    return Pipeline(producers=[Producer(range, 5)], consumer=Unborn(os.getpid()), consumers=2)


def big(size: int, tasks: int) -> Iterator[bytes]:
    for _ in range(tasks):
        yield bytes(size)


class Slow:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: bytes) -> None:
        wait_at(self.folder / "release")
        print(len(task))


def large(folder: Path, size: int = 1_000_000, tasks: int = 50) -> Pipeline:
    """Tasks that fill the pipe and more, for consumers that wait."""
    return Pipeline(
        name="large", producers=[Producer(big, size, tasks, name="big")], consumer=Slow(folder), consumers=2
    )


def padded(tasks: int, size: int) -> Iterator[tuple[int, bytes]]:
    for number in range(tasks):
        yield number, bytes(size)


class PrintsNumber:
    """Prints which task it was, once the gate is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: tuple[int, bytes]) -> None:
        wait_at(self.folder / "release", 100.0)
        print(task[0])


def bulky(folder: Path, tasks: int = 20_000, size: int = 1000) -> Pipeline:
    """Numbers with a ballast, printed once a gate is open; as many may wait as there are."""
    return Pipeline(
        name="bulky",
        producers=[Producer(padded, tasks, size, name="bulk")],
        consumer=PrintsNumber(folder),
        consumers=2,
        maxsize=0,
    )


def endless(folder: Path) -> Pipeline:
    """Tasks without end."""
    return Pipeline(name="endless", producers=[Producer(forever)], consumer=nothing, consumers=2)


def forever() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        time.sleep(0.001)


def nothing(task: object) -> None: ...


def brisk(tasks: int = 1000, producers: int = 2) -> Pipeline:
    """Numbers that take a millisecond each, made as fast."""
    return Pipeline(
        name="brisk",
        producers=[Producer(count_slowly, 1_000_000 * share, tasks) for share in range(producers)],
        consumer=take_a_millisecond,
    )


def count_slowly(first: int, tasks: int) -> Iterator[int]:
    for number in range(tasks):
        time.sleep(0.001)
        yield first + number


def take_a_millisecond(task: int) -> None:
    time.sleep(0.001)
    print(task)


def rush(folder: Path) -> Pipeline:
    """Far more work than one consumer can do, until the gate is open; then little, and without end."""
    return Pipeline(name="rush", producers=[Producer(rushing, folder / "gate")], consumer=take_a_while, maxsize=100)


def rushing(gate: Path) -> Iterator[int]:
    for number in itertools.count():
        if gate.exists():
            time.sleep(0.05)
        yield number


def take_a_while(task: int) -> None:
    time.sleep(0.02)


def print_colour(task: int) -> None:
    print(os.environ["CONVEYOR_TEST_COLOUR"])
