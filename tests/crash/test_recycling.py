"""Consumer processes that are replaced after so many tasks, or so much memory: nobody's task is lost or repeated."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from conveyor.snapshot import Role, WorkerState
from support.diary import Account
from support.runs import WORKLOADS, Run, running

TESTS = str(Path(__file__).parents[1])
CONSUMERS = 3


def doomed(folder: Path, *arguments: str) -> AbstractContextManager[Run]:
    options = ("--consumers", str(CONSUMERS), "--metrics", "off", "--max-attempts", "1000")
    return running(folder, "support.doom:doomed", f"folder={folder}", *arguments, *options, PYTHONPATH=TESTS)


def by_process(account: Account) -> Counter[str]:
    """Return how many tasks each process has begun, by slot and pid."""
    return Counter(process for processes in account.by.values() for process in processes)


def assert_each_done_once(folder: Path, run: Run, tasks: set[int]) -> Account:
    account = Account(folder)
    assert set(account.done) == tasks
    assert set(account.done.values()) == set(account.begun.values()) == {1}
    report = run.report
    assert (report["processed"], report["redelivered"], report["unfinished"], report["deaths"]) == (
        len(tasks),
        0,
        0,
        [],
    )
    assert "worker died" not in run.said()
    return account


@pytest.mark.parametrize(("most", "tasks", "millis"), [(1, 10, 0), (7, 100, 0), (7, 30, 3), (64, 1000, 0)])
def test_a_process_does_exactly_as_many_tasks_as_it_may(tmp_path: Path, most: int, tasks: int, millis: int) -> None:
    options = (f"tasks={tasks}", f"millis={millis}", "pause=yes", "--max-tasks-per-worker", str(most))
    with doomed(tmp_path, *options) as run:
        assert run.wait(60) == 0, run.said()
        everything = {1_000_000 * share + number for share in range(2) for number in range(tasks)}
        account = assert_each_done_once(tmp_path, run, everything)
        counts = by_process(account)
        assert max(counts.values()) == most
        assert sum(number < most for number in counts.values()) <= CONSUMERS  # the last in each slot
        full = sum(number == most for number in counts.values())
        # Each that did all it may was replaced, but for one that was the last when the run ended.
        assert full - CONSUMERS <= run.report["restarts"] <= full
        assert run.said().count("worker recycled") == run.report["restarts"]


def test_recycling_among_kills_loses_nothing(tmp_path: Path) -> None:
    chance, pace = random.Random(5), threading.Event()
    with doomed(tmp_path, "tasks=600", "millis=2", "--max-tasks-per-worker", "10") as run:
        kills = 0
        while run.process.poll() is None:
            pace.wait(0.05)
            with suppress(Exception):  # it ends meanwhile
                ready = [s for s in run.status().slots if s.role is Role.CONSUMER]
                pids = [s.pid for s in ready if s.pid is not None and s.state is not WorkerState.STARTING]
                os.kill(chance.choice(pids), signal.SIGKILL)
                kills += 1
        assert run.wait() == 0, run.said()
        account, report = Account(tmp_path), run.report
        assert len(account.done) == report["processed"] == 1200
        assert sum(account.begun.values()) - 1200 <= report["redelivered"] <= len(report["deaths"]) <= kills
        assert report["unfinished"] == report["lost"] == report["dead_lettered"] == 0
        assert max(by_process(account).values()) <= 10
        assert kills >= 3


def test_a_process_that_has_grown_is_replaced_after_its_task(tmp_path: Path) -> None:
    options = ("tasks=60", f"size={20 << 20}", "--max-memory-per-worker", "200M", "--metrics", "off")
    with running(tmp_path, "support.doom:leaky", f"folder={tmp_path}", *options, PYTHONPATH=TESTS) as run:
        assert run.wait(60) == 0, run.said()
        counts = by_process(assert_each_done_once(tmp_path, run, set(range(60))))
        assert run.report["restarts"] >= 3
        assert max(counts.values()) <= 200 // 20 + 1  # it is looked at after each task that takes so long


def test_a_limit_that_a_fresh_process_is_over_still_lets_each_do_a_task(tmp_path: Path) -> None:
    options = ("tasks=6", "size=1", "--max-memory-per-worker", "1M", "--metrics", "off")
    with running(tmp_path, "support.doom:leaky", f"folder={tmp_path}", *options, PYTHONPATH=TESTS) as run:
        assert run.wait() == 0, run.said()
        assert set(by_process(assert_each_done_once(tmp_path, run, set(range(6)))).values()) == {1}


@pytest.mark.parametrize("queue", ["joinable", "sentinel"])
def test_the_other_queues_recycle_too(tmp_path: Path, queue: str) -> None:
    options = ("--max-tasks-per-worker", "20", "--queue", queue, "--consumers", "2", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:numbers", f"folder={tmp_path}", "tasks=200", *options) as run:
        assert run.wait() == 0, run.said()
        assert sorted(map(int, run.lines())) == list(range(200))
        assert 8 <= run.report["restarts"] <= 10
        assert run.report["deaths"] == []
