"""From a run to metric families: pure, built anew for each scrape, nothing kept and nothing caught.

What must hold within one scrape holds because all of it comes from one `RunStatistics`: produced - processed =
unfinished, and a histogram's count is the sum of what it counts. What to look out for is said where it is.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from conveyor import __version__
from conveyor.exporter import catalogue
from conveyor.exporter.catalogue import FailureReason, Metric
from conveyor.exporter.vitals import Vitals
from conveyor.ledger import TASK_EDGES_SECONDS, WAIT_EDGES_SECONDS
from conveyor.snapshot import QueueStatistics, RestartReason, Role, RunStatistics, SlotStatistics, WorkerState

Samples = Iterable[tuple[Sequence[str], float]]
Ratchet = Callable[[str, str, float], float]
"""(which stopwatch, which worker, its seconds) -> seconds that are not less than those shown before."""


def _le(edges: Sequence[float]) -> list[str]:
    # As the client library writes them: for some versions of Prometheus `1` and `1.0` are two series.
    return [floatToGoString(edge) for edge in (*edges, float("inf"))]  # type: ignore[no-untyped-call]


_TASK_EDGES, _WAIT_EDGES = _le(TASK_EDGES_SECONDS), _le(WAIT_EDGES_SECONDS)


def queue_families(queue: QueueStatistics) -> list[Family]:
    """Return what is known of the queue itself."""
    return [
        metric.family([((queue.name,), value)])
        for metric, value in (
            (catalogue.QUEUE_SIZE, queue.waiting),
            (catalogue.QUEUE_CAPACITY, queue.capacity),
            (catalogue.QUEUE_UNFINISHED, queue.unfinished),
            (catalogue.TASKS_RETRIED, 0),
            (catalogue.TASKS_DEAD_LETTERED, 0),
        )
    ]


def task_families(run: RunStatistics, ratchet: Ratchet) -> list[Family]:
    """Return the tasks by worker: each role's own counts, and the histograms of all slots together."""
    queue = run.queue.name
    producers = [((queue, slot.name), slot) for slot in run.slots if slot.role is Role.PRODUCER]
    consumers = [((queue, slot.name), slot) for slot in run.slots if slot.role is Role.CONSUMER]
    blocked = ((labels, ratchet("blocked", slot.name, slot.blocked_seconds)) for labels, slot in producers)
    failures = (
        ((*labels, reason), slot.failed if reason is FailureReason.EXCEPTION else 0)
        for labels, slot in consumers
        for reason in FailureReason
    )
    waits, waited = [slot.wait_buckets for slot in run.slots], sum(slot.wait_seconds for slot in run.slots)
    tasks, worked = [slot.task_buckets for slot in run.slots], sum(slot.task_seconds for slot in run.slots)
    return [
        catalogue.TASKS_PRODUCED.family((labels, slot.produced) for labels, slot in producers),
        catalogue.TASKS_PROCESSED.family((labels, slot.processed) for labels, slot in consumers),
        catalogue.TASKS_FAILED.family(failures),
        catalogue.TASKS_ABANDONED.family((labels, slot.abandoned) for labels, slot in consumers),
        catalogue.TASKS_IN_PROGRESS.family((labels, slot.in_progress) for labels, slot in consumers),
        catalogue.PRODUCER_BLOCKED.family(blocked),
        _histogram(catalogue.WAIT_DURATION, queue, _WAIT_EDGES, waits, waited),
        _histogram(catalogue.TASK_DURATION, queue, _TASK_EDGES, tasks, worked),
    ]


def worker_families(workers: Sequence[tuple[SlotStatistics, Vitals]], ratchet: Ratchet) -> list[Family]:
    """Return the processes by slot. Dead is who the supervisor or the kernel says is dead."""
    everybody = [((slot.role, slot.name), slot, vitals) for slot, vitals in workers]
    live = [worker for worker in everybody if worker[1].up and worker[2].alive]
    return [
        catalogue.WORKER_UP.family((who, slot.up and vitals.alive) for who, slot, vitals in everybody),
        catalogue.WORKER_STATE.family(
            ((*who, state), slot.up and vitals.alive and slot.state is state)
            for who, slot, vitals in everybody
            for state in WorkerState
        ),
        catalogue.WORKER_RESTARTS.family(
            ((*who, reason), slot.restarts.get(reason, 0)) for who, slot, _ in everybody for reason in RestartReason
        ),
        catalogue.WORKER_BUSY.family(
            (who, ratchet("busy", slot.name, slot.busy_seconds)) for who, slot, _ in everybody
        ),
        catalogue.WORKER_CPU.family((who, vitals.cpu_seconds) for who, _, vitals in everybody),
        catalogue.WORKER_HEARTBEAT.family(_known((who, slot.heartbeat_at) for who, slot, _ in everybody)),
        catalogue.WORKER_LAST_EXIT_CODE.family(_known((who, slot.last_exit_code) for who, slot, _ in everybody)),
        catalogue.WORKER_PID.family(_known((who, slot.pid) for who, slot, _ in live)),
        catalogue.WORKER_START_TIME.family(_known((who, slot.started_at) for who, slot, _ in live)),
        catalogue.WORKER_MEMORY.family(_known((who, vitals.resident_bytes) for who, _, vitals in live)),
        catalogue.WORKER_OPEN_FDS.family(_known((who, vitals.open_descriptors) for who, _, vitals in live)),
    ]


def run_families(run: RunStatistics) -> list[Family]:
    """Return what is known of the run as a whole."""
    build = __version__, platform.python_version(), run.start_method
    return [
        catalogue.WORKERS_DESIRED.family(((role,), run.desired.get(role, 0)) for role in Role),
        catalogue.BUILD_INFO.family([(build, 1)]),
    ]


def _known(samples: Iterable[tuple[Sequence[str], float | None]]) -> Samples:
    """Leave out what has no value: no series is better than a made-up one."""
    return ((labels, value) for labels, value in samples if value is not None)


def _histogram(
    metric: Metric, queue: str, edges: Sequence[str], slots: Sequence[Sequence[int]], seconds: float
) -> HistogramMetricFamily:
    """Return one histogram of all slots' buckets, which are not yet cumulative."""
    totals = map(sum, zip([0] * len(edges), *slots, strict=True))
    return metric.histogram([queue], list(zip(edges, itertools.accumulate(totals), strict=True)), seconds)
