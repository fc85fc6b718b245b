"""The table of deaths for the queues of the standard library: who dies, how, and what must come of it.

Not one of these may hang. Each test also says who did not die.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for

QUEUES = ("sentinel", "joinable")


def restarts(run: Run) -> dict[str, int]:
    """Return how many processes each slot needed beyond its first."""
    return {worker["name"]: worker["restarts"] for worker in run.report["workers"]}


def start_numbers(folder: Path, queue: str, consumers: int, *arguments: str):  # type: ignore[no-untyped-def]
    return running(
        folder,
        f"{WORKLOADS}:numbers",
        f"folder={folder}",
        *arguments,
        "--queue",
        queue,
        "--consumers",
        str(consumers),
        "--metrics",
        "off",
    )


def busy_worker(run: Run) -> str:
    """Return the slot whose consumer holds the task that waits."""
    return wait_for("a consumer in the task", (run.folder / "held-by").read_text)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_consumer_killed_in_a_task_loses_that_task_alone(tmp_path: Path, queue: str, how: signal.Signals) -> None:
    with start_numbers(tmp_path, queue, 3, "hold=50") as run:
        victim = busy_worker(run)
        run.kill(victim, how)
        assert run.wait() == 3
        assert run.report["lost"] == run.report["unfinished"] == 1
        assert sorted(map(int, run.lines())) == [n for n in range(100) if n != 50]
        assert {name for name, number in restarts(run).items() if number} <= {victim}
        assert "worker died" in run.said()
        assert how.name in run.said()


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("deed", ["exit", "_exit"])
def test_a_consumer_that_leaves_in_a_task_is_a_death_even_with_exit_code_0(
    tmp_path: Path, queue: str, deed: str
) -> None:
    with start_numbers(tmp_path, queue, 2, "villain=50", f"deed={deed}") as run:
        assert run.wait() == 3
        assert run.report["lost"] == 1
        assert sorted(map(int, run.lines())) == [n for n in range(100) if n != 50]
        assert 'how="exit code 0"' in run.said()


@pytest.mark.parametrize("queue", QUEUES)
def test_a_consumer_that_raises_lives_on(tmp_path: Path, queue: str) -> None:
    with start_numbers(tmp_path, queue, 2, "villain=50", "deed=raise") as run:
        assert run.wait() == 1
        assert run.report["failed"] == 1
        assert run.report["failures"] == {"ValueError": 1}
        assert run.report["processed"] == 100
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize("queue", QUEUES)
def test_the_only_consumer_killed_while_idle_freezes_the_queue_and_the_run_says_so(tmp_path: Path, queue: str) -> None:
    """It died with the queue's read lock, as every idle consumer of these queues does."""
    with start_numbers(tmp_path, queue, 1, "gate_at=10") as run:
        wait_for("an idle consumer", lambda: run.worker("consumer-1").processed == 10)
        run.kill("consumer-1")
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        report = run.report
        assert report["ending"] == "broken"
        assert report["lost"] == report["produced"] - 10
        assert report["produced"] > 10
        assert "holds a lock of the queue" in report["trouble"]


@pytest.mark.parametrize("queue", QUEUES)
def test_one_of_several_idle_consumers_killed_never_hangs_the_run(tmp_path: Path, queue: str) -> None:
    """Whether it held the lock is chance: either nothing is lost, or all that waits is, and both are said."""
    with start_numbers(tmp_path, queue, 3, "gate_at=10") as run:
        wait_for("idle consumers", lambda: run.status().total("processed") == 10)
        run.kill("consumer-2")
        (tmp_path / "gate").touch()
        code = run.wait()
        report = run.report
        assert code == (3 if report["lost"] else 0)
        assert report["processed"] + report["lost"] == report["produced"]
        assert len(run.lines()) == len(set(run.lines())) == report["processed"]


@pytest.mark.parametrize("queue", QUEUES)
def test_what_a_killed_producer_had_put_is_done(tmp_path: Path, queue: str) -> None:
    with start_numbers(tmp_path, queue, 2, "gate_at=40", "producers=2") as run:
        wait_for("both at their gates", lambda: run.status().total("processed") == 80)
        run.kill("producer-1")
        wait_for("its death to be known", lambda: not run.worker("producer-1").up)
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        assert run.report["lost"] == 0
        assert run.report["trouble"] == "producer producer-1 died: SIGKILL"
        assert len(run.lines()) == 40 + 100
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    ("deed", "code"), [("raise", "exit code 1"), ("exit", "exit code 0"), ("_exit", "exit code 0"), ("", "exit code 1")]
)
def test_a_producer_that_ends_badly_ends_the_run_with_exit_code_3(
    tmp_path: Path, queue: str, deed: str, code: str
) -> None:
    arguments = (f"folder={tmp_path}", f"deed={deed}", "--queue", queue, "--consumers", "2", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:ending_badly", *arguments) as run:
        assert run.wait() == 3
        report = run.report
        assert report["trouble"].startswith(f"producer bad died: {code}")
        assert report["processed"] + report["lost"] == report["produced"]
        if deed != "_exit":  # which may strike its feeder thread in the middle of a frame
            assert report["trouble"] == f"producer bad died: {code}"
            assert {str(n) for n in range(1_000_000, 1_000_010)} <= set(run.lines())
        if deed == "":
            assert "cannot be sent to another process" in run.said()


@pytest.mark.parametrize("queue", QUEUES)
def test_a_producer_killed_with_tasks_in_its_feeder_loses_them_and_the_run_ends(tmp_path: Path, queue: str) -> None:
    arguments = (f"folder={tmp_path}", "--queue", queue, "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:large", *arguments) as run:
        wait_for("both consumers in a task", lambda: run.status().queue.in_progress == 2)
        wait_for("a long buffer", lambda: run.worker("big").produced >= 20)
        run.kill("big")
        (tmp_path / "release").touch()
        assert run.wait() == 3
        report = run.report
        assert report["lost"] > 0
        assert report["processed"] + report["lost"] == report["produced"]


def test_a_consumer_killed_inside_task_done_stops_everybody_and_the_run_says_so(tmp_path: Path) -> None:
    """It held the condition that every put and every task_done needs."""
    with start_numbers(tmp_path, "joinable", 2, "villain=50", "deed=die holding the condition", "gate_at=60") as run:
        wait_for("the death", lambda: "worker died" in run.said())
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        report = run.report
        assert report["ending"] == "broken"
        assert "holds a lock of the queue" in report["trouble"]
        assert "50" in run.lines()
        assert report["processed"] == len(run.lines())
        assert report["processed"] + report["lost"] == report["produced"]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_producer_killed_in_the_middle_of_a_frame_stops_everybody_and_the_run_says_so(
    tmp_path: Path, queue: str
) -> None:
    """It held the write lock, and what follows its half frame cannot be read."""
    arguments = (f"folder={tmp_path}", "deed=die in the middle of a frame", "--queue", queue, "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:ending_badly", *arguments, "--consumers", "2", "tasks=1") as run:
        assert run.wait() == 3
        report = run.report
        assert report["trouble"]
        assert report["processed"] == len(run.lines())
        assert report["processed"] + report["lost"] == report["produced"]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a task"])
def test_no_worker_outlives_a_killed_main_process(tmp_path: Path, queue: str, busy: bool) -> None:
    with start_numbers(tmp_path, queue, 3, "hold=5" if busy else "gate_at=5") as run:
        if busy:
            busy_worker(run)
        else:
            wait_for("work", lambda: run.status().total("processed") == 5)
        run.process.kill()
        run.process.wait()
        wait_for("every process to be gone", lambda: not run.processes(), 10.0)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_worker_that_never_gets_ready_stops_the_run_with_the_reason(tmp_path: Path, queue: str) -> None:
    with running(tmp_path, f"{WORKLOADS}:unborn", "--queue", queue, "--metrics", "off") as run:
        assert run.wait() == 3
        assert "died 5 times in 30 s before it was ready: exit code 7" in run.report["trouble"]
        assert run.report["lost"] == run.report["produced"] == 5


@pytest.mark.parametrize("queue", QUEUES)
def test_a_killed_fork_server_leaves_no_stray_worker(tmp_path: Path, queue: str) -> None:
    """Its death looks like that of all its workers, who live on: they must be ended, not doubled."""
    with start_numbers(tmp_path, queue, 2, "gate_at=5") as run:
        wait_for("work", lambda: run.status().total("processed") == 5)
        workers = {slot.pid for slot in run.status().slots}
        parents = {psutil.Process(pid).ppid() for pid in workers}
        assert len(parents) == 1
        psutil.Process(parents.pop()).kill()
        wait_for("the deaths to be known", lambda: "producer died" in run.said())
        (tmp_path / "gate").touch()
        assert run.wait() == 3
        assert run.report["processed"] + run.report["lost"] == run.report["produced"]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains(tmp_path: Path, queue: str, number: signal.Signals) -> None:
    with start_numbers(tmp_path, queue, 2, "hold=10", "gate_at=20") as run:
        busy_worker(run)
        run.process.send_signal(number)
        wait_for("the drain", lambda: run.status().phase == "draining")
        wait_for("the producer to have stopped", lambda: run.worker("producer-1").finished)
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert run.report["ending"] == "drained"
        assert sorted(map(int, run.lines())) == list(range(20))


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_process_group_drains_too(tmp_path: Path, queue: str, number: signal.Signals) -> None:
    """As a terminal, `timeout` and some service managers send it: to the fork server and every worker as well."""
    with start_numbers(tmp_path, queue, 3, "hold=10", "gate_at=20") as run:
        busy_worker(run)
        os.killpg(run.process.pid, number)
        wait_for("the producer to have stopped", lambda: run.worker("producer-1").finished)
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert run.report["ending"] == "drained"
        assert sorted(map(int, run.lines())) == list(range(20))
        assert set(restarts(run).values()) == {0}


@pytest.mark.parametrize("queue", QUEUES)
def test_a_second_signal_stops_now_and_counts_what_is_left(tmp_path: Path, queue: str) -> None:
    with start_numbers(tmp_path, queue, 1, "hold=10") as run:
        busy_worker(run)
        run.process.terminate()
        wait_for("the drain", lambda: run.status().phase == "draining")
        run.process.terminate()
        assert run.wait() == 4
        report = run.report
        assert report["ending"] == "expired"
        assert report["processed"] == len(run.lines()) == 10
        assert report["unfinished"] == report["produced"] - 10 > 0
        assert report["lost"] == 0


@pytest.mark.parametrize("queue", QUEUES)
def test_a_drain_ends_when_its_time_is_over(tmp_path: Path, queue: str) -> None:
    with start_numbers(tmp_path, queue, 1, "hold=10", "--drain-timeout", "0.5") as run:
        busy_worker(run)
        run.process.terminate()
        assert run.wait() == 4


@pytest.mark.parametrize("queue", QUEUES)
def test_a_producer_that_waits_for_room_can_be_stopped(tmp_path: Path, queue: str) -> None:
    with start_numbers(tmp_path, queue, 1, "hold=0", "--maxsize", "5") as run:
        wait_for("a blocked producer", lambda: run.worker("producer-1").state == "blocked")
        assert run.status().queue.waiting == 5
        run.process.terminate()
        wait_for("the drain", lambda: run.status().phase == "draining")
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert run.report["processed"] == run.report["produced"] == 7  # the task in its hands as well, and no more
