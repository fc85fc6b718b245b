"""The smallest workload there is, for the time that `conveyor run` takes to its first task."""

from __future__ import annotations

from conveyor import Pipeline, Producer
from conveyor.bench.jobs import Job
from conveyor.bench.tasks import nap, produce


def one_nap() -> Pipeline:
    """Do one task that takes no time."""
    job = Job(payload="naps of 1 ms", tasks=1)
    return Pipeline(producers=[Producer(produce, job, 0, 1)], consumer=nap, name="one-nap")
