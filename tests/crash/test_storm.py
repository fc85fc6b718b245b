"""Random kills at random moments: whatever these queues lose is counted, and no run hangs."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1 2").split()]


@pytest.mark.parametrize("queue", ["sentinel", "joinable"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_kills_ends_with_every_task_done_or_counted_as_lost(tmp_path: Path, queue: str, seed: int) -> None:
    chance = random.Random(seed)
    arguments = ("--queue", queue, "--consumers", "4", "--maxsize", "50", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:brisk", *arguments) as run:
        wait_for("work", lambda: run.status().total("processed") > 20)
        kills = sum(kill_somebody(run, chance) for _ in range(chance.randint(3, 12)))
        run.wait(60.0)
        report, lines = run.report, run.lines()
        assert report["processed"] + report["lost"] == report["produced"], f"seed {seed}"
        assert len(lines) == len(set(lines))
        assert report["processed"] <= len(lines) <= report["processed"] + kills  # one may be cut off at its count
        assert run.process.returncode == (3 if report["lost"] or report["trouble"] else 0)


def kill_somebody(run: Run, chance: random.Random) -> bool:
    """SIGKILL a random worker, a producer one time in ten."""
    with suppress(AssertionError, OSError):  # the run is over
        role = "producer" if chance.random() < 0.1 else "consumer"
        slots = [slot for slot in run.status().slots if slot.pid is not None and slot.role == role]
        if slots:
            os.kill(chance.choice(slots).pid or 0, signal.SIGKILL)
            return True
    return False
