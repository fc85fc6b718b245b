"""The work itself: what producers yield, and the functions that consumers call with it.

The same for every contestant. The functions tell what they do in `marks`, whose files are opened at the first task
of each process: a fork server imports this module long before it forks.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from conveyor.bench import marks
from conveyor.bench.jobs import Job
from conveyor.bench.marks import Kind

PAGE = 4096
KIB = 1024
NAP_SECONDS = 0.001
KILLED_NAP_SECONDS = 0.005
LONG_NAP_SECONDS = 0.1
PACE_SECONDS = 0.002
SIZES = {"1KiB": KIB, "64KiB": 64 * KIB, "1MiB": 1024 * KIB}
# So many different objects of each size: a chunk that held one of them twice would carry it once, as pickle does.
_DIFFERENT = {"1KiB": 4096, "64KiB": 512, "1MiB": 16}

_cells: Any = None
_record: Any = None
_now_ns = time.monotonic_ns


# -- what producers yield -----------------------------------------------------------------------------------


def produce(job: Job, part: int, parts: int) -> Iterator[object]:
    """Yield the tasks of one of so many producers."""
    return _PAYLOADS[job.payload](job, range(part, job.tasks, parts))


def _small(job: Job, numbers: range) -> Iterator[object]:
    for number in numbers:
        yield ("chef-1", "bun", number, 3.14)


def _large(job: Job, numbers: range) -> Iterator[object]:
    size = SIZES[job.payload]
    chance = random.Random(job.payload)
    objects: list[object] = [chance.randbytes(size) for _ in range(min(len(numbers), _DIFFERENT[job.payload]))]
    if job.payload == "1MiB":
        objects = [_array(data) for data in objects]
    return itertools.islice(itertools.cycle(objects), len(numbers))


def _array(data: Any) -> object:
    if not has_numpy():
        return bytearray(data)
    import numpy  # type: ignore[import-not-found,unused-ignore]  # here: only one payload has a use for it

    return numpy.frombuffer(data, dtype=numpy.uint8).copy()


def has_numpy() -> bool:
    """Whether the arrays are numpy's; else they are bytearrays."""
    return importlib.util.find_spec("numpy") is not None


def _naps(job: Job, numbers: range) -> Iterator[object]:
    seconds = KILLED_NAP_SECONDS if job.payload == "naps of 5 ms" else NAP_SECONDS
    for number in numbers:
        yield number, seconds


def _heavy_tail(job: Job, numbers: range) -> Iterator[object]:
    """One nap in a hundred is long, at a place by chance, but none in the last tenth: a long task that comes last
    delays the end with every queue, as nobody knows in advance that it is long.
    """
    chance = random.Random(7)
    long = {start + chance.randrange(100) for start in range(0, job.tasks * 9 // 10 - 99, 100)}
    missing = job.tasks // 100 - len(long)
    long |= set(chance.sample(sorted(set(range(job.tasks * 9 // 10)) - long), missing))
    for number in numbers:
        yield number, LONG_NAP_SECONDS if number in long else NAP_SECONDS


def _stamps(job: Job, numbers: range) -> Iterator[object]:
    for _ in numbers:
        time.sleep(PACE_SECONDS)  # so that each finds the pipeline idle
        yield _now_ns()


def _then_wait(job: Job, numbers: range) -> Iterator[object]:
    for number in numbers:
        yield number, 0.0
    time.sleep(job.seconds)  # a producer that has nothing to do, for as long as it is watched


_PAYLOADS: dict[str, Callable[[Job, range], Iterator[object]]] = {
    "small": _small,
    **dict.fromkeys(SIZES, _large),
    "naps of 1 ms": _naps,
    "naps of 5 ms": _naps,
    "heavy tail": _heavy_tail,
    "stamps": _stamps,
    "then wait": _then_wait,
}


# -- what consumers do with it --------------------------------------------------------------------------------


def function(payload: str) -> Callable[[Any], object]:
    """Return what is called with each task of this payload: a function of a module's top level."""
    if payload in SIZES:
        return read
    return {"small": count, "stamps": receive}.get(payload, nap)


def count(task: object) -> None:
    """Count the task, in memory that others see. It takes some 50 ns, of which 20 are the call."""
    global _cells
    try:
        _cells[0] += 1
    except TypeError:  # the first one in this process
        _cells = marks.own_cells()
        _cells[0] += 1


def read(task: Any) -> None:
    """Read a byte of each page, as who only passes a reference on has not delivered anything; count the bytes."""
    global _cells
    buffer = memoryview(task)
    bytes(buffer[::PAGE])
    if _cells is None:
        _cells = marks.own_cells()
    _cells[0] += 1
    _cells[1] += buffer.nbytes


def nap(task: tuple[int, float]) -> None:
    """Record the start, sleep, record the end. Sleep, as a test with more consumers than CPUs must not spin."""
    record = _recorder()
    number, seconds = task
    record(Kind.STARTED, number, _now_ns())
    if seconds:
        time.sleep(seconds)
    record(Kind.ENDED, number, _now_ns())


def receive(stamp: int) -> None:
    """Record when the task started, and when it was put."""
    now_ns = _now_ns()
    _recorder()(Kind.RECEIVED, stamp, now_ns)


def _recorder() -> Any:
    global _record
    if _record is None:
        _record = marks.own_recorder()
    return _record
