"""Tasks that never end: who is in one for too long is killed, with the stack shown, and nobody else waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from conveyor.loop import Loop
from conveyor.settings import of_options
from conveyor.snapshot import RedeliveryReason
from conveyor.supervisor import Supervisor
from support import doom
from support.diary import Account
from support.doom import TROUBLES
from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])
TASKS = 100


def doomed(folder: Path, *arguments: str) -> AbstractContextManager[Run]:
    options = ("--consumers", "3", "--metrics", "off")
    return running(
        folder, "support.doom:doomed", f"folder={folder}", f"tasks={TASKS}", "producers=1", *arguments, *options,
        PYTHONPATH=TESTS,
    )  # fmt: skip


def deaths(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.report["deaths"]
    return found


@pytest.mark.parametrize(
    ("deed", "exit_code"),
    [("hang", -15), ("hang, deaf to SIGTERM", -9), ("SIGSTOP", -9)],
)
def test_a_consumer_that_hangs_in_a_task_is_killed_and_the_task_is_done_elsewhere(
    tmp_path: Path, deed: str, exit_code: int
) -> None:
    with doomed(tmp_path, "at=50", f"deed={deed}", "--task-timeout", "0.5") as run:
        assert run.wait() == 0, run.said()
        (death,) = deaths(run)
        assert (death["slot"], death["exit_code"]) == ((tmp_path / "victim").read_text(), exit_code)
        assert (death["cause"], death["task"], death["attempt"]) == ("heartbeat", "50", 1)
        assert death["task_seconds"] >= 0.5
        assert ("in hang" in death["stack"]) == (deed == "hang")  # only then can Python say where it is
        assert "task takes too long" in run.said()
        assert "longer than the task timeout" in run.said()
        assert (run.report["processed"], run.report["redelivered"]) == (TASKS, 1)
        account = Account(tmp_path)
        assert set(account.done) == set(range(TASKS))
        assert account.twice() == [50]
        assert sum(account.done.values()) == TASKS


def test_a_task_that_always_hangs_is_given_up_after_its_last_attempt(tmp_path: Path) -> None:
    options = ("--task-timeout", "0.3", "--max-attempts", "2")
    with doomed(tmp_path, "at=50", "deed=hang", "always=yes", *options) as run:
        assert run.wait() == 1, run.said()
        assert [death["is_dead_letter"] for death in deaths(run)] == [False, True]
        assert {death["cause"] for death in deaths(run)} == {"heartbeat"}
        assert (run.report["redelivered"], run.report["dead_lettered"], run.report["unfinished"]) == (1, 1, 0)
        assert set(Account(tmp_path).done) == set(range(TASKS)) - {50}


def test_nobody_waits_for_a_task_that_hangs(tmp_path: Path) -> None:
    with doomed(tmp_path, "at=0", "deed=hang", "--task-timeout", "4", "--max-attempts", "1") as run:
        wait_for("the good tasks", lambda: run.status().total("processed") == TASKS - 1)
        assert "task takes too long" not in run.said()
        assert run.wait() == 1
        assert run.report["dead_lettered"] == 1


def test_a_redelivery_after_a_timeout_is_counted_as_that(tmp_path: Path) -> None:
    seen: list[Supervisor] = []

    @contextlib.contextmanager
    def beside(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
        seen.append(supervisor)
        yield

    pipeline = doom.doomed(tmp_path, at=50, deed="hang", tasks=TASKS, producers=1)
    report = pipeline.run_with(of_options({"task_timeout": 0.5}), [beside])
    redeliveries = seen[0].statistics().queue.redeliveries
    assert (redeliveries[RedeliveryReason.TIMEOUT], redeliveries[RedeliveryReason.DEATH]) == (1, 0)
    assert report.redelivered == 1


def test_a_handler_of_the_tasks_own_may_end_it_in_time(tmp_path: Path) -> None:
    options = ("--task-timeout", "0.3")
    with doomed(tmp_path, "at=50", "deed=hang, with a handler of its own", *options) as run:
        assert run.wait() == 1
        assert deaths(run) == []
        assert (run.report["failed"], run.report["processed"], run.report["redelivered"]) == (1, TASKS, 0)


def test_many_short_tasks_together_may_take_longer_than_one(tmp_path: Path) -> None:
    with doomed(tmp_path, "millis=20", "--task-timeout", "0.4") as run:
        assert run.wait() == 0
        assert deaths(run) == []
        assert sum(worker["busy_seconds"] for worker in run.report["workers"]) > 2.0


def test_troubles_of_every_kind_cost_only_themselves(tmp_path: Path) -> None:
    good = set(range(2000)) - set(TROUBLES)
    with running(
        tmp_path, "support.doom:troubled", f"folder={tmp_path}", "tasks=2000", "--task-timeout", "0.5",
        "--metrics", "off", PYTHONPATH=TESTS,
    ) as run:  # fmt: skip
        assert run.wait(60) == 1
        report, account = run.report, Account(tmp_path)
        assert set(account.done) == good
        assert sum(account.done.values()) == len(good)
        assert (report["processed"], report["failed"], report["dead_lettered"]) == (1998, 1, 2)
        assert (report["lost"], report["unfinished"]) == (0, 0)
        assert {task for task in account.begun if account.begun[task] > 1} == {100, 200}
        assert [account.begun[task] for task in TROUBLES] == [3, 3, 1]


@pytest.mark.parametrize("queue", ["joinable", "sentinel"])
def test_with_the_other_queues_a_task_that_hangs_is_lost_and_the_run_says_so(tmp_path: Path, queue: str) -> None:
    options = ("--task-timeout", "0.5", "--queue", queue, "--consumers", "2", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:numbers", f"folder={tmp_path}", "tasks=50", "hold=7", *options) as run:
        assert run.wait() == 3
        assert (run.report["processed"], run.report["lost"]) == (49, 1)
        assert [death["cause"] for death in deaths(run)] == ["heartbeat"]
