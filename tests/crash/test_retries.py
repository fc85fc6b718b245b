"""Deaths among tasks that raise: wherever a consumer dies, each task is done, or has failed, once, and counted once."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from conveyor import ExitCode, TaskDiedError
from conveyor.snapshot import RedeliveryReason, RunStatistics
from support.diary import Account
from support.doom import FAILING_POINTS
from support.retrying import RAISE, fateful, results_of, run_of, trapped
from support.runs import running
from support.storms import Storm, assert_holds_together
from support.waiting import wait_for

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1 2").split()]
KILL_SECONDS = float(os.environ.get("STORM_SECONDS", "6"))
STORM_TASKS = 20_000
TESTS = str(Path(__file__).parents[1])
TASKS, EVERY = 2000, 20
BAD = range(0, TASKS, EVERY)
"""Tasks that raise each time."""
RETRIES = 2
IN_HAND = ("raised, not noted", "noted, not counted")
"""Points at which nothing is known of the failure yet: so it is one more attempt that has ended in a death."""
# Without retries nothing is given back.
PLACES = [(point, tries) for point in FAILING_POINTS for tries in (0, RETRIES) if tries or "given back" not in point]


def redelivered(last: RunStatistics) -> dict[RedeliveryReason, int]:
    return {reason: number for reason, number in last.queue.redeliveries.items() if number}


# -- between raising and reporting ---------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["SIGKILL", "_exit"])
@pytest.mark.parametrize(("point", "retries"), PLACES)
def test_a_consumer_that_dies_with_a_failure_on_its_way_has_it_counted_once(
    tmp_path: Path, point: str, deed: str, retries: int
) -> None:
    report, last = run_of(trapped(tmp_path, point, deed, TASKS, EVERY), retries=retries)
    in_hand = int(point in IN_HAND)
    assert (tmp_path / "victim").exists()
    assert (report.produced, report.processed, report.failed, report.unfinished) == (TASKS, TASKS, len(BAD), 0)
    assert (report.redelivered, report.dead_lettered, report.lost) == (in_hand, 0, 0)
    assert last.queue.redeliveries[RedeliveryReason.ERROR] == retries * len(BAD)
    assert last.queue.dead_letters == len(BAD)
    account = Account(tmp_path)
    assert account.done == dict.fromkeys(set(range(TASKS)) - set(BAD), 1)
    assert account.begun == account.done + account.failed
    assert sorted(account.failed.values()) == [retries + 1] * (len(BAD) - in_hand) + [retries + 2] * in_hand
    # By class they are counted when they are told, which one of them was perhaps not.
    assert len(BAD) - report.failures["ValueError"] in (0, 1)
    assert (report.exit_code, report.trouble) == (ExitCode.TASKS_FAILED, None)
    (death,) = report.deaths
    assert (death.slot, death.in_task) == ((tmp_path / "victim").read_text(), bool(in_hand))


@pytest.mark.parametrize(("point", "retries"), PLACES)
def test_a_failure_whose_consumer_dies_on_the_way_is_raised_once_where_results_are_read(
    tmp_path: Path, point: str, retries: int
) -> None:
    values, raised, report = results_of(trapped(tmp_path, point, "SIGKILL", TASKS, EVERY), retries=retries)
    assert (tmp_path / "victim").exists()
    assert sorted(values) == sorted(set(range(TASKS)) - set(BAD))
    assert sorted(map(str, raised)) == sorted(f"task {task} fails" for task in BAD)
    assert (report.processed, report.failed, report.unfinished) == (TASKS, len(BAD), 0)


@pytest.mark.parametrize("point", FAILING_POINTS)
def test_a_consumer_that_is_stopped_with_a_failure_on_its_way_holds_up_that_task_alone(
    tmp_path: Path, point: str
) -> None:
    """And what it had in hand beside it goes to the others; when it goes on, all is as if nothing had been."""
    arguments = (f"folder={tmp_path}", f"point={point}", "deed=SIGSTOP", f"tasks={TASKS}", f"every={EVERY}")
    retries = ("--retries", str(RETRIES), "--retry-delay", "0.001")
    options = ("--queue", "leased", "--consumers", "3", "--metrics", "off")
    with running(tmp_path, "support.retrying:trapped", *arguments, *retries, *options, PYTHONPATH=TESTS) as run:
        victim = wait_for("somebody to be struck", (tmp_path / "victim").read_text)
        wait_for("all else to be over", lambda: run.status().total("processed") >= TASKS - 1)
        pid = run.worker(victim).pid
        assert pid is not None
        os.kill(pid, signal.SIGCONT)
        assert run.wait() == 1
        report = run.report
        assert (report["processed"], report["failed"], report["unfinished"]) == (TASKS, len(BAD), 0)
        assert (report["failures"], report["redelivered"], report["deaths"]) == ({"ValueError": len(BAD)}, 0, [])
        account = Account(tmp_path)
        assert account.done == dict.fromkeys(set(range(TASKS)) - set(BAD), 1)
        assert account.failed == dict.fromkeys(BAD, RETRIES + 1)


# -- deaths and failures of the same task --------------------------------------------------------------------


def test_failures_and_deaths_of_one_task_are_counted_apart(tmp_path: Path) -> None:
    """Two of each are allowed, and this one has two of each."""
    fates = {7: (RAISE, "SIGKILL", RAISE, "SIGKILL")}
    report, last = run_of(fateful(tmp_path, fates, 50), retries=2, max_attempts=3)
    account = Account(tmp_path)
    assert account.done == dict.fromkeys(range(50), 1)
    assert (account.begun[7], account.failed[7]) == (5, 2)
    assert (report.processed, report.failed, report.dead_lettered, report.exit_code) == (50, 0, 0, ExitCode.DONE)
    assert redelivered(last) == {RedeliveryReason.ERROR: 2, RedeliveryReason.DEATH: 2}
    assert [death.attempt for death in report.deaths] == [1, 2]


@pytest.mark.parametrize(
    ("fate", "failed", "dead_lettered"),
    [((RAISE, "SIGKILL", "SIGKILL"), 0, 1), (("SIGKILL", RAISE, RAISE), 1, 0)],
    ids=["by a death", "by an error"],
)
def test_a_task_is_given_up_at_the_first_of_the_two_limits(
    tmp_path: Path, fate: tuple[str, ...], failed: int, dead_lettered: int
) -> None:
    report, last = run_of(fateful(tmp_path, {7: (*fate, RAISE)}, 50), retries=1, max_attempts=2)
    account = Account(tmp_path)
    assert set(account.done) == set(range(50)) - {7}
    assert account.begun[7] == 3
    assert (report.failed, report.dead_lettered, report.unfinished) == (failed, dead_lettered, 0)
    assert (report.processed, last.queue.dead_letters) == (49 + failed, 1)
    assert redelivered(last) == {RedeliveryReason.ERROR: 1, RedeliveryReason.DEATH: 1}


def test_consumers_that_die_while_a_task_waits_for_its_next_try_cost_it_nothing(tmp_path: Path) -> None:
    options = ("--queue", "leased", "--metrics", "off", "--retries", "1", "--retry-delay", "3")
    arguments = (f"folder={tmp_path}", "tasks=10", "every=10")
    with running(tmp_path, "support.retrying:raising", *arguments, *options, PYTHONPATH=TESTS) as run:
        wait_for("a delay", lambda: run.status().queue.delayed == 1 and run.status().total("processed") == 9)
        run.kill("consumer-1")
        assert run.wait() == 0
        assert (run.report["processed"], run.report["failed"], run.report["redelivered"]) == (10, 0, 0)
        assert Account(tmp_path).begun == {0: 2} | dict.fromkeys(range(1, 10), 1)


# -- storms --------------------------------------------------------------------------------------------------


def fates_of(chance: random.Random) -> dict[int, Sequence[str]]:
    """Return how often tasks raise: some of them no oftener than they are allowed to, others for ever."""
    tasks = chance.sample(range(STORM_TASKS), STORM_TASKS // 10)
    return {task: (RAISE,) * chance.choice([1, 2, 1000]) for task in tasks}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120 + 2 * KILL_SECONDS)
def test_in_a_storm_of_kills_each_task_is_done_or_has_failed_once(tmp_path: Path, seed: int) -> None:
    fates = fates_of(random.Random(seed))
    hopeless = {task for task, fate in fates.items() if len(fate) > RETRIES}
    storm = Storm(seed, 0.02, KILL_SECONDS)
    pipeline = fateful(tmp_path, fates, STORM_TASKS, consumers=4, millis=2)
    report, last = run_of(pipeline, storm.beside, retries=RETRIES, max_attempts=100)

    account = Account(tmp_path)
    again = last.queue.redeliveries[RedeliveryReason.ERROR]
    print(
        f"seed {seed}: {storm.kills} kills, {report.redelivered} redelivered, {again} tried again, {report.failed} "
        f"failed, {account.failed.total()} times raised, in {report.elapsed_seconds} s"
    )
    assert storm.kills >= 5, "no storm"
    assert (report.produced, report.processed, report.unfinished) == (STORM_TASKS, STORM_TASKS, 0), f"seed {seed}"
    assert (report.dead_lettered, report.lost, report.trouble) == (0, 0, None), f"seed {seed}"
    assert set(account.done) | set(account.failed) == set(range(STORM_TASKS)), f"seed {seed}"
    assert not set(account.done) & hopeless, f"seed {seed}"
    # Who is killed before a failure is counted has the task raise once more: a task may seem to have failed too often,
    # never too seldom.
    assert report.failed == len(hopeless), f"seed {seed}"
    assert all(account.failed[task] > RETRIES for task in hopeless), f"seed {seed}"
    assert 0 <= account.failed.total() - again - report.failed <= report.redelivered, f"seed {seed}"
    assert 0 <= account.done.total() - (STORM_TASKS - len(hopeless)) <= report.redelivered, f"seed {seed}"
    assert report.redelivered <= storm.kills
    assert sum(worker.abandoned for worker in report.workers) == report.redelivered
    assert last.queue.dead_letters == min(1000, len(hopeless))
    for look in storm.looks:
        assert_holds_together(look)
    for earlier, later in itertools.pairwise([*storm.looks, last]):
        assert all(later.total(count) >= earlier.total(count) for count in ("produced", "processed", "failed"))
        assert all(
            later.queue.redeliveries[reason] >= earlier.queue.redeliveries[reason] for reason in RedeliveryReason
        )


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_in_a_storm_of_kills_each_task_has_one_result(tmp_path: Path, seed: int) -> None:
    fates = fates_of(random.Random(seed))
    hopeless = {task for task, fate in fates.items() if len(fate) > RETRIES}
    storm = Storm(seed, 0.02, KILL_SECONDS)
    pipeline = fateful(tmp_path, fates, STORM_TASKS, consumers=4, millis=2)
    values, raised, report = results_of(pipeline, storm.beside, retries=RETRIES, max_attempts=100)
    assert storm.kills >= 5, "no storm"
    assert not [error for error in raised if isinstance(error, TaskDiedError)]
    assert sorted(values) == sorted(set(range(STORM_TASKS)) - hopeless), f"seed {seed}"
    assert sorted(map(str, raised)) == sorted(f"task {task} fails" for task in hopeless), f"seed {seed}"
    assert (report.processed, report.failed) == (STORM_TASKS, len(hopeless))
