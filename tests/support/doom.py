"""Workers that die, or stop, at a named point of the `leased` queue's protocol.

A `Trap` travels to a worker as part of its function or of its arguments. There it replaces one method, so that the
process meets its end just before or just after a call of it: once in a run, whoever is the first.
"""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conveyor import Pipeline, Producer
from conveyor.consuming import Consumption
from conveyor.ledger import Row
from conveyor.producing import Production
from conveyor.queues import wire
from conveyor.queues.arena import Arena
from conveyor.queues.leased_ends import LeasedIntake, LeasedOutlet
from support.diary import Diary
from support.villains import first_time
from support.workloads import wait_at

# Where a worker can be struck: the method, and the moment.
CONSUMER_POINTS: dict[str, tuple[Any, str, str]] = {
    "before it is ready": (LeasedIntake, "_connect", "before"),
    "ready and without a lease": (LeasedIntake, "_connect", "after"),
    "about to take": (LeasedIntake, "take", "before"),
    "lease received, not opened": (LeasedIntake, "take", "after"),
    "lease opened": (Row, "open_lease", "after"),
    "tasks claimed": (Row, "allowed", "after"),
    "before the first task": (Row, "begin_tasks", "after"),
    "tasks done, lease open": (Row, "close_lease", "before"),
    "lease closed, not reported": (Row, "close_lease", "after"),
    "about to report": (LeasedIntake, "report", "before"),
    "reported": (LeasedIntake, "report", "after"),
}
# The same, but only on the way of a failure: from the exception to the end of its report.
FAILING_POINTS: dict[str, tuple[Any, str, str]] = {
    "raised, not noted": (Row, "_note", "before"),
    "noted, not counted": (Row, "_note", "after"),
    "counted as failed": (Row, "fail_task", "after"),
    "counted as given back": (Row, "give_back_task", "after"),
    "failed, lease open": (Row, "close_lease", "before"),
    "failed, lease closed": (Row, "close_lease", "after"),
    "about to tell": (LeasedIntake, "report", "before"),
    "told, not reported": (wire, "done", "before"),
    "failure reported": (LeasedIntake, "report", "after"),
}
PRODUCER_POINTS: dict[str, tuple[Any, str, str]] = {
    "before its first chunk": (LeasedOutlet, "_connect", "before"),
    "before a chunk is sent": (LeasedOutlet, "offer", "before"),
    "chunk written, not sent": (Arena, "write", "after"),
    "after a chunk is sent": (LeasedOutlet, "offer", "after"),
    "blocked for credit": (LeasedOutlet, "_wait", "before"),
    "credit received": (LeasedOutlet, "_wait", "after"),
    "in the flusher": (Production, "_ship", "before"),
}
SILENT = (
    "_connect",
    "begin_tasks",
    "close_lease",
    "report",
    "_note",
    "fail_task",
    "give_back_task",
)  # of the methods: a call is a success, whatever it returns
ONCE = ("before it is ready", "ready and without a lease", "before its first chunk")  # in each process


def strike(deed: str) -> None:
    """Have this process meet its end, or stop until somebody lets it go on."""
    if deed == "_exit":
        os._exit(0)
    if deed == "exit":
        sys.exit(0)
    if deed == "raise":
        raise ValueError("a task that fails")
    if deed in ("hang", "hang, deaf to SIGTERM", "hang, with a handler of its own"):
        hang(deed)
    if deed == "die at the next report":
        LeasedIntake.report = dying_after(LeasedIntake.report)  # type: ignore[method-assign]
        return
    os.kill(os.getpid(), signal.Signals[deed])


def hang(deed: str) -> None:
    """Never return; a handler of the task's own makes it raise."""
    if deed == "hang, deaf to SIGTERM":  # as one in C code is
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if deed == "hang, with a handler of its own":
        signal.signal(signal.SIGTERM, lambda number, frame: strike("raise"))
    threading.Event().wait()


def dying_after(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method as one after which the process dies."""

    def dying(*args: Any) -> None:
        method(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


class Trap:
    """Armed where it is unpickled."""

    def __init__(self, folder: Path, point: str, deed: str, call: int = 3) -> None:
        """Strike at the point, at the earliest when it is reached for that many times."""
        self.folder, self.point, self.deed = folder, point, deed
        self.call = 1 if point in ONCE else call
        self.is_armed = point not in FAILING_POINTS

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        point = (CONSUMER_POINTS | FAILING_POINTS | PRODUCER_POINTS).get(self.point)
        if point is not None:
            owner, name, moment = point
            setattr(owner, name, self._trapped(getattr(owner, name), moment))
        if self.point in FAILING_POINTS:
            Consumption._fail = self._arming(Consumption._fail)  # type: ignore[method-assign]
            LeasedIntake.report = self._disarming(LeasedIntake.report)  # type: ignore[method-assign]

    def _arming(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def arming(*args: Any) -> Any:
            self.is_armed = True
            return method(*args)

        return arming

    def _disarming(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def disarming(*args: Any) -> None:
            method(*args)
            self.is_armed = False

        return disarming

    def _trapped(self, method: Callable[..., Any], moment: str) -> Callable[..., Any]:
        calls = 0

        @functools.wraps(method)
        def trapped(*args: Any) -> Any:
            nonlocal calls
            if self.point == "in the flusher" and threading.current_thread().name != "flusher":
                return method(*args)
            if not self.is_armed:
                return method(*args)
            if moment == "before":
                calls += 1
                if calls >= self.call:
                    self.spring()
            result = method(*args)
            if moment == "after" and (method.__name__ in SILENT or (result is not None and result is not False)):
                calls += 1
                if calls >= self.call:
                    self.spring()
            return result

        return trapped

    def spring(self) -> None:
        if first_time(self.folder / "struck"):
            (self.folder / "victim").write_text(multiprocessing.current_process().name)
            strike(self.deed)


class Noting:
    """Notes each task in the diary, when it is begun and when it is done, and takes some milliseconds for it.

    With task `at` it strikes: once, or with `always` each time; at the beginning, or at the very end. Task `hold` waits
    at a gate.
    """

    def __init__(
        self, folder: Path, trap: Trap, millis: float, at: int, deed: str, always: bool, at_end: bool, hold: int
    ) -> None:
        self.folder, self.trap, self.seconds = folder, trap, millis / 1000
        self.at, self.deed, self.always, self.at_end, self.hold = at, deed, always, at_end, hold
        self.diary = Diary(folder)

    def __call__(self, task: int) -> None:
        self.diary.begin(task)
        if task == self.hold:
            (self.folder / "held-by").write_text(multiprocessing.current_process().name)
            wait_at(self.folder / "release")
        if task == self.at and not self.at_end:
            self.strike()
        if self.seconds:
            time.sleep(self.seconds)
        self.diary.end(task)
        if task == self.at and self.at_end:
            self.strike()

    def strike(self) -> None:
        if first_time(self.folder / "struck") or self.always:
            (self.folder / "victim").write_text(multiprocessing.current_process().name)
            strike(self.deed)


def numbered(first: int, tasks: int, trap: Trap, gate_at: int, gate: Path, pause: bool) -> Iterator[int]:
    """Yield the numbers from `first`, with a gate before the one at position `gate_at`, or some rests on the way."""
    for number in range(tasks):
        if number == gate_at:
            wait_at(gate)
        if pause and number % 30 == 17:
            time.sleep(0.01)
        yield first + number


def doomed(
    folder: Path,
    point: str = "",
    deed: str = "SIGKILL",
    tasks: int = 300,
    producers: int = 2,
    millis: float = 0.0,
    at: int = -1,
    always: bool = False,
    at_end: bool = False,
    hold: int = -1,
    gate_at: int = -1,
    pause: bool = False,
) -> Pipeline:
    """Numbers, each producer's from a million of its own, done by consumers that keep a diary; somebody is struck."""
    trap, none = Trap(folder, point, deed), untrapped(folder)
    makers = [none] * producers
    if point in PRODUCER_POINTS:
        makers[0], trap = trap, none
    return Pipeline(
        name="doomed",
        producers=[
            Producer(numbered, 1_000_000 * share, tasks, maker, gate_at, folder / "gate", pause)
            for share, maker in enumerate(makers)
        ],
        consumer=Noting(folder, trap, millis, at, deed, always, at_end, hold),
    )


def leave_an_answer_unread(folder: Path, supervisor: int) -> Iterator[int]:
    """Yield numbers until an answer of the queue lies unread here; stop the supervisor, yield one more and leave.

    So the end of the line, and what was put last, are seen at once. Its pid is in a file: the supervisor may be stopped
    before anybody has asked it.
    """
    (folder / "pid").write_text(str(os.getpid()))
    for number in range(100_000):
        yield number
        outlet = next(thing for thing in gc.get_objects() if isinstance(thing, LeasedOutlet))
        if not (outlet._has_asked and outlet._credit > 0 and outlet._line is not None):
            continue
        if select.select([outlet._line.socket], [], [], 0.02)[0]:
            os.kill(supervisor, signal.SIGSTOP)
            yield number + 1
            (folder / "put").write_text(str(number + 2))
            return


def hasty(folder: Path) -> Pipeline:
    """A producer that leaves before it has read what it was told."""
    producer = Producer(leave_an_answer_unread, folder, os.getpid())
    return Pipeline(
        producers=[producer], consumer=Noting(folder, untrapped(folder), 0.3, -1, "", False, False, -1), consumers=2
    )


def untrapped(folder: Path) -> Trap:
    """Return what has nobody struck."""
    return Trap(folder, "", "")


class Brisk:
    """Notes fast tasks, and among them some that take a while."""

    def __init__(self, folder: Path) -> None:
        self.diary = Diary(folder)

    def __call__(self, task: int) -> None:
        self.diary.begin(task)
        if task % 1000 == 0:
            time.sleep(0.005)
        until = time.perf_counter_ns() + 5_000
        while time.perf_counter_ns() < until:
            pass
        self.diary.end(task)


def for_ever(first: int) -> Iterator[int]:
    return itertools.count(first)


class Naps:
    """Takes some milliseconds for a task, or next to no time."""

    def __init__(self, millis: float) -> None:
        self.seconds = millis / 1000

    def __call__(self, task: int) -> None:
        if self.seconds:
            time.sleep(self.seconds)


def endless(folder: Path, millis: float) -> Pipeline:
    """Numbers without end."""
    return Pipeline(name="endless", producers=[Producer(for_ever, 0)] * 2, consumer=Naps(millis), consumers=4)


class Mixed:
    """Notes tasks; most take next to no time, some a few milliseconds, and a few a blink of an eye."""

    def __init__(self, folder: Path) -> None:
        self.diary = Diary(folder)

    def __call__(self, task: int) -> None:
        self.diary.begin(task)
        if task % 100 == 0:
            time.sleep(0.05)
        elif task % 5 == 0:
            time.sleep(0.002)
        self.diary.end(task)


def mixed(folder: Path, tasks: int = -1, producers: int = 3) -> Pipeline:
    """Numbers, each producer's from a million of its own; without end if not told where."""
    made = [
        Producer(for_ever, 1_000_000 * share)
        if tasks < 0
        else Producer(numbered, 1_000_000 * share, tasks, untrapped(folder), -1, folder, False)
        for share in range(producers)
    ]
    return Pipeline(name="mixed", producers=made, consumer=Mixed(folder))


class Leaky:
    """Notes each task, and keeps some memory with it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.diary, self.size, self.kept = Diary(folder), size, list[bytes]()

    def __call__(self, task: int) -> None:
        self.diary.begin(task)
        time.sleep(0.06)  # longer than the time between two looks at the memory
        self.kept.append(b"x" * self.size)
        self.diary.end(task)


def leaky(folder: Path, tasks: int, size: int) -> Pipeline:
    """Tasks after each of which the consumer's process is so many bytes larger."""
    producer = Producer(numbered, 0, tasks, untrapped(folder), -1, folder, False)
    return Pipeline(name="leaky", producers=[producer], consumer=Leaky(folder, size), consumers=2)


class Troubled:
    """Notes tasks; one hangs, one kills its worker, one fails, each time."""

    def __init__(self, folder: Path) -> None:
        self.diary = Diary(folder)

    def __call__(self, task: int) -> None:
        self.diary.begin(task)
        time.sleep(0.001)
        if task in TROUBLES:
            strike(TROUBLES[task])
        self.diary.end(task)


TROUBLES = {100: "hang", 200: "SIGKILL", 300: "raise"}


def troubled(folder: Path, tasks: int) -> Pipeline:
    """Good tasks with three bad ones among them."""
    producer = Producer(numbered, 0, tasks, untrapped(folder), -1, folder, False)
    return Pipeline(name="troubled", producers=[producer], consumer=Troubled(folder), consumers=3)
