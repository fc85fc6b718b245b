"""Every process of a run is killed, again and again: the next start goes on where the last one ended, to the task."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from support.diary import Account
from support.runs import Run, running
from support.waiting import wait_for

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1 2").split()]
CYCLES = int(os.environ.get("SPOOL_CYCLES", "8"))
"""Kills of everything, in a test. For a long one: 100, with SPOOL_TASKS=60000."""
TASKS = int(os.environ.get("SPOOL_TASKS", "4000"))  # of each producer
TESTS = str(Path(__file__).parents[1])
PRODUCERS, CONSUMERS = 3, 4


def spooled(
    folder: Path, start: int, *arguments: str, consumers: int = CONSUMERS
) -> contextlib.AbstractContextManager[Run]:
    """Start the workload that keeps a diary, for the nth time; what belongs to this start has a folder of its own."""
    own = folder / f"start-{start}"
    own.mkdir()
    options = ("--consumers", str(consumers), "--metrics", "off", "--spool", str(folder / "spool"))
    return running(own, "support.doom:doomed", f"folder={folder}", *options, *arguments, PYTHONPATH=TESTS)


def everything(tasks: int, producers: int) -> set[int]:
    return {1_000_000 * share + number for share in range(producers) for number in range(tasks)}


def kill_all(run: Run, *, at_once: bool) -> None:
    """SIGKILL the main process, and with it or before it all others."""
    others = [] if at_once else psutil.Process(run.process.pid).children(recursive=True)
    for process in others:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    run.process.kill()
    run.process.wait()
    wait_for("every process to be gone", lambda: not run.processes(), 10.0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120 + 10 * CYCLES)
def test_what_was_accepted_is_done_however_often_everything_is_killed(tmp_path: Path, seed: int) -> None:
    chance, kills = random.Random(seed), 0
    arguments = (f"tasks={TASKS}", f"producers={PRODUCERS}", "millis=0.5", "pause=yes", "--maxsize", "200")
    for start in range(CYCLES):
        with spooled(tmp_path, start, *arguments) as run:
            wait_for("it to be under way", lambda: run.process.poll() is not None or run.status().total("produced"))
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(chance.uniform(0.0, 0.6))
            if run.process.poll() is not None:
                break
            kill_all(run, at_once=chance.random() < 0.7)
            kills += 1
    with spooled(tmp_path, CYCLES, *arguments) as run:
        assert run.wait(60.0 + CYCLES) == 0, run.said()
        report = run.report
    account, total = Account(tmp_path), PRODUCERS * TASKS
    again = sum(account.begun.values()) - total
    print(f"seed {seed}: {kills} kills, {again} begun again, {sum(account.done.values()) - total} done twice")
    assert kills >= 3, "it was too quick for the kills"
    assert set(account.done) == everything(TASKS, PRODUCERS)
    assert again <= CONSUMERS * kills  # at most what was in hand
    assert (report["unfinished"], report["lost"], report["dead_lettered"], report["failed"]) == (0, 0, 0, 0)
    # A run that has come to its end begins anew at the next start: then its figures are of that one alone.
    assert (report["produced"], report["processed"]) == (total, total)


def test_figures_go_on_over_a_death_of_everything(tmp_path: Path) -> None:
    with spooled(tmp_path, 1, "tasks=200", "gate_at=100", "hold=50") as run:
        wait_for("a task in hand, and all others done", lambda: run.status().total("processed") == 199)
        kill_all(run, at_once=True)
    with spooled(tmp_path, 2, "tasks=200", "gate_at=100", "hold=50") as run:
        wait_for("the task in hand again", lambda: run.status().queue.in_progress == 1)
        status = run.status()
        assert (status.total("produced"), status.total("processed"), status.queue.unfinished) == (200, 199, 1)
        assert sum(status.queue.redeliveries.values()) == 1  # by the restart
        (tmp_path / "gate").touch()
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert (run.report["produced"], run.report["processed"]) == (400, 400)
    account = Account(tmp_path)
    assert set(account.done) == everything(200, 2)
    assert account.twice() == [50]


@pytest.mark.parametrize("consumers", [1, 7])
def test_another_number_of_consumers_goes_on_with_the_same_totals(tmp_path: Path, consumers: int) -> None:
    with spooled(tmp_path, 1, "tasks=300", "gate_at=200") as run:
        wait_for("all that there is", lambda: run.status().total("processed") == 400)
        kill_all(run, at_once=True)
    (tmp_path / "gate").touch()
    with spooled(tmp_path, 2, "tasks=300", "gate_at=200", consumers=consumers) as run:
        assert run.wait() == 0
        assert (run.report["produced"], run.report["processed"]) == (600, 600)
    assert Account(tmp_path).twice() == []


def test_a_stop_in_the_middle_of_a_long_task_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    arguments = ("hold=5", "--drain-timeout", "0.5", "--maxsize", "10")
    with spooled(tmp_path, 1, *arguments, consumers=1) as run:
        wait_for("the task", (tmp_path / "held-by").exists)
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        report = run.report
        assert report["ending"] == "suspended"
        assert 0 < report["unfinished"] == report["produced"] - report["processed"]
    (tmp_path / "release").touch()
    with spooled(tmp_path, 2, *arguments) as run:
        assert run.wait() == 0
        assert (run.report["produced"], run.report["processed"]) == (600, 600)
    account = Account(tmp_path)
    assert set(account.done) == everything(300, 2)
    assert account.twice() == [5]


def test_a_killed_producer_goes_on_at_the_next_start(tmp_path: Path) -> None:
    with spooled(tmp_path, 1, "gate_at=100") as run:
        wait_for("all that there is", lambda: run.status().total("processed") == 200)
        run.kill("producer-1")
        wait_for("its death to be known", lambda: "producer died" in run.said())
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        assert (run.report["produced"], run.report["processed"]) == (400, 400)
    with spooled(tmp_path, 2, "gate_at=100") as run:
        assert run.wait() == 0
        assert (run.report["produced"], run.report["processed"]) == (600, 600)
    assert Account(tmp_path).twice() == []


def test_a_run_that_came_to_its_end_begins_anew(tmp_path: Path) -> None:
    for start in (1, 2):
        with spooled(tmp_path, start, "tasks=50") as run:
            assert run.wait() == 0
            assert (run.report["produced"], run.report["processed"]) == (100, 100)
    assert set(Account(tmp_path).done.values()) == {2}


def test_a_killed_consumer_is_no_matter_with_a_spool_either(tmp_path: Path) -> None:
    arguments = ("point=tasks done, lease open", "tasks=500")
    with spooled(tmp_path, 1, *arguments) as run:
        assert run.wait() == 0
        assert (tmp_path / "victim").exists()
        assert (run.report["produced"], run.report["processed"], run.report["redelivered"]) == (1000, 1000, 0)
    account = Account(tmp_path)
    assert set(account.done) == everything(500, 2)
    assert account.twice() == []
