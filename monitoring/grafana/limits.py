"""The one table of limits: at which value a panel changes its colour and an alert fires.

`looks.limited` colours the dashboards from it. Prometheus cannot import Python, so the alert rules repeat the
numbers; `tests/unit/test_monitoring.py` fails when the two differ.
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """A value, the colour of a panel from there on, and the alert that fires past it; both are optional."""

    value: float
    colour: str | None = None
    alert: str | None = None
    severity: str | None = None


MEBIBYTE = 1024 * 1024

# Limits without an alert only colour a panel. They are arbitrary, chosen for tasks of about a second.
LIMITS: dict[str, tuple[Limit, ...]] = {
    "backlog_seconds": (Limit(30, "orange", "ConveyorConsumersAtMaximum", "warning"), Limit(120, "red")),
    "consumer_busy_ratio": (
        Limit(0.3, "green"),
        Limit(0.85, "orange"),
        Limit(0.95, "red", "ConveyorConsumersSaturated", "info"),
    ),
    "failure_ratio": (
        Limit(0.05, "orange", "ConveyorHighFailureRatio", "warning"),
        Limit(0.25, "red", "ConveyorHighFailureRatio", "critical"),
    ),
    "firing_alerts": (Limit(1, "orange"), Limit(3, "red")),
    "heartbeat_age_seconds": (
        Limit(10, "orange"),
        Limit(30, "red", "ConveyorWorkerHeartbeatStale", "warning"),
    ),
    "inflow_to_outflow": (Limit(1.1, None, "ConveyorBacklogGrowing", "warning"),),
    "oldest_waiting_seconds": (Limit(60, "orange"), Limit(300, "red", "ConveyorOldestTaskTooOld", "warning")),
    "processing_p95_seconds": (Limit(1, "orange"), Limit(5, "red")),
    "producer_blocked_ratio": (Limit(0.5, "orange", "ConveyorProducersBlocked", "info"),),
    "queue_fill_ratio": (
        Limit(0.5, None, "ConveyorQueueFullSoon", "info"),
        Limit(0.7, "orange"),
        Limit(0.9, "red", "ConveyorQueueSaturated", "warning"),
    ),
    "queue_full_horizon_seconds": (Limit(900, None, "ConveyorQueueFullSoon", "info"),),
    # 30 is an edge of the wait histogram, so the quantile beside it is not a guess between two distant edges.
    "queue_wait_p95_seconds": (Limit(5, "orange"), Limit(30, "red", "ConveyorHighQueueWait", "warning")),
    # Each cost a consumer its life, and up to a whole task's time; in health there are none.
    "redeliveries_after_deaths_in_10_minutes": (Limit(10, None, "ConveyorTasksRedelivered", "warning"),),
    "resident_memory_bytes": (Limit(256 * MEBIBYTE, "red", "ConveyorWorkerMemoryHigh", "warning"),),
    "restarts_in_10_minutes": (Limit(3, None, "ConveyorWorkerFlapping", "warning"),),
    "restarts_in_1_hour": (Limit(1, "orange"), Limit(5, "red")),
    "retried_ratio": (Limit(0.2, "orange", "ConveyorTasksRetried", "warning"),),
    "scrape_seconds": (Limit(1, "red", "ConveyorScrapeSlow", "warning"),),
    # A commit takes 0.1 ms or so; with --spool-sync full as long as the disk needs, 10 to 30 ms if it spins.
    "spool_commit_seconds": (Limit(0.1, "red", "ConveyorSpoolSlow", "warning"),),
    "unaccounted_tasks": (Limit(1, "red", "ConveyorTasksLeaked", "warning"),),
    "used_cores": (Limit(1, "red"),),
    # A producer is busy by nature, so a table of all workers has no red for it.
    "worker_busy_ratio": (Limit(0.3, "green"), Limit(0.85, "orange")),
    "workers_missing": (Limit(1, "red"),),
}
