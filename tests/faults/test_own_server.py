"""Limits and signals that the fork server has to bear as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import environment
from support.limits import few_processes
from support.runs import running
from support.waiting import wait_for

KITCHEN = [sys.executable, "-m", "conveyor", "run", "kitchen", "rounds=3", "speed=50"]


@pytest.mark.parametrize("most", [8, 12, 20])
def test_a_fork_that_fails_costs_a_run_that_worker_and_no_other(tmp_path: Path, most: int) -> None:
    with few_processes(most) as enter:
        done = subprocess.run(
            [*KITCHEN, "--consumers", "30"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(tmp_path),
            preexec_fn=enter,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "worker not started" in done.stderr
    assert "produced=30 processed=30" in done.stderr
    assert "worker died" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_name_of_the_temporary_folder_may_be_long(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    told = environment(tmp_path, TMPDIR=str(long))
    done = subprocess.run(KITCHEN, capture_output=True, text=True, env=told, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_hang_up_of_the_whole_process_group_drains_and_kills_nobody(tmp_path: Path) -> None:
    with running(tmp_path, "kitchen", "rounds=0", CONVEYOR_METRICS="off") as run:
        wait_for("a task to be done", lambda: run.status().total("processed"))
        os.killpg(run.process.pid, signal.SIGHUP)
        assert run.wait() == 0
        assert (run.report["ending"], run.report["deaths"]) == ("drained", [])
