"""The metric catalogue as data: every metric that `/metrics` shows of a run, and nothing about how it is read.

The collector fills these in; dashboards and alerts are written against the names. To change one is to break
somebody's graph. Counters of what a queue never does (retries, dead letters) are at 0, so that an expression over
them has data from the start. What nobody can tell (the age of a task in a queue that keeps none, the spool of a queue
in memory) has no series: a number would be a lie, and an alert on it would be wrong one way or the other.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

Labels = tuple[str, ...]
"""The values of a series' labels, in the order of its metric's; in a histogram, which line it is comes last."""


class Kind(enum.StrEnum):
    """The type of a metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry: a name as it is written in queries, its kind, its help with the unit, and its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def family(self, series: tuple[Labels, ...], values: Sequence[float | None]) -> Family:
        """Return what the metric shows at one moment."""
        return Family(self, series, values)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric at one moment: its series, and the value of each; None where there is none to show.

    A histogram has a series for each line of text: the buckets by their `le`, cumulative, then `count` and `sum`.
    """

    metric: Metric
    series: tuple[Labels, ...]
    values: Sequence[float | None]


class FailureReason(enum.StrEnum):
    """Why a task counts as failed: a closed list, so that a label never grows with the users' mistakes."""

    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    OTHER = "other"


class Source(enum.StrEnum):
    """What a collection reads; each may fail by itself."""

    QUEUE = "queue"
    SLOTS = "slots"
    PROC = "proc"


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, help, labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, help, labels)


def _histogram(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, help, labels)


QUEUE_SIZE = _gauge("conveyor_queue_size", "Tasks that wait: accepted, not yet started.", "queue")
QUEUE_CAPACITY = _gauge("conveyor_queue_capacity", "Tasks that may wait at most; 0 means without bound.", "queue")
QUEUE_UNFINISHED = _gauge("conveyor_queue_unfinished_tasks", "Tasks that were put and are not done.", "queue")
QUEUE_OLDEST_WAITING = _gauge(
    "conveyor_queue_oldest_waiting_seconds",
    "Seconds that the oldest waiting task has waited, 0 if none waits; no series if the queue cannot tell.",
    "queue",
)
QUEUE_PAUSED = _gauge("conveyor_queue_paused", "1 while the queue is paused by order, else 0.", "queue")

TASKS_PRODUCED = _counter("conveyor_tasks_produced_total", "Tasks put into the queue.", "queue", "worker")
TASKS_PROCESSED = _counter("conveyor_tasks_processed_total", "Tasks finished, well or badly.", "queue", "worker")
TASKS_FAILED = _counter("conveyor_tasks_failed_total", "Tasks finished with an error.", "queue", "worker", "reason")
TASKS_RETRIED = _counter("conveyor_tasks_retried_total", "Tasks put back for another attempt.", "queue")
TASKS_REDELIVERED = _counter(
    "conveyor_tasks_redelivered_total", "Tasks put back for another attempt, by what ended the last.", "queue", "reason"
)
TASKS_DELAYED = _gauge("conveyor_tasks_delayed", "Waiting tasks whose next attempt is put off for a while.", "queue")
TASKS_DEAD_LETTERED = _counter(
    "conveyor_tasks_dead_lettered_total", "Tasks given up because each consumer that had them died.", "queue"
)
DEAD_LETTERS = _gauge("conveyor_dead_letters", "Tasks given up, for a death or an error, that are kept.", "queue")
TASKS_ABANDONED = _counter(
    "conveyor_tasks_abandoned_total", "Tasks that were in hand when their worker died.", "queue", "worker"
)
TASKS_IN_PROGRESS = _gauge("conveyor_tasks_in_progress", "Tasks started and not done.", "queue", "worker")
WAIT_DURATION = _histogram(
    "conveyor_task_queue_wait_duration_seconds", "Seconds from a task's put to its start.", "queue"
)
TASK_DURATION = _histogram(
    "conveyor_task_processing_duration_seconds", "Seconds from a task's start to its end.", "queue"
)
PRODUCER_BLOCKED = _counter(
    "conveyor_producer_blocked_seconds_total", "Seconds spent in a put that had to wait.", "queue", "worker"
)

SPOOL_SIZE = _gauge("conveyor_spool_size_bytes", "Size of all files of the spool; no series without a spool.", "queue")
SPOOL_TASKS = _gauge("conveyor_spool_tasks", "Waiting tasks that are on disk alone.", "queue")
SPOOL_COMMITS = _counter("conveyor_spool_commits_total", "Commits to the spool.", "queue")
SPOOL_COMMIT_SECONDS = _counter(
    "conveyor_spool_commit_seconds_total", "Seconds spent in commits to the spool.", "queue"
)
SPOOL_WRITABLE = _gauge(
    "conveyor_spool_writable", "1 if the spool can be written, 0 if not: then producers block.", "queue"
)

WORKERS_DESIRED = _gauge("conveyor_workers_desired", "Processes that should be alive.", "role")
WORKERS_MIN = _gauge(
    "conveyor_workers_min",
    "Processes of the role that scaling keeps at least; conveyor_workers_max where the number is fixed.",
    "role",
)
WORKERS_MAX = _gauge("conveyor_workers_max", "Processes of the role that scaling starts at most.", "role")
SCALING_EVENTS = _counter(
    "conveyor_scaling_events_total", "Times that consumers were added, or taken away.", "direction"
)
WORKER_UP = _gauge(
    "conveyor_worker_up", "1 if a live process fills the slot, else 0; none while it is scaled away.", "role", "worker"
)
WORKER_STATE = _gauge(
    "conveyor_worker_state",
    "1 for what the worker does now; replaced for 10 s if the process before it died; all 0 if it is down.",
    "role",
    "worker",
    "state",
)
WORKER_RESTARTS = _counter(
    "conveyor_worker_restarts_total", "Processes of the slot that were replaced.", "role", "worker", "reason"
)
WORKER_START_TIME = _gauge(
    "conveyor_worker_start_time_seconds", "Start of the process, in Unix seconds.", "role", "worker"
)
WORKER_HEARTBEAT = _gauge(
    "conveyor_worker_last_heartbeat_timestamp_seconds",
    "Last sign of progress, in Unix seconds.",
    "role",
    "worker",
)
WORKER_BUSY = _counter("conveyor_worker_busy_seconds_total", "Seconds spent in tasks.", "role", "worker")
WORKER_LAST_EXIT_CODE = _gauge(
    "conveyor_worker_last_exit_code",
    "Exit code of the process before this one, -9 after SIGKILL; no series before the first exit.",
    "role",
    "worker",
)
WORKER_LAST_DEATH = _gauge(
    "conveyor_worker_last_death_info",
    "1; how the slot's last process died, and the task in its hands with the attempt; none before the first.",
    "role",
    "worker",
    "how",
    "task",
    "attempt",
)
WORKER_LAST_DEATH_TASK = _gauge(
    "conveyor_worker_last_death_task_seconds",
    "Seconds for which the last process that died had been in its task.",
    "role",
    "worker",
)
WORKER_LAST_DEATH_MEMORY = _gauge(
    "conveyor_worker_last_death_resident_memory_bytes",
    "Resident memory of the last process that died, when it was last looked at.",
    "role",
    "worker",
)
WORKER_PID = _gauge("conveyor_worker_pid", "Process id, for debugging.", "role", "worker")
WORKER_CPU = _counter(
    "conveyor_worker_cpu_seconds_total",
    "User and system CPU seconds of all processes of the slot.",
    "role",
    "worker",
)
WORKER_MEMORY = _gauge(
    "conveyor_worker_resident_memory_bytes", "Resident memory of the process in bytes.", "role", "worker"
)
WORKER_OPEN_FDS = _gauge("conveyor_worker_open_fds", "File descriptors that the process has open.", "role", "worker")

COLLECT_DURATION = _gauge("conveyor_collect_duration_seconds", "Seconds that reading these metrics took.")
COLLECT_ERRORS = _counter("conveyor_collect_errors_total", "Sources that could not be read.", "source")
BUILD_INFO = _gauge("conveyor_build_info", "1; what runs.", "version", "python_version", "start_method")

CATALOGUE = tuple(entry for entry in list(globals().values()) if isinstance(entry, Metric))
