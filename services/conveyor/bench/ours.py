"""Conveyor as a contestant: a pipeline, and what else the package offers for the same work."""

from __future__ import annotations

import functools
import tempfile
from typing import Any

import conveyor
from conveyor import Pipeline, Producer
from conveyor.bench import stdlib
from conveyor.bench.jobs import Contestant, Job
from conveyor.bench.tasks import function, produce
from conveyor.errors import ConveyorError
from conveyor.queues import DEFAULT_KIND

QUEUE = DEFAULT_KIND
"""The queue kind that all rows mean by "conveyor"."""
_EXPECTED_RATES = {"leased": 3_000_000}
_EXPECTED_RATE = _EXPECTED_RATES.get(QUEUE, 50_000)


def run_pipeline(job: Job, queue: str = QUEUE, spool: str | None = None) -> None:
    """Run the job as a user's script does."""
    producers = [Producer(produce, job, part, job.producers) for part in range(job.producers)]
    pipeline = Pipeline(
        producers=producers,
        consumer=function(job.payload),
        consumers=job.consumers,
        maxsize=job.maxsize,
        queue=queue,
        name="bench",
    )
    report = pipeline.run(metrics=job.metrics, spool=spool)
    if report.exit_code:
        trouble = f"; {report.trouble}" if report.trouble else ""
        raise ConveyorError(f"exit code {int(report.exit_code)}: {report.lost} tasks lost{trouble}")
    if not report.produced == report.processed == job.tasks:
        raise ConveyorError(f"says it has done {report.processed} tasks of {report.produced}, of {job.tasks}")


def _run_spooled(job: Job) -> None:
    with tempfile.TemporaryDirectory(prefix="conveyor-bench-spool-") as folder:
        run_pipeline(job, spool=folder)


def _run_imap(job: Job) -> None:
    imap_unordered: Any = getattr(conveyor, "imap_unordered")  # noqa: B009  (a version without it has no such row)
    for _ in imap_unordered(function(job.payload), produce(job, 0, 1), consumers=job.consumers):
        pass


def _run_drop_in(job: Job) -> None:
    stdlib.run_joinable(job, getattr(conveyor, "JoinableQueue"))  # noqa: B009  (as above)


def _kind(queue: str, expected_rate: int) -> Contestant:
    how = f"a Pipeline with queue={queue!r}"
    run = functools.partial(run_pipeline, queue=queue)
    return Contestant(name=f"conveyor {queue}", how=how, run=run, expected_rate=expected_rate)


CONTESTANTS = [
    Contestant(name="conveyor", how=f"a Pipeline with queue={QUEUE!r}", run=run_pipeline, expected_rate=_EXPECTED_RATE),
    Contestant(
        name="conveyor spooled",
        how="the same with a spool in the folder for temporary files",
        run=_run_spooled,
        expected_rate=2_000_000,
    ),
    _kind("joinable", 50_000),
    _kind("sentinel", 60_000),
]
if hasattr(conveyor, "imap_unordered"):
    CONTESTANTS.append(
        Contestant(
            name="conveyor.imap_unordered",
            how="its results read, nothing else chosen",
            run=_run_imap,
            expected_rate=500_000,
        )
    )
if hasattr(conveyor, "JoinableQueue"):
    CONTESTANTS.append(
        Contestant(
            name="conveyor.JoinableQueue",
            how="the program for JoinableQueue, with the import changed",
            run=_run_drop_in,
            expected_rate=100_000,
        )
    )
