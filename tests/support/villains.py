"""Workloads whose workers misbehave in ways that break what they share with others."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conveyor import Pipeline, Producer
from conveyor.ledger import Row
from support.workloads import die_holding_the_condition, wait_at


def first_time(marker: Path) -> bool:
    """Return whether nobody has asked for this marker before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def count_slowly(tasks: int) -> Iterator[int]:
    for number in range(tasks):
        time.sleep(0.2)
        yield number


class DiesReporting:
    """Dies inside `task_done()` of the task after which nothing waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: int) -> None:
        if task == 1 and first_time(self.folder / "died"):
            multiprocessing.queues.JoinableQueue.task_done = die_holding_the_condition  # type: ignore[method-assign,assignment]


def reporting(folder: Path) -> Pipeline:
    return Pipeline(producers=[Producer(count_slowly, 20)], consumer=DiesReporting(folder), consumers=1)


def hold_the_write_lock(folder: Path) -> Iterator[int]:
    yield 1
    wait_at(folder / "taken")
    for thing in gc.get_objects():
        if isinstance(thing, multiprocessing.queues.Queue):
            thing._wlock.acquire()  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


def leave_early(folder: Path) -> Iterator[int]:
    wait_at(folder / "locked")
    yield from range(5)
    sys.exit(0)


class Marks:
    """Says that a task was taken, and prints it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: int) -> None:
        (self.folder / "taken").touch()
        print(task)


def locked_out(folder: Path) -> Pipeline:
    """One producer dies with the write lock, another leaves with tasks that it cannot send."""
    producers = [Producer(hold_the_write_lock, folder), Producer(leave_early, folder)]
    return Pipeline(producers=producers, consumer=Marks(folder), consumers=2)


def frames(size: int) -> Iterator[bytes]:
    for _ in range(50):
        yield bytes(size)


class Waits:
    """Is in its task until the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: bytes) -> None:
        wait_at(self.folder / "never")


def half_sent(folder: Path) -> Pipeline:
    """A producer whose feeder is in the middle of a frame for as long as nobody reads."""
    return Pipeline(producers=[Producer(frames, 5_000_000, name="big")], consumer=Waits(folder), consumers=1)


def die_before_the_count(folder: Path, tasks: int) -> Iterator[int]:
    """Yield the numbers; die once between a put and its count."""
    count = Row.count_put

    def dying(row: Row, now_ns: int) -> None:
        if row.read(now_ns).put == 9 and first_time(folder / "died"):
            wait_at(folder / "taken")
            os.kill(os.getpid(), signal.SIGKILL)
        count(row, now_ns)

    Row.count_put = dying  # type: ignore[method-assign,assignment]
    yield from range(tasks)


class MarksTenth(Marks):
    """Says when it has the task that is not counted."""

    def __call__(self, task: int) -> None:
        if task == 9:
            super().__call__(task)


def in_doubt(folder: Path, restart: bool = False) -> Pipeline:
    producer = Producer(die_before_the_count, folder, 10, may_restart=restart)
    return Pipeline(producers=[producer], consumer=MarksTenth(folder), consumers=1)


def leave_a_thread() -> Iterator[int]:
    yield from range(5)
    threading.Thread(target=time.sleep, args=(10_000.0,)).start()


def lingering() -> Pipeline:
    """A producer whose process does not end with its work."""
    return Pipeline(producers=[Producer(leave_a_thread)], consumer=print, consumers=1)


class Forks:
    """Forks: a child that returns into our loop, or one that outlives its killed parent."""

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def __call__(self, task: int) -> None:
        if self.deed == "pool":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(abs, [task]) == [task]
        elif task == 3:
            child = os.fork()
            if child == 0:
                self.be_a_child()
            elif self.deed == "outlive":
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                os.waitpid(child, 0)

    def be_a_child(self) -> None:
        match self.deed:
            case "outlive":
                time.sleep(20.0)
                os._exit(0)
            case "exit":
                sys.exit(3)
            case "raise":
                raise ValueError("a child's own")


def fork_and_go_on(deed: str, tasks: int) -> Iterator[int]:
    """Yield the numbers; in the middle, fork a child that leaves in a way of its own."""
    for task in range(tasks):
        if task == 3 and os.fork() == 0:
            Forks(deed).be_a_child()
            return
        yield task


def forking_producer(deed: str) -> Pipeline:
    return Pipeline(producers=[Producer(fork_and_go_on, deed, 20)], consumer=print, consumers=1)


def forking(deed: str, tasks: int = 20) -> Pipeline:
    return Pipeline(producers=[Producer(range, tasks)], consumer=Forks(deed), consumers=2)


class UnspeakableError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Raises:
    """Raises what cannot well be told."""

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def __call__(self, task: Any) -> None:
        match self.deed:
            case "unspeakable":
                raise UnspeakableError
            case "endless":
                raise ValueError("x" * 50_000_000)
            case "odd":
                raise type("\udc80", (Exception,), {})("\udc80")


def raising(deed: str) -> Pipeline:
    return Pipeline(producers=[Producer(range, 3)], consumer=Raises(deed), consumers=1)
