"""A run that nobody runs: statistics made by hand, and a loop that turned when the test says."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from conveyor.ledger import TASK_EDGES_SECONDS, WAIT_EDGES_SECONDS
from conveyor.snapshot import (
    Phase,
    QueueStatistics,
    RestartReason,
    Role,
    RunStatistics,
    Scaling,
    SlotStatistics,
    SpoolStatistics,
    WorkerState,
)


def histogram(edges: tuple[float, ...], count: int) -> tuple[int, ...]:
    """Return buckets with so many observations, all in the third one."""
    return tuple(count if n == 2 else 0 for n in range(len(edges) + 1))


def make_slot(name: str, **changes: Any) -> SlotStatistics:
    """Return a worker that is down and has done nothing, but for these changes; its name tells its role.

    A pid brings it up, idle if nothing else is said; its histograms follow its counts.
    """
    processed, in_progress = changes.get("processed", 0), changes.get("in_progress", 0)
    abandoned = changes.get("abandoned", 0)
    pid = changes.get("pid")
    defaults = SlotStatistics(
        name=name,
        role=Role.PRODUCER if name.startswith("producer") else Role.CONSUMER,
        up=pid is not None,
        state=WorkerState.IDLE if pid is not None else None,
        finished=False,
        pid=None,
        started_at=1.7e9 if pid is not None else None,
        heartbeat_at=1.7e9 + 5 if pid is not None else None,
        produced=0,
        processed=0,
        failed=0,
        in_progress=0,
        abandoned=0,
        busy_seconds=0.0,
        blocked_seconds=0.0,
        task_age_seconds=None,
        task_seconds=0.004 * processed,
        task_buckets=histogram(TASK_EDGES_SECONDS, processed),
        wait_seconds=0.02 * processed,
        wait_buckets=histogram(WAIT_EDGES_SECONDS, processed + in_progress + abandoned),
        restarts=dict.fromkeys(RestartReason, 0),
        last_exit_code=None,
        activity=changes.get("state", WorkerState.IDLE if pid is not None else None),
    )
    return dataclasses.replace(defaults, **changes)


def make_run(*slots: SlotStatistics, **changes: Any) -> RunStatistics:
    """Return a run of these slots whose queue agrees with them, but for these changes."""
    produced, processed = sum(s.produced for s in slots), sum(s.processed for s in slots)
    in_progress, lost = sum(s.in_progress for s in slots), sum(s.abandoned for s in slots)
    run = RunStatistics(
        name="bakery",
        phase=Phase.RUNNING,
        started_at=1.7e9,
        elapsed_seconds=60.0,
        start_method="forkserver",
        queue=QueueStatistics(
            name="joinable",
            capacity=1000,
            waiting=produced - processed - in_progress - lost,
            in_progress=in_progress,
            unfinished=produced - processed,
            lost=lost,
        ),
        desired={role: sum(s.role is role for s in slots) for role in Role},
        consumers_least=sum(s.role is Role.CONSUMER for s in slots),
        consumers_most=sum(s.role is Role.CONSUMER for s in slots),
        scalings=dict.fromkeys(Scaling, 0),
        slots=slots,
        failures={},
        deaths=(),
        trouble=None,
        ending=None,
    )
    return dataclasses.replace(run, **changes)


def make_spool(**changes: Any) -> SpoolStatistics:
    """Return a spool that has been written and can be, but for these changes."""
    spool = SpoolStatistics(
        folder="/var/spool/bakery", size_bytes=8192, tasks=0, commits=10, commit_seconds=0.25, trouble=None
    )
    return dataclasses.replace(spool, **changes)


def with_queue(run: RunStatistics, **changes: Any) -> RunStatistics:
    """Return the run with these changes in its queue."""
    return dataclasses.replace(run, queue=dataclasses.replace(run.queue, **changes))


class FakeRun:
    """Looks like a supervisor: shows `now`, or raises it if it is an exception."""

    def __init__(self, now: RunStatistics | Exception) -> None:
        self.now = now

    def statistics(self) -> RunStatistics:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


class FakeLoop:
    """Looks like a loop: has turned that many seconds ago, or turns as long as the test lasts, however slow it is."""

    def __init__(self, seconds_ago: float = -3600.0) -> None:
        self.last_turn = time.monotonic() - seconds_ago
