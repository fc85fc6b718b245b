"""Deaths at the worst point, and workers that break what they share: no run hangs, and the counts are right."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.runs import Run, running
from support.waiting import wait_for

QUEUES = ("sentinel", "joinable")
TESTS = str(Path(__file__).parents[1])


def start(folder: Path, workload: str, *arguments: str) -> AbstractContextManager[Run]:
    return running(folder, f"support.villains:{workload}", *arguments, "--metrics", "off", PYTHONPATH=TESTS)


def assert_balanced(run: Run) -> None:
    assert run.report["processed"] + run.report["lost"] == run.report["produced"]


def test_a_consumer_killed_in_task_done_with_nothing_waiting_ends_the_run(tmp_path: Path) -> None:
    """Then nobody is starved: only the producer is, inside a put that has no timeout."""
    with start(tmp_path, "reporting", f"folder={tmp_path}", "--queue", "joinable") as run:
        assert run.wait() == 3
        assert run.report["ending"] == "broken"
        assert_balanced(run)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_producer_that_leaves_behind_a_dead_ones_write_lock_ends_the_run(tmp_path: Path, queue: str) -> None:
    with start(tmp_path, "locked_out", f"folder={tmp_path}", "--queue", queue) as run:
        wait_for("the death", lambda: "producer died" in run.said())
        (tmp_path / "locked").touch()
        assert run.wait() == 3
        assert run.report["trouble"].startswith("producer producer-1 died: SIGKILL; a dead worker holds a lock")
        assert run.lines() == ["1"]
        assert_balanced(run)


@pytest.mark.parametrize("queue", QUEUES)
def test_half_a_frame_in_the_pipe_does_not_hold_up_the_end(tmp_path: Path, queue: str) -> None:
    with start(tmp_path, "half_sent", f"folder={tmp_path}", "--queue", queue) as run:
        wait_for("the consumer in its task", lambda: run.status().queue.in_progress == 1)
        wait_for("a long buffer", lambda: run.worker("big").produced == 50)
        run.kill("big")
        wait_for("the death", lambda: "producer died" in run.said())
        run.process.terminate()
        wait_for("the drain", lambda: run.status().phase == "draining")
        run.process.terminate()
        assert run.wait(10.0) == 4
        assert run.report["unfinished"] == run.report["produced"] == 50


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("restart", ["no", "yes"])
def test_a_task_put_by_a_producer_that_died_before_it_counted_it_is_counted(
    tmp_path: Path, queue: str, restart: str
) -> None:
    with start(tmp_path, "in_doubt", f"folder={tmp_path}", f"restart={restart}", "--queue", queue) as run:
        assert run.wait() == (0 if restart == "yes" else 3)
        assert run.report["produced"] == run.report["processed"] == (20 if restart == "yes" else 10)
        assert run.report["lost"] == 0


def test_a_process_that_does_not_end_with_its_work_is_ended(tmp_path: Path) -> None:
    with start(tmp_path, "lingering") as run:
        assert run.wait() == 0
        assert "worker does not leave: killed" in run.said()
        assert sorted(run.lines()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("queue", [*QUEUES, "leased"])
@pytest.mark.parametrize("deed", ["return", "exit", "raise"])
@pytest.mark.parametrize("workload", ["forking", "forking_producer"])
def test_a_child_that_a_function_forks_never_gets_into_the_loop(
    tmp_path: Path, workload: str, deed: str, queue: str
) -> None:
    """However it leaves the function: the tasks and the row in the ledger are its parent's."""
    with start(tmp_path, workload, f"deed={deed}", "--queue", queue) as run:
        assert run.wait() == 0
        assert (run.report["produced"], run.report["processed"], run.report["failed"]) == (20, 20, 0)


@pytest.mark.parametrize(
    ("queue", "code", "lost", "given_up"), [("sentinel", 3, 1, 0), ("joinable", 3, 1, 0), ("leased", 1, 0, 1)]
)
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_killed_consumer_is_noticed_though_its_child_lives_on(
    tmp_path: Path, method: str, queue: str, code: int, lost: int, given_up: int
) -> None:
    with start(tmp_path, "forking", "deed=outlive", "--start-method", method, "--queue", queue) as run:
        assert run.wait(15.0) == code
        assert (run.report["lost"], run.report["dead_lettered"], run.report["processed"]) == (lost, given_up, 19)
        for process in run.processes():  # the child itself: no worker of ours, but ours to clean up
            process.kill()


@pytest.mark.parametrize("queue", [*QUEUES, "leased"])
def test_a_consumer_can_use_a_pool_of_its_own(tmp_path: Path, queue: str) -> None:
    with start(tmp_path, "forking", "deed=pool", "tasks=60", "--queue", queue) as run:
        assert run.wait() == 0
        assert run.report["failed"] == 0


@pytest.mark.parametrize("deed", ["unspeakable", "endless", "odd"])
def test_an_exception_that_cannot_well_be_told_costs_its_task_alone(tmp_path: Path, deed: str) -> None:
    with start(tmp_path, "raising", f"deed={deed}") as run:
        assert run.wait() == 1
        assert (run.report["failed"], run.report["restarts"]) == (3, 0)
        assert len(run.said()) < 50_000


@pytest.mark.parametrize("queue", QUEUES)
def test_a_stopped_worker_is_waited_for_even_after_a_death(tmp_path: Path, queue: str) -> None:
    """It may hold the read lock; but it is not dead, and goes on where it was."""
    arguments = ("kitchen", "speed=20", "dishes=40", "--queue", queue, "--metrics", "off")
    with running(tmp_path, *arguments) as run:
        wait_for("work", lambda: run.status().total("processed") > 5)
        wait_for("a cook's death", lambda: run.kill_in_task("chef-1"))
        pids = [slot.pid for slot in run.status().slots if slot.role == "consumer" and slot.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        before = run.status().elapsed_seconds
        wait_for("more than patience lasts", lambda: run.status().elapsed_seconds > before + 4.0)
        assert run.status().trouble == "producer chef-1 died: SIGKILL"
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert run.wait() == 3
        assert run.report["lost"] == 0
