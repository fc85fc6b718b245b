"""Workloads whose tasks raise, so many times each: how often they did so far is in files, which no SIGKILL undoes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conveyor import Pipeline, Producer, Report, Results
from conveyor.loop import Loop
from conveyor.pipeline import Attachment, StopRequests
from conveyor.results import Inbox
from conveyor.settings import read
from conveyor.snapshot import RunStatistics
from conveyor.supervisor import Supervisor
from support.diary import Diary
from support.doom import Trap, strike, untrapped
from support.workloads import wait_at

RAISE = "raise"


def attempt_at(folder: Path, task: int) -> int:
    """Count an attempt at a task; return how many there were before."""
    descriptor = os.open(folder / f"{task}.attempts", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, b".")
        return os.fstat(descriptor).st_size - 1
    finally:
        os.close(descriptor)


class Fateful:
    """Meets, with each task, the fates of that task one after the other: raises, or is struck; then it succeeds.

    All in a diary. A fate takes some milliseconds to come. With the task `hold` it waits at a gate when nothing else is
    left to it.
    """

    def __init__(self, folder: Path, fates: Mapping[int, Sequence[str]], trap: Trap, hold: int, millis: float) -> None:
        self.folder, self.fates, self.trap, self.hold, self.seconds = folder, fates, trap, hold, millis / 1000
        self.diary = Diary(folder)

    def __call__(self, task: int) -> int:
        self.diary.begin(task)
        fates = self.fates.get(task, ())
        if fates:
            attempt = attempt_at(self.folder, task)
            if attempt < len(fates):
                self.meet(task, fates[attempt])
        if task == self.hold:
            (self.folder / "held-by").write_text(multiprocessing.current_process().name)
            wait_at(self.folder / "release")
        self.diary.end(task)
        return task

    def meet(self, task: int, fate: str) -> None:
        if self.seconds:
            time.sleep(self.seconds)
        if fate == RAISE:
            self.diary.fail(task)
            raise ValueError(f"task {task} fails")
        strike(fate)


def numbers_from(first: int, tasks: int) -> Iterator[int]:
    yield from range(first, first + tasks)


def fateful(
    folder: Path,
    fates: Mapping[int, Sequence[str]],
    tasks: int,
    consumers: int = 3,
    maxsize: int = 1000,
    trap: Trap | None = None,
    hold: int = -1,
    millis: float = 0.0,
) -> Pipeline:
    """The numbers from 0, of two producers."""
    half = tasks // 2
    return Pipeline(
        name="fateful",
        producers=[Producer(numbers_from, 0, half), Producer(numbers_from, half, tasks - half)],
        consumer=Fateful(folder, fates, trap or untrapped(folder), hold, millis),
        consumers=consumers,
        maxsize=maxsize,
    )


def raising(
    folder: Path, tasks: int = 20, every: int = 5, times: int = 1, consumers: int = 1, hold: int = -1
) -> Pipeline:
    """Numbers, of which every nth raises so many times. For the command line."""
    fates = dict.fromkeys(range(0, tasks, every), (RAISE,) * times)
    return fateful(folder, fates, tasks, consumers, hold=hold)


def trapped(folder: Path, point: str, deed: str, tasks: int, every: int) -> Pipeline:
    """Numbers, of which every nth raises each time; one consumer is struck with a failure on its way.

    Not with the first: by then the queue has learned how fast they are, and sends many at a time.
    """
    fates = dict.fromkeys(range(0, tasks, every), (RAISE,) * 99)
    return fateful(folder, fates, tasks, trap=Trap(folder, point, deed, call=10))


class Watch:
    """Looks at a run of this process once more when it has ended."""

    def __init__(self) -> None:
        self.last: RunStatistics | None = None

    @contextlib.contextmanager
    def beside(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        yield
        self.last = supervisor.statistics()


def run_of(pipeline: Pipeline, *beside: Attachment, **flags: object) -> tuple[Report, RunStatistics]:
    """Run with these options of the command line; return the report, and the last look at the run."""
    watch = Watch()
    report = pipeline.run_with(
        read({"metrics": "off", "retry_delay_seconds": 0.001, **flags}, {}), [*beside, watch.beside]
    )
    assert watch.last is not None
    return report, watch.last


def results_of(pipeline: Pipeline, *beside: Attachment, **flags: object) -> tuple[list[int], list[Exception], Report]:
    """Run with these options; return what came back, what was raised, and the report."""
    settings = read({"metrics": "off", "retry_delay_seconds": 0.001, **flags}, {})
    inbox, stops = Inbox(), StopRequests()
    values, errors = list[int](), list[Exception]()
    with Results(lambda: pipeline.run_with(settings, beside, inbox=inbox, stops=stops), inbox, stops.now) as results:
        while True:
            try:
                values.append(next(results))
            except StopIteration:
                break
            except Exception as error:  # what a task raised, or what ended the run
                errors.append(error)
    assert results.report is not None
    return values, errors, results.report
