"""Runs whose consumers are killed: at moments by chance, wherever they are, as a kernel short of memory does."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import replace

from conveyor.bench import figures, watching
from conveyor.bench.jobs import Job
from conveyor.bench.watching import Measurement, Status, Trial

SEED = 2024
KILLED_EVERY_SECONDS = 1.0
REQUEUE_EVERY_SECONDS = 0.15
REQUEUE_KILLS = 16
"""In one run. More would measure how long a slot that dies again and again is kept from a new process."""
_RECENT_NS = 200_000_000
_STALL_SECONDS = 6.0


class Killer:
    """Kills one of the consumers that have done something lately, again and again."""

    def __init__(self, trial: Trial, every_seconds: float, most: int, at_work: int) -> None:
        """Kill at most so many, and only while so many are at work."""
        self.kills: dict[int, int] = {}
        """Whom it has killed, and when, in nanoseconds."""
        self._trial = trial
        self._every_seconds = every_seconds
        self._most = most
        self._at_work = at_work
        self._chance = random.Random(SEED)
        self._next_at: float | None = None
        self._seen: dict[int, int] = {}

    def look(self) -> int:
        """Kill if it is time to; return how much has happened."""
        for record in self._trial.records.read():
            self._seen[record.pid] = record.ns
        now = time.monotonic()
        if self._next_at is None:
            self._next_at = now + self._every_seconds if self._seen else None
        elif now >= self._next_at:
            # Not always at the same moment of a task.
            self._next_at += self._every_seconds * self._chance.uniform(0.9, 1.1)
            self._kill()
        return len(self._trial.records.all)

    def _kill(self) -> None:
        since_ns = time.monotonic_ns() - _RECENT_NS
        alive = sorted(pid for pid, ns in self._seen.items() if ns > since_ns and pid not in self.kills)
        if len(alive) >= self._at_work and len(self.kills) < self._most:
            pid = self._chance.choice(alive)
            self.kills[pid] = time.monotonic_ns()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _run(contestant: str, job: Job, every_seconds: float, most: int, at_work: int) -> tuple[Measurement, Trial, Killer]:
    with watching.started(contestant, job) as trial:
        killer = Killer(trial, every_seconds, most, at_work)
        ending = trial.watch(killer.look, _STALL_SECONDS)
        trial.records.read()
    return ending, trial, killer


def killed(contestant: str, job: Job) -> Measurement:
    """Kill a consumer every second; tell what became of the tasks, whether or not the run has ended."""
    ending, trial, killer = _run(contestant, job, KILLED_EVERY_SECONDS, most=1000, at_work=1)
    after = figures.aftermath(figures.attempts(trial.records.all), job.tasks)
    found = {
        "lost": float(after.lost),
        "twice": float(after.twice),
        "longest_stall_seconds": after.longest_stall_seconds,
        "kills": float(len(killer.kills)),
        "finished": float(ending.status is Status.DONE),
        "sent": float(job.tasks),
        "received": float(job.tasks - after.lost),
    }
    if ending.status is Status.DONE and after.lost:
        return Measurement(status=Status.WRONG, note=f"ends, and {after.lost} tasks are lost", figures=found)
    return replace(ending, figures=found)


def requeue(contestant: str, job: Job, runs: int) -> Measurement:
    """Kill consumers one soon after the other; tell how soon another one starts each one's task."""
    waits: list[float] = []
    ending = Measurement(status=Status.MISSING)
    for _ in range(runs):
        ending, trial, killer = _run(contestant, job, REQUEUE_EVERY_SECONDS, REQUEUE_KILLS, at_work=2)
        waits += figures.returns(figures.attempts(trial.records.all), killer.kills)
        if ending.status is not Status.DONE:
            break
    found = {
        "p50_seconds": figures.percentile(waits, 0.5),
        "p99_seconds": figures.percentile(waits, 0.99),
        "kills": float(len(waits)),
    }
    return replace(ending, figures=found)
