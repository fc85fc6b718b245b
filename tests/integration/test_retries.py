"""Tasks that raise and are tried again: each is done, or has failed, once; and nobody waits for them but the end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from conveyor import ExitCode
from conveyor.snapshot import QueueStatistics, RedeliveryReason
from support.diary import Account
from support.retrying import RAISE, fateful, results_of, run_of
from support.runs import Run, running
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])
TASKS = 200
EVERY = 4
ODD = range(0, TASKS, EVERY)
"""Tasks that raise."""


def raising(times: int) -> dict[int, Sequence[str]]:
    return dict.fromkeys(ODD, (RAISE,) * times)


def conveyor(folder: Path, *arguments: str) -> AbstractContextManager[Run]:
    """Start `conveyor run` with numbers of which some raise."""
    options = ("--queue", "leased", "--metrics", "off")
    return running(folder, "support.retrying:raising", f"folder={folder}", *arguments, *options, PYTHONPATH=TESTS)


def errors(queue: QueueStatistics) -> int:
    """Return how many deliveries were made again because the function had raised; there was no other reason."""
    assert {reason for reason, number in queue.redeliveries.items() if number} <= {RedeliveryReason.ERROR}
    return queue.redeliveries[RedeliveryReason.ERROR]


# -- what becomes of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("maxsize", [1, 1000])
def test_a_task_that_raises_no_oftener_than_allowed_succeeds(tmp_path: Path, consumers: int, maxsize: int) -> None:
    report, last = run_of(fateful(tmp_path, raising(2), TASKS, consumers, maxsize), retries=2)
    account = Account(tmp_path)
    assert account.done == dict.fromkeys(range(TASKS), 1)
    assert account.failed == dict.fromkeys(ODD, 2)
    assert account.begun == account.done + account.failed
    assert (report.produced, report.processed, report.failed, report.unfinished) == (TASKS, TASKS, 0, 0)
    assert (report.failures.get("ValueError", 0), report.redelivered, report.exit_code) == (0, 0, ExitCode.DONE)
    assert (errors(last.queue), last.queue.delayed, last.queue.dead_letters) == (2 * len(ODD), 0, 0)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_that_raises_oftener_has_failed_once_and_is_a_dead_letter(tmp_path: Path, retries: int) -> None:
    report, last = run_of(fateful(tmp_path, raising(99), TASKS), retries=retries)
    account = Account(tmp_path)
    assert account.done == dict.fromkeys(set(range(TASKS)) - set(ODD), 1)
    assert account.failed == dict.fromkeys(ODD, retries + 1)
    assert (report.processed, report.failed, report.unfinished) == (TASKS, len(ODD), 0)
    assert (report.failures, report.exit_code) == ({"ValueError": len(ODD)}, ExitCode.TASKS_FAILED)
    assert (errors(last.queue), last.queue.dead_letters) == (retries * len(ODD), len(ODD))
    assert (last.queue.dead_lettered, report.dead_lettered) == (0, 0)  # none of them killed anybody


def test_each_task_has_its_own_tries(tmp_path: Path) -> None:
    """Those of its chunk, and of its lease, which raise at other times, take none from it."""
    fates = {task: (RAISE,) * (task % 5) for task in range(TASKS)}
    report, last = run_of(fateful(tmp_path, fates, TASKS), retries=3)
    account = Account(tmp_path)
    assert account.failed == {task: task % 5 for task in range(TASKS) if task % 5}
    assert set(account.done) == {task for task in range(TASKS) if task % 5 < 4}
    assert (report.processed, report.failed) == (TASKS, TASKS // 5)
    assert errors(last.queue) == TASKS // 5 * (1 + 2 + 3 + 3)


def test_tasks_that_all_raise_each_time_leave_room_for_the_others(tmp_path: Path) -> None:
    """A queue with room for two, and nothing in it but what is tried again."""
    fates = dict.fromkeys(range(60), (RAISE,) * 9)
    report, last = run_of(fateful(tmp_path, fates, 60, maxsize=2), retries=4)
    assert (report.produced, report.processed, report.failed, report.unfinished) == (60, 60, 60, 0)
    assert errors(last.queue) == 240


# -- what waits for them, and what does not -------------------------------------------------------------------


def test_a_delay_blocks_no_consumer_and_keeps_the_run_from_its_end(tmp_path: Path) -> None:
    options = ("--retries", "1", "--retry-delay", "200", "--drain-timeout", "0.1")
    with conveyor(tmp_path, "tasks=100", "every=100", *options) as run:
        wait_for("all others to be done", lambda: run.status().total("processed") == 99)
        wait_for("its producers to be over", lambda: all(run.worker(f"producer-{n}").finished for n in (1, 2)))
        status = run.status()
        queue = status.queue
        assert (queue.unfinished, queue.waiting, queue.in_progress, queue.delayed) == (1, 1, 0, 1)
        assert (status.phase, status.total("failed"), errors(queue)) == ("running", 0, 1)
        assert status.failures.get("ValueError", 0) == 0
        assert 'error=ValueError reason="task 0 fails"' in run.said()
        assert "tried again" in run.said()
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 4
        report = run.report
        assert (report["processed"], report["failed"], report["unfinished"], report["lost"]) == (99, 0, 1, 0)
        assert Account(tmp_path).done.total() == 99


def test_the_run_ends_when_the_last_try_is_over(tmp_path: Path) -> None:
    with conveyor(tmp_path, "hold=0", "times=3", "consumers=2", "--retries", "3", "--retry-delay", "0.01") as run:
        wait_for("the last try", (tmp_path / "held-by").exists)
        wait_for("all others to be done", lambda: run.status().total("processed") == 19)
        status = run.status()
        assert (status.queue.unfinished, status.queue.in_progress, status.queue.delayed) == (1, 1, 0)
        assert (status.phase, errors(status.queue)) == ("running", 3 * 4)
        (tmp_path / "release").touch()
        assert run.wait() == 0
        assert (run.report["processed"], run.report["failed"], run.report["unfinished"]) == (20, 0, 0)


def test_a_drain_waits_for_tries_that_come_in_time(tmp_path: Path) -> None:
    options = ("--retries", "1", "--retry-delay", "1.5", "--drain-timeout", "60")
    with conveyor(tmp_path, "tasks=10", "every=10", *options) as run:
        wait_for("a delay", lambda: run.status().queue.delayed == 1)
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        report = run.report
        assert (report["ending"], report["unfinished"], report["failed"]) == ("drained", 0, 0)
        assert report["processed"] == report["produced"] == Account(tmp_path).done.total()


def test_a_task_waits_longer_before_each_try(tmp_path: Path) -> None:
    report, _ = run_of(fateful(tmp_path, {0: (RAISE,) * 3}, 1), retries=3, retry_delay_seconds=0.2)
    least_seconds = (0.2 + 0.4 + 0.8) / 2  # half of each delay: the least that chance makes of it
    assert report.elapsed_seconds >= least_seconds
    assert report.processed == 1


# -- results -------------------------------------------------------------------------------------------------


def test_a_task_that_was_tried_again_has_one_result(tmp_path: Path) -> None:
    values, raised, report = results_of(fateful(tmp_path, raising(2), TASKS), retries=2)
    assert sorted(values) == list(range(TASKS))
    assert (raised, report.failed) == ([], 0)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_task_that_has_failed_raises_once_where_its_result_is_read(tmp_path: Path, retries: int) -> None:
    values, raised, report = results_of(fateful(tmp_path, raising(99), TASKS), retries=retries)
    assert sorted(values) == sorted(set(range(TASKS)) - set(ODD))
    assert sorted(map(str, raised)) == sorted(f"task {task} fails" for task in ODD)
    assert {type(error) for error in raised} == {ValueError}
    assert report.failed == len(ODD)
