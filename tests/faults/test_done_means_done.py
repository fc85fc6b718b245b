"""What is counted as done has been done, and what is counted as failed has its reason."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

import conveyor
from conveyor import ConfigurationError, ExitCode, Pipeline, Producer, TaskFailedError
from conveyor.ledger import ERROR_CLASSES, Ledger
from support.reading import rest_of
from support.runs import Run, running
from support.undone import (
    REFUSED,
    Gathers,
    asynchronous_generator_function,
    coroutine_function,
    fail_until_killed,
    fail_with_many_classes,
    return_what_stops,
    returns_undone_work,
    run_to_its_end,
    stop_at_2,
)
from support.waiting import wait_for

TESTS = str(Path(__file__).parents[1])


def start(folder: Path, workload: str, *arguments: str, **environment: str) -> AbstractContextManager[Run]:
    options = ("--metrics", "off")
    return running(folder, f"support.faulty:{workload}", *arguments, *options, PYTHONPATH=TESTS, **environment)


# -- functions whose call does nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("what", REFUSED)
def test_a_consumer_whose_call_does_nothing_is_refused(what: str) -> None:
    function = REFUSED[what]
    with pytest.raises(ConfigurationError, match=r"calling it does nothing yet; give a function that"):
        Pipeline(producers=[Producer(range, 3)], consumer=function)
    with pytest.raises(ConfigurationError, match=r"calling it does nothing yet; give a function that"):
        conveyor.imap_unordered(function, [1])


@pytest.mark.parametrize("function", [coroutine_function, functools.partial(asynchronous_generator_function, 1)])
def test_an_asynchronous_producer_is_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError, match=r"give a generator function without async"):
        Producer(function)  # type: ignore[arg-type]


UNDONE = {
    "coroutine": "a coroutine, which does nothing until it is awaited",
    "awaitable": "an awaitable (Promise), for which nobody waits",
    "generator": "a generator, which does nothing until somebody goes through it",
    "asynchronous generator": "a generator, which does nothing until somebody goes through it",
    "future": "a Future, for whose result nobody waits",
}


def test_a_task_that_returns_work_still_to_be_done_has_failed() -> None:
    ways = [*UNDONE, "map", "text"]
    report = Pipeline(producers=[Producer(iter, ways)], consumer=returns_undone_work, consumers=1).run()
    assert (report.processed, report.failures) == (len(ways), {"TaskFailedError": len(ways) - 1})
    assert report.exit_code is ExitCode.TASKS_FAILED


def test_a_result_that_is_work_still_to_be_done_raises_with_a_sentence() -> None:
    found = rest_of(conveyor.imap_unordered(returns_undone_work, [*UNDONE, "text"], consumers=1))
    told = [str(error) for error in found if isinstance(error, TaskFailedError)]
    assert len(found) == len(UNDONE) + 1
    assert "text" in found
    for what in UNDONE.values():
        assert any(text.startswith(f"the function returned {what}") for text in told), what


def test_a_function_that_runs_its_coroutine_to_the_end_is_as_good_as_any() -> None:
    assert sorted(conveyor.imap_unordered(run_to_its_end, range(5), consumers=1)) == [0, 2, 4, 6, 8]


# -- the end of a worker -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "method"), [("atexit", "forkserver"), ("atexit", "spawn"), ("finalizer", "forkserver")])
def test_what_a_consumer_gathers_is_written_when_it_leaves(tmp_path: Path, by: str, method: str) -> None:
    file = tmp_path / "rows"
    pipeline = Pipeline(producers=[Producer(range, 25)], consumer=Gathers(file, by), consumers=2)
    report = pipeline.run(start_method=method)
    assert (report.processed, report.deaths) == (25, ())
    assert sorted(map(int, file.read_text().split())) == list(range(25))


def test_what_a_recycled_consumer_has_gathered_is_written(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    pipeline = Pipeline(producers=[Producer(range, 25)], consumer=Gathers(file), consumers=1)
    assert pipeline.run(max_tasks_per_worker=4).processed == 25
    assert sorted(map(int, file.read_text().split())) == list(range(25))


def test_what_consumers_have_gathered_is_written_by_a_drain_and_by_a_scale_down(tmp_path: Path) -> None:
    with start(tmp_path, "gathering", f"folder={tmp_path}", "--consumers", "2") as run:
        wait_for("tasks", lambda: all(slot.processed for slot in run.status().slots if slot.role == "consumer"))
        run.ask("scale consumers=1")
        wait_for("one to leave", lambda: run.worker("consumer-2").state is None)
        run.process.terminate()
        assert run.wait() == 0
        report = run.report
        assert len((tmp_path / "rows").read_text().split()) == report["processed"] == report["produced"]


def test_exit_functions_that_a_module_registers_run_in_each_worker(
    tmp_path: Path,
) -> None:
    file = tmp_path / "goodbyes"
    with start(tmp_path, "goodbyes", "--consumers", "2", CONVEYOR_TEST_EXIT_FILE=str(file)) as run:
        assert run.wait() == 0
    # The run itself, which has imported the module too, is not the matter here.
    workers = [name for name in file.read_text().split() if name != "MainProcess"]
    assert sorted(workers) == ["consumer-1", "consumer-2", "producer-1"]


def test_a_folder_that_a_module_shares_among_workers_outlives_each_of_them(tmp_path: Path) -> None:
    with start(
        tmp_path, "sharing_a_folder", "--consumers", "1", "--max-tasks-per-worker", "1", CONVEYOR_TEST_SHARED="yes"
    ) as run:
        assert run.wait() == 0, run.said()


def test_a_consumer_killed_in_its_exit_functions_is_a_death(tmp_path: Path) -> None:
    with start(tmp_path, "gathering_slowly", f"folder={tmp_path}", "--consumers", "1") as run:
        wait_for("the consumer to leave", lambda: run.worker("consumer-1").state == "stopping")
        run.kill("consumer-1")
        assert run.wait() == 0
        assert "worker died as it left" in run.said()
        assert [(death["slot"], death["in_task"]) for death in run.report["deaths"]] == [("consumer-1", False)]


# -- StopIteration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "told"),
    [(stop_at_2, "StopIteration: of its own"), (return_what_stops, "unpickling the result raised StopIteration")],
)
def test_stop_iteration_of_a_task_does_not_end_the_results(function: Callable[[int], object], told: str) -> None:
    found = rest_of(conveyor.imap_unordered(function, range(4), consumers=1))
    assert sorted(n for n in found if isinstance(n, int)) == [0, 1, 3]
    [error] = [error for error in found if not isinstance(error, int)]
    assert isinstance(error, TaskFailedError)
    assert str(error) == told


# -- failures by class ---------------------------------------------------------------------------------------


def test_failures_by_class_add_up_though_consumers_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVEYOR_TEST_FOLDER", str(tmp_path))
    report = Pipeline(producers=[Producer(range, 600)], consumer=fail_until_killed, consumers=2).run()
    assert len(report.deaths) == 12
    assert (report.failures, report.failed) == ({"FirstError": 200, "SecondError": 200}, 400)


def test_more_classes_than_a_slot_can_tell_apart_are_counted_together() -> None:
    report = Pipeline(producers=[Producer(range, 150)], consumer=fail_with_many_classes, consumers=1).run()
    named = {f"Error{n}": 10 for n in range(ERROR_CLASSES)}
    assert report.failures == named | {"(others)": 10 * (15 - ERROR_CLASSES)}


def test_failures_by_class_go_on_over_the_death_of_everybody(tmp_path: Path) -> None:
    spool = ("--spool", str(tmp_path / "spool"))
    with start(tmp_path, "failing", f"folder={tmp_path}", "--consumers", "2", *spool) as run:
        wait_for("half of it", lambda: run.status().total("processed") >= 150)
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        wait_for("everybody's end", lambda: not run.processes())
    (tmp_path / "gate").touch()
    with start(tmp_path, "failing", f"folder={tmp_path}", "--consumers", "2", *spool) as run:
        assert run.wait() == 1
        report = run.report
        assert report["processed"] == 300
        assert report["failures"] == {"FirstError": 100, "SecondError": 100}


@pytest.mark.parametrize("killed_after", range(8))
def test_a_class_is_counted_when_its_task_is_whatever_store_was_the_last(killed_after: int) -> None:
    """The process dies after so many stores of a failure; the next one in the slot goes on."""
    row = Ledger(1).rows[0]
    row.fail_task(1, 0, 5, "OneError")
    words, stores = row._words, Stores(row._words, killed_after)
    row._words = stores  # type: ignore[assignment]
    with suppress(KilledError):
        row.fail_task(2, 0, 5, "OtherError")
    row._words = words
    failed = row.read(0).failed
    assert row.errors() == {"OneError": 1} | ({"OtherError": 1} if failed == 2 else {})
    row.fail_task(3, 0, 5, "ThirdError")
    row.fail_task(4, 0, 5, "OneError")
    expected = {"OneError": 2, "ThirdError": 1} | ({"OtherError": 1} if failed == 2 else {})
    assert row.errors() == expected
    after = Ledger(1).rows[0]
    after.restore(row.totals(), 0)
    assert after.errors() == expected


class KilledError(Exception): ...


class Stores:
    """Words of memory, and a process that dies after so many stores."""

    def __init__(self, words: memoryview, left: int) -> None:
        self.words, self.left = words, left

    def __getitem__(self, index: int | slice) -> object:
        return self.words[index]

    def __setitem__(self, index: int | slice, value: object) -> None:
        if not self.left:
            raise KilledError
        self.left -= 1
        self.words[index] = value  # type: ignore[call-overload]
