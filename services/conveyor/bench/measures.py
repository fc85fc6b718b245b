"""How a row is measured: starts a trial, watches it, and makes figures of what its tasks left behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from conveyor.bench import commands, contestants, figures, killing, sessions, tasks, watching
from conveyor.bench.jobs import Job
from conveyor.bench.marks import Kind
from conveyor.bench.row import Row
from conveyor.bench.watching import Measurement, Status, Trial

_WARM_UP = 20  # tasks of the latency row that are not counted: the first ones meet processes that start


@dataclass(frozen=True, slots=True)
class Scale:
    """How long measurements take."""

    quick: bool
    seconds: float
    """Of the throughput rows, roughly."""
    idle_seconds: float
    scrapes: int
    imports: int
    requeue_runs: int


FULL = Scale(quick=False, seconds=0.8, idle_seconds=5.0, scrapes=500, imports=15, requeue_runs=6)
QUICK = Scale(quick=True, seconds=0.4, idle_seconds=2.0, scrapes=150, imports=7, requeue_runs=1)


def measure(row: Row, contestant: str, scale: Scale) -> Measurement:
    """Make one measurement of one contestant."""
    job = replace(row.job, **row.quick) if scale.quick else row.job  # type: ignore[arg-type]
    return _MEASURES[row.measure](contestant, job, scale)


def _sized(contestant: str, job: Job, scale: Scale) -> Job:
    """Return the job with as many tasks as take the wanted time, roughly; they are the same in every round."""
    rate = contestants.CONTESTANTS[contestant].expected_rate
    if size := tasks.SIZES.get(job.payload):
        rate = min(rate, int(1.5e9 / size))
    return replace(job, tasks=max(500, int(rate * scale.seconds)))


def _throughput(contestant: str, job: Job, scale: Scale) -> Measurement:
    job = _sized(contestant, job, scale)
    samples: list[figures.Sample] = []  # at the first task, and at the last: a process starts before or ends after
    with watching.started(contestant, job) as trial:

        def look() -> int:
            done, _ = trial.counts.read()
            now = time.monotonic()
            if done >= (1, job.tasks, math.inf)[len(samples)]:
                samples.append(figures.Sample(now, done, sessions.cpu_seconds(trial.session)))
            return done

        ending = trial.watch(look)
        received, received_bytes = trial.counts.read()
    expected_bytes = job.tasks * tasks.SIZES.get(job.payload, 0)
    if ending.status is Status.DONE and (received, received_bytes) != (job.tasks, expected_bytes):
        return Measurement(status=Status.WRONG, note=f"{job.tasks} tasks were sent, {received} arrived")
    found = {"sent": float(job.tasks), "received": float(received)}
    if len(samples) == 2:
        pace = figures.pace(*samples)
        found |= {"rate": pace.rate, "cpu_seconds_a_task": pace.cpu_seconds_a_task, "seconds": pace.seconds}
        if expected_bytes:
            found["bytes_rate"] = pace.rate * expected_bytes / job.tasks
    return replace(ending, figures=found)


def _recorded(contestant: str, job: Job) -> tuple[Measurement, Trial]:
    with watching.started(contestant, job) as trial:
        ending = trial.watch(lambda: len(trial.records.read()))
        trial.records.read()
    return ending, trial


def _checked(ending: Measurement, sent: int, received: int, found: dict[str, float]) -> Measurement:
    found |= {"sent": float(sent), "received": float(received)}
    if ending.status is Status.DONE and sent != received:
        return Measurement(status=Status.WRONG, note=f"{sent} tasks were sent, {received} done", figures=found)
    return replace(ending, figures=found)


def _balance(contestant: str, job: Job, scale: Scale) -> Measurement:
    # One at a time, for those that have their user choose: their default balances better than any chunk.
    ending, trial = _recorded(contestant, job)
    made = figures.attempts(trial.records.all)
    share = figures.share_of_ideal(made, job.consumers)
    found = {"share_of_ideal": share, "makespan": figures.ratio(1.0, share)}
    return _checked(ending, job.tasks, sum(attempt.end_ns is not None for attempt in made), found)


def _latency(contestant: str, job: Job, scale: Scale) -> Measurement:
    ending, trial = _recorded(contestant, job)
    received = [record for record in trial.records.all if record.kind == Kind.RECEIVED]
    waits = [(record.ns - record.value) / 1e9 for record in received][_WARM_UP:]
    found = {"p50_seconds": figures.percentile(waits, 0.5), "p99_seconds": figures.percentile(waits, 0.99)}
    return _checked(ending, job.tasks, len(received), found)


def _idle(contestant: str, job: Job, scale: Scale) -> Measurement:
    with watching.started(contestant, job) as trial:
        if not trial.wait_for_records(2 * job.tasks):
            return Measurement(status=Status.FAILED, note="did not start")
        time.sleep(1.0)  # whatever follows the first tasks: nothing tells of its end
        before, began = sessions.precise_cpu_seconds(trial.session), time.monotonic()
        time.sleep(scale.idle_seconds)  # this is the measurement
        used, seconds = sessions.precise_cpu_seconds(trial.session) - before, time.monotonic() - began
    return Measurement(status=Status.DONE, figures={"cpu_share": used / seconds, "seconds": seconds})


def _memory(contestant: str, job: Job, scale: Scale) -> Measurement:
    if contestants.CONTESTANTS[contestant].expected_rate < 1_000_000:
        job = replace(job, tasks=min(job.tasks, 1_000_000))  # else it takes minutes, and shows no more
    sizes: list[int] = []
    with watching.started(contestant, job) as trial:

        def look() -> int:
            done, _ = trial.counts.read()
            if done >= job.tasks // 10 and trial.process.poll() is None:
                sizes.append(sessions.resident_bytes(trial.session))
                time.sleep(0.05)  # /proc is read often enough to see growth, and disturbs nobody
            return done

        ending = trial.watch(look)
        received, _ = trial.counts.read()
    found = {"tasks": float(job.tasks), "growth_bytes": float(max(sizes) - sizes[0]) if sizes else math.nan}
    return _checked(ending, job.tasks, received, found)


_MEASURES: dict[str, Callable[[str, Job, Scale], Measurement]] = {
    "throughput": _throughput,
    "balance": _balance,
    "latency": _latency,
    "requeue": lambda contestant, job, scale: killing.requeue(contestant, job, scale.requeue_runs),
    "killed": lambda contestant, job, scale: killing.killed(contestant, job),
    "idle": _idle,
    "scrape": lambda contestant, job, scale: commands.scrape(contestant, job, scale.scrapes),
    "importing": lambda contestant, job, scale: commands.importing(scale.imports),
    "first_task": lambda contestant, job, scale: commands.first_task(),
    "memory": _memory,
}
