"""From a run to metric families: pure, built anew for each scrape, nothing kept and nothing caught.

What must hold within one scrape holds because all of it comes from one `RunStatistics`: produced - processed =
unfinished, and a histogram's count is the sum of what it counts. What to look out for is said where it is.
"""

from __future__ import annotations

import functools
import itertools
import platform
from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client.utils import floatToGoString

from conveyor import __version__
from conveyor.exporter import catalogue
from conveyor.exporter.catalogue import FailureReason, Family, Labels, Metric
from conveyor.exporter.vitals import Vitals
from conveyor.ledger import TASK_EDGES_SECONDS, WAIT_EDGES_SECONDS
from conveyor.snapshot import (
    QueueStatistics,
    RedeliveryReason,
    RestartReason,
    Role,
    RunStatistics,
    Scaling,
    SlotStatistics,
    SpoolStatistics,
    WorkerState,
)

T = TypeVar("T")

MAX_TASK = 80  # characters of a task in a label; arbitrary

Ratchet = Callable[[str, str, float], float]
"""(which stopwatch, which worker, its seconds) -> seconds that are not less than those shown before."""


def _lines(edges: Sequence[float]) -> tuple[str, ...]:
    # As the client library writes them: for some versions of Prometheus `1` and `1.0` are two series.
    buckets = [floatToGoString(edge) for edge in (*edges, float("inf"))]  # type: ignore[no-untyped-call]
    return (*buckets, "count", "sum")


_TASK_LINES, _WAIT_LINES = _lines(TASK_EDGES_SECONDS), _lines(WAIT_EDGES_SECONDS)
_ROLES = tuple((role.value,) for role in Role)
_STATES = tuple(state.value for state in WorkerState)
_RESTARTS = tuple(reason.value for reason in RestartReason)
_FAILURES = tuple(reason.value for reason in FailureReason)
_REDELIVERIES = tuple(reason.value for reason in RedeliveryReason)
_SCALABLE = ((Role.CONSUMER.value,),)
_DIRECTIONS = tuple((direction.value,) for direction in Scaling)
_SPOOL = (
    catalogue.SPOOL_SIZE,
    catalogue.SPOOL_TASKS,
    catalogue.SPOOL_COMMITS,
    catalogue.SPOOL_COMMIT_SECONDS,
    catalogue.SPOOL_WRITABLE,
)


def queue_families(queue: QueueStatistics) -> list[Family]:
    """Return what is known of the queue itself, and of what it gave to consumers more than once."""
    name = ((queue.name,),)
    again = [queue.redeliveries.get(reason, 0) for reason in RedeliveryReason]
    return [
        catalogue.TASKS_REDELIVERED.family(_each(name, _REDELIVERIES), again),
        *(
            metric.family(name, [value])
            for metric, value in (
                (catalogue.QUEUE_SIZE, queue.waiting),
                (catalogue.QUEUE_CAPACITY, queue.capacity),
                (catalogue.QUEUE_UNFINISHED, queue.unfinished),
                (catalogue.QUEUE_OLDEST_WAITING, _oldest_waiting_seconds(queue)),
                (catalogue.QUEUE_PAUSED, queue.is_paused),
                (catalogue.TASKS_RETRIED, sum(again)),
                (catalogue.TASKS_DELAYED, queue.delayed),
                (catalogue.TASKS_DEAD_LETTERED, queue.dead_lettered),
                (catalogue.DEAD_LETTERS, queue.dead_letters),
            )
        ),
        *_spool_families(name, queue.spool),
    ]


def _oldest_waiting_seconds(queue: QueueStatistics) -> float | None:
    """Return 0 where nothing waits: that is known even of a queue that cannot tell an age."""
    return queue.oldest_waiting_seconds if queue.waiting else 0.0


def _spool_families(name: tuple[Labels, ...], spool: SpoolStatistics | None) -> list[Family]:
    """Return the spool. Without one the metrics are named but have no series: 0 would say that it cannot be written."""
    if spool is None:
        return [metric.family((), []) for metric in _SPOOL]
    values = (spool.size_bytes, spool.tasks, spool.commits, spool.commit_seconds, spool.trouble is None)
    return [metric.family(name, [value]) for metric, value in zip(_SPOOL, values, strict=True)]


def task_families(run: RunStatistics, ratchet: Ratchet) -> list[Family]:
    """Return the tasks by worker: each role's own counts, and the histograms of all slots together."""
    queue = run.queue.name
    producers = [slot for slot in run.slots if slot.role is Role.PRODUCER]
    consumers = [slot for slot in run.slots if slot.role is Role.CONSUMER]
    putters = _same(tuple((queue, slot.name) for slot in producers))
    takers = _same(tuple((queue, slot.name) for slot in consumers))
    waits, waited = [slot.wait_buckets for slot in run.slots], sum(slot.wait_seconds for slot in run.slots)
    tasks, worked = [slot.task_buckets for slot in run.slots], sum(slot.task_seconds for slot in run.slots)
    return [
        catalogue.TASKS_PRODUCED.family(putters, [slot.produced for slot in producers]),
        catalogue.TASKS_PROCESSED.family(takers, [slot.processed for slot in consumers]),
        catalogue.TASKS_FAILED.family(
            _each(takers, _FAILURES),
            [slot.failed if reason is FailureReason.EXCEPTION else 0 for slot in consumers for reason in FailureReason],
        ),
        catalogue.TASKS_ABANDONED.family(takers, [slot.abandoned for slot in consumers]),
        catalogue.TASKS_IN_PROGRESS.family(takers, [slot.in_progress for slot in consumers]),
        catalogue.PRODUCER_BLOCKED.family(
            putters, [ratchet("blocked", slot.name, slot.blocked_seconds) for slot in producers]
        ),
        _histogram(catalogue.WAIT_DURATION, queue, _WAIT_LINES, waits, waited),
        _histogram(catalogue.TASK_DURATION, queue, _TASK_LINES, tasks, worked),
    ]


def worker_families(workers: Sequence[tuple[SlotStatistics, Vitals]], ratchet: Ratchet) -> list[Family]:
    """Return the processes by slot. Dead is who the supervisor or the kernel says is dead."""
    slots, vitals = [slot for slot, _ in workers], [seen for _, seen in workers]
    who = _same(tuple((slot.role.value, slot.name) for slot in slots))
    up = [slot.up and seen.alive for slot, seen in workers]
    # A consumer that was scaled away is neither up nor down: no alert must take it for dead, beside one that is.
    is_seen = [
        is_up or not (slot.finished and slot.role is Role.CONSUMER) for slot, is_up in zip(slots, up, strict=True)
    ]
    states = _where(up, [slot.state for slot in slots])
    return [
        catalogue.WORKER_UP.family(who, _where(is_seen, up)),
        catalogue.WORKER_STATE.family(
            _each(who, _STATES), [state is shown for state in states for shown in WorkerState]
        ),
        catalogue.WORKER_RESTARTS.family(
            _each(who, _RESTARTS), [slot.restarts.get(reason, 0) for slot in slots for reason in RestartReason]
        ),
        catalogue.WORKER_BUSY.family(who, [ratchet("busy", slot.name, slot.busy_seconds) for slot in slots]),
        catalogue.WORKER_CPU.family(who, [seen.cpu_seconds for seen in vitals]),
        catalogue.WORKER_HEARTBEAT.family(who, [slot.heartbeat_at for slot in slots]),
        catalogue.WORKER_LAST_EXIT_CODE.family(who, [slot.last_exit_code for slot in slots]),
        catalogue.WORKER_PID.family(who, _where(up, [slot.pid for slot in slots])),
        catalogue.WORKER_START_TIME.family(who, _where(up, [slot.started_at for slot in slots])),
        catalogue.WORKER_MEMORY.family(who, _where(up, [seen.resident_bytes for seen in vitals])),
        catalogue.WORKER_OPEN_FDS.family(who, _where(up, [seen.open_descriptors for seen in vitals])),
    ]


def death_families(run: RunStatistics) -> list[Family]:
    """Return what is known of the last death in each slot. One series a slot, so old ones end with each death."""
    last = {death.slot: death for death in run.deaths}
    dead = [(slot.role.value, last[slot.name]) for slot in run.slots if slot.name in last]
    told = _same(
        tuple((role, death.slot, death.how, death.task[:MAX_TASK], str(death.attempt)) for role, death in dead)
    )
    who = _same(tuple((role, death.slot) for role, death in dead))
    return [
        catalogue.WORKER_LAST_DEATH.family(told, [1] * len(dead)),
        catalogue.WORKER_LAST_DEATH_TASK.family(who, [death.task_seconds for _, death in dead]),
        catalogue.WORKER_LAST_DEATH_MEMORY.family(who, [death.memory_bytes for _, death in dead]),
    ]


def run_families(run: RunStatistics) -> list[Family]:
    """Return what is known of the run as a whole."""
    build = __version__, platform.python_version(), run.start_method
    return [
        catalogue.WORKERS_DESIRED.family(_ROLES, [run.desired.get(role, 0) for role in Role]),
        catalogue.WORKERS_MIN.family(_SCALABLE, [run.consumers_least]),
        catalogue.WORKERS_MAX.family(_SCALABLE, [run.consumers_most]),
        catalogue.SCALING_EVENTS.family(_DIRECTIONS, [run.scalings.get(direction, 0) for direction in Scaling]),
        catalogue.BUILD_INFO.family((build,), [1]),
    ]


def _where(up: Sequence[bool], values: Sequence[T]) -> list[T | None]:
    """Leave out what only a live process has: no series is better than a made-up one."""
    return [value if is_up else None for is_up, value in zip(up, values, strict=True)]


@functools.lru_cache(maxsize=16)
def _same(series: tuple[Labels, ...]) -> tuple[Labels, ...]:
    """Return these labels as they were made before, so that the writer sees at a glance that they are the same."""
    return series


@functools.lru_cache(maxsize=16)
def _each(series: tuple[Labels, ...], last: tuple[str, ...]) -> tuple[Labels, ...]:
    """Return the labels with one more, which has each of these values."""
    return tuple((*labels, value) for labels in series for value in last)


def _histogram(
    metric: Metric, queue: str, lines: tuple[str, ...], slots: Sequence[Sequence[int]], seconds: float
) -> Family:
    """Return one histogram of all slots' buckets, which are not yet cumulative."""
    none = [0] * (len(lines) - 2)
    counts = list(itertools.accumulate(map(sum, zip(none, *slots, strict=True))))
    return metric.family(_each(((queue,),), lines), [*counts, counts[-1], seconds])
