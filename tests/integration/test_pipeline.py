"""The Python API, in the process of the test: what `run()` does and what it leaves behind."""

from __future__ import annotations

import signal
import threading
import warnings
from pathlib import Path

import psutil
import pytest

from conveyor import ExitCode, Pipeline, Producer, Report
from support.waiting import wait_for
from support.workloads import Worker, count_up, print_colour


def numbers(folder: Path, tasks: int = 50, **options: object) -> Pipeline:
    """A pipeline of two producers that print their numbers."""
    producers = [Producer(count_up, 1000 * share, tasks, -1, folder) for share in range(2)]
    return Pipeline(producers=producers, consumer=Worker(folder, -1, -1, ""), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("queue", ["sentinel", "joinable", "leased"])
@pytest.mark.parametrize("consumers", [1, 2, 7])
@pytest.mark.parametrize("maxsize", [0, 1, 1000])
def test_every_task_is_done_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], queue: str, consumers: int, maxsize: int
) -> None:
    report = numbers(tmp_path, consumers=consumers, queue=queue, maxsize=maxsize).run()
    assert (report.exit_code, report.produced, report.processed, report.unfinished) == (ExitCode.DONE, 100, 100, 0)
    assert sorted(map(int, capfd.readouterr().out.split())) == [*range(50), *range(1000, 1050)]


def test_an_empty_producer_is_a_run_without_tasks(tmp_path: Path) -> None:
    report = numbers(tmp_path, tasks=0, consumers=1).run()
    assert (report.exit_code, report.produced) == (ExitCode.DONE, 0)


def test_the_report_tells_who_did_what(tmp_path: Path) -> None:
    report = numbers(tmp_path, consumers=3).run()
    by_name = {worker.name: worker for worker in report.workers}
    assert list(by_name) == ["producer-1", "producer-2", "consumer-1", "consumer-2", "consumer-3"]
    assert by_name["producer-2"].produced == 50
    assert sum(worker.processed for worker in report.workers) == 100
    assert {worker.last_exit_code for worker in report.workers} == {0}


def test_spawn_works_as_well(tmp_path: Path) -> None:
    assert numbers(tmp_path, consumers=1).run(start_method="spawn").processed == 100


def test_a_run_outside_the_main_thread_works(tmp_path: Path) -> None:
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(numbers(tmp_path, consumers=1).run()))
    thread.start()
    thread.join(30)
    assert reports[0].processed == 100


def test_signal_handlers_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    numbers(tmp_path, consumers=1).run()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_descriptor_worker_or_thread_is_left(tmp_path: Path) -> None:
    numbers(tmp_path, consumers=2).run()  # the tracker of shared memory comes with the first run, and stays
    me = psutil.Process()
    before = me.num_fds(), threading.active_count()
    for queue in ("sentinel", "joinable", "leased"):
        numbers(tmp_path, consumers=2, queue=queue).run(metrics="127.0.0.1:0")
    wait_for("as few descriptors and threads as before", lambda: (me.num_fds(), threading.active_count()) <= before)
    left = me.children(recursive=True)
    assert [p for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []


def test_a_worker_sees_the_environment_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers(tmp_path, consumers=1).run()  # the fork server is older than the variable
    monkeypatch.setenv("CONVEYOR_TEST_COLOUR", "green")
    Pipeline(producers=[Producer(range, 1)], consumer=print_colour, consumers=1).run()
    assert capfd.readouterr().out.endswith("green\n")


def test_a_run_raises_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        numbers(tmp_path, consumers=1).run()
    assert seen == []
