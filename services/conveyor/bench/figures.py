"""From what was seen to figures. Pure: no process, no file, no clock."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conveyor.bench.marks import Kind, Record


def median(values: Iterable[float]) -> float:
    """Return the median; not a number if there is no value."""
    found = list(values)
    return statistics.median(found) if found else math.nan


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed (nearest rank)."""
    found = sorted(values)
    return found[max(0, math.ceil(share * len(found)) - 1)] if found else math.nan


def ratio(one: float, other: float) -> float:
    """Return one through other; not a number where that says nothing."""
    return one / other if other else math.nan


@dataclass(frozen=True, slots=True)
class Sample:
    """How many tasks were done at a moment, and the CPU time used until then."""

    seconds: float
    done: int
    cpu_seconds: float = math.nan


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run was, and what it took."""

    rate: float
    cpu_seconds_a_task: float
    seconds: float


def pace(first: Sample, last: Sample) -> Pace:
    """Return the rate between two samples."""
    tasks, seconds = last.done - first.done, last.seconds - first.seconds
    return Pace(ratio(tasks, seconds), ratio(last.cpu_seconds - first.cpu_seconds, tasks), seconds)


# -- from records -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a task was started."""

    pid: int
    task: int
    start_ns: int
    end_ns: int | None
    """None if its process died in it."""


def attempts(records: Iterable[Record]) -> list[Attempt]:
    """Pair starts with ends."""
    found: list[Attempt] = []
    open_ones: dict[tuple[int, int], int] = {}
    for record in records:
        key = record.pid, record.value
        if record.kind == Kind.STARTED:
            open_ones[key] = len(found)
            found.append(Attempt(record.pid, record.value, record.ns, None))
        elif record.kind == Kind.ENDED:
            place = open_ones.pop(key)
            found[place] = Attempt(record.pid, record.value, found[place].start_ns, record.ns)
    return found


def least_makespan(durations: Sequence[float], consumers: int) -> float:
    """Return a time that no schedule of these tasks can beat: an equal share for each consumer, or the longest task
    (Graham, Bounds on Multiprocessing Timing Anomalies, 1969).
    """
    return max(math.fsum(durations) / consumers, max(durations, default=0.0))


def share_of_ideal(made: Sequence[Attempt], consumers: int) -> float:
    """Return the ideal time through the real one, from the moment when each consumer has begun its first task.

    Before it, processes are being started. The ideal is the least makespan of what there is to do from then on, with
    the tasks' own measured times.
    """
    firsts: dict[int, int] = {}
    for attempt in made:
        firsts.setdefault(attempt.pid, attempt.start_ns)
    whole = [(attempt.start_ns, attempt.end_ns) for attempt in made if attempt.end_ns is not None]
    if not whole:
        return math.nan
    begin_ns = max(firsts.values())
    left = [(end_ns - max(start_ns, begin_ns)) / 1e9 for start_ns, end_ns in whole if end_ns > begin_ns]
    real = (max(end_ns for _, end_ns in whole) - begin_ns) / 1e9
    return ratio(least_makespan(left, consumers), real)


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a run with deaths came to, in tasks."""

    lost: int
    """Never finished."""
    twice: int
    """Finished more than once."""
    longest_stall_seconds: float
    """Between two signs of life of any consumer."""


def aftermath(made: Sequence[Attempt], tasks: int) -> Aftermath:
    """Return what became of the tasks."""
    finished: dict[int, int] = {}
    signs: list[int] = []
    for attempt in made:
        signs.append(attempt.start_ns)
        if attempt.end_ns is not None:
            signs.append(attempt.end_ns)
            finished[attempt.task] = finished.get(attempt.task, 0) + 1
    signs.sort()
    stall_ns = max((after - before for before, after in itertools.pairwise(signs)), default=0)
    return Aftermath(tasks - len(finished), sum(number > 1 for number in finished.values()), stall_ns / 1e9)


def returns(made: Sequence[Attempt], kills: Mapping[int, int]) -> list[float]:
    """Return, for each task that a kill interrupted, the seconds until it was started again; infinite if never.

    `kills` are the killed processes, with the time of the kill in nanoseconds.
    """
    found = []
    for victim in made:
        if victim.end_ns is None and victim.pid in kills:
            killed_ns = kills[victim.pid]
            again = [a.start_ns for a in made if a.task == victim.task and a.start_ns > victim.start_ns]
            found.append((min(again) - killed_ns) / 1e9 if again else math.inf)
    return found
