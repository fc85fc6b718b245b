"""Consumers come and go, the run pauses, workers are killed, all at random: no task is lost, and none is repeated but
one that was in hand at a kill."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from conveyor.snapshot import Role, WorkerState
from support.diary import Account
from support.runs import Run, running
from support.waiting import wait_for

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1").split()]
SECONDS = float(os.environ.get("STEER_SECONDS", "8"))
"""So long the run is steered. For a full one: 60, with `STEER_EVERY` 2."""
EVERY_SECONDS = float(os.environ.get("STEER_EVERY", "0.8"))
MOST = 12
TESTS = str(Path(__file__).parents[1])


class Helm:
    """Changes the number of consumers of a run again and again, and has some killed, or all pause, meanwhile."""

    def __init__(self, run: Run, chance: random.Random) -> None:
        self.run, self.chance = run, chance
        self.consumers = 4
        self.changes = self.pauses = self.kills = 0
        self.processed = 0
        self._pace = threading.Event()  # never set: to wait on it is the pace of the storm

    def turn(self) -> None:
        """Scale, and for as long as it takes until the next time kill or pause."""
        until = time.monotonic() + EVERY_SECONDS
        wanted = self.chance.randint(1, MOST)
        assert self.run.ask(f"scale consumers={wanted}").startswith("consumers: ")
        self.changes += wanted != self.consumers
        self.consumers = wanted
        if self.chance.random() < 0.4:
            self.pause()
        while time.monotonic() < until:
            self._pace.wait(self.chance.uniform(0.02, 0.3))
            self.kill()
        wait_for(f"{wanted} consumers", self.has_settled)

    def has_settled(self) -> bool:
        """Return whether as many as wanted are there; and see that no total has fallen."""
        seen = self.run.status()
        assert seen.total("processed") >= self.processed
        self.processed = seen.total("processed")
        assert seen.desired[Role.CONSUMER] == self.consumers
        ready = [s for s in seen.slots if s.role is Role.CONSUMER and s.state not in (None, WorkerState.STARTING)]
        return len(ready) == self.consumers

    def pause(self) -> None:
        assert self.run.ask("pause") == "paused"
        self.pauses += 1
        wait_for(
            "nothing in hand", lambda: not self.run.status().queue.in_progress and self.run.status().queue.is_paused
        )
        done = self.run.status().total("processed")
        self._pace.wait(0.1)
        assert self.run.status().total("processed") == done
        assert self.run.ask("resume") == "resumed"

    def kill(self) -> None:
        ready = [s for s in self.run.status().slots if s.role is Role.CONSUMER]
        pids = [s.pid for s in ready if s.pid is not None and s.state is not WorkerState.STARTING]
        with suppress(ProcessLookupError):
            if pids:
                os.kill(self.chance.choice(pids), signal.SIGKILL)
                self.kills += 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120 + 3 * SECONDS)
def test_scaling_pausing_and_kills_lose_no_task_and_repeat_only_those_in_hand(tmp_path: Path, seed: int) -> None:
    options = ("--consumers", "4", "--max-attempts", "1000", "--metrics", "off", "--drain-timeout", "30")
    with running(tmp_path, "support.doom:mixed", f"folder={tmp_path}", *options, PYTHONPATH=TESTS) as run:
        wait_for("work", lambda: run.status().total("processed") > 100)
        helm = Helm(run, random.Random(seed))
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            helm.turn()
        scalings = run.status().scalings
        run.process.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0, run.said()
    report, account = run.report, Account(tmp_path)
    again = sum(account.begun.values()) - len(account.begun)
    print(
        f"seed {seed}: {helm.changes} changes, {helm.pauses} pauses, {helm.kills} kills, {report['processed']} tasks, "
        f"{report['redelivered']} redelivered, {again} begun again"
    )
    assert report["ending"] == "drained"
    assert report["produced"] == report["processed"] == len(account.done), f"seed {seed}"
    assert_gapless(account.done)
    assert [report[count] for count in ("failed", "lost", "unfinished", "dead_lettered")] == [0, 0, 0, 0]
    assert again <= report["redelivered"] <= helm.kills  # at most one a kill, and only what was in hand
    assert sum(account.done.values()) - len(account.done) <= again
    assert sum(scalings.values()) == helm.changes
    assert helm.changes >= 3
    assert helm.kills >= 5


def assert_gapless(done: Counter[int]) -> None:
    """Assert that of each producer's numbers all were done up to its last."""
    for share in {task // 1_000_000 for task in done}:
        numbers = sorted(task % 1_000_000 for task in done if task // 1_000_000 == share)
        assert numbers == list(range(len(numbers)))
