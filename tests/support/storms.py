"""Kills at random moments, from beside a run in the process of the test; and what must hold of it at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from conveyor.loop import Loop
from conveyor.snapshot import Role, RunStatistics, WorkerState
from conveyor.supervisor import Supervisor


class Storm:
    """Kills a random consumer every few milliseconds; beside a run in this process, as its exporter is."""

    def __init__(self, seed: int, every_seconds: float, seconds: float) -> None:
        """Rage for so many seconds, if the run lasts as long."""
        self.chance = random.Random(seed)
        self.every_seconds = every_seconds
        self.seconds = seconds
        self.kills = 0
        self.looks: list[RunStatistics] = []
        self._stop = threading.Event()

    @contextlib.contextmanager
    def beside(self, supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        thread = threading.Thread(target=self._rage, args=(supervisor.statistics,))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _rage(self, statistics: Callable[[], RunStatistics]) -> None:
        until = time.monotonic() + self.seconds
        while not self._stop.wait(self.every_seconds) and time.monotonic() < until:
            run = statistics()
            self.looks.append(run)
            # Only who is ready: five deaths before that in 30 s would be a crash loop, and rightly end the run.
            ready = [s for s in run.slots if s.role is Role.CONSUMER and s.state not in (None, WorkerState.STARTING)]
            pids = [slot.pid for slot in ready if slot.pid is not None]
            with suppress(ProcessLookupError):
                if pids:
                    os.kill(self.chance.choice(pids), signal.SIGKILL)
                    self.kills += 1


def assert_holds_together(run: RunStatistics) -> None:
    """Assert what must hold of a run at any moment."""
    queue = run.queue
    assert queue.unfinished == queue.waiting + queue.in_progress
    assert queue.unfinished == run.total("produced") - run.total("processed") - queue.dead_lettered
    assert queue.in_progress <= run.live(Role.CONSUMER)
    assert queue.redelivered + queue.dead_lettered - run.total("abandoned") in (0, 1)  # one is being buried
    for slot in run.slots:
        assert sum(slot.task_buckets) == slot.processed
