"""The disk of a spool is full: producers wait, consumers go on, /readyz says why, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from conveyor.snapshot import WorkerState
from support.disks import fill, small_disk
from support.runs import WORKLOADS, Run, running
from support.scrapes import scrape
from support.waiting import wait_for

MEGABYTE = 1 << 20
# The filler leaves some 9 MB beside what a spool takes for itself, most of it what it holds back.
DISK, FILLER = 80 * MEGABYTE, 48 * MEGABYTE
TASKS = 20_000  # of a thousand bytes: more than that
FULL = "the spool cannot be written, so producers wait: database or disk is full"

pytestmark = pytest.mark.timeout(180)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[tuple[Run, Path]]:
    """Start a run on a small disk that it fills; yield it, and the file that takes the rest of the disk."""
    with small_disk(folder / "disk", DISK) as disk:
        filler = disk / "filler"
        fill(filler, FILLER)
        arguments = (f"{WORKLOADS}:bulky", f"folder={folder}", f"tasks={TASKS}", "--spool", str(disk / "spool"))
        with running(folder, *arguments, CONVEYOR_METRICS="127.0.0.1:0") as run:
            yield run, filler


def url_of(run: Run) -> str:
    found: list[str] = wait_for("the metrics", lambda: re.findall(r"url=(http://\S+)/metrics", run.said()))
    return found[0]


def answer(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=5.0) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_until_full(run: Run) -> str:
    """Return the address of a run whose disk is full, and whose producer waits."""
    url = url_of(run)
    wait_for("the disk to be full", lambda: answer(f"{url}/readyz")[0] == 503 and FULL in answer(f"{url}/readyz")[1])
    wait_for("the producer to wait", lambda: run.worker("bulk").state is WorkerState.BLOCKED)
    return url


def assert_each_once(run: Run) -> None:
    assert run.wait(100.0) == 0, run.said()
    assert sorted(map(int, run.lines())) == list(range(TASKS))
    report = run.report
    assert (report["produced"], report["processed"], report["unfinished"]) == (TASKS, TASKS, 0)
    assert (report["redelivered"], report["lost"]) == (0, 0)


def test_producers_wait_until_there_is_room_and_then_the_run_goes_on_by_itself(tmp_path: Path) -> None:
    with filling(tmp_path) as (run, filler):
        url = wait_until_full(run)
        assert 0 < run.status().total("produced") < TASKS
        assert scrape(f"{url}/metrics").value("conveyor_spool_writable") == 0
        filler.unlink()
        wait_for("all to be accepted", lambda: run.status().total("produced") == TASKS)
        assert answer(f"{url}/readyz") == (200, "ok\n")
        assert scrape(f"{url}/metrics").value("conveyor_spool_writable") == 1
        (tmp_path / "release").touch()
        assert_each_once(run)


def test_consumers_go_on_with_what_there_is_and_make_room_by_that(tmp_path: Path) -> None:
    with filling(tmp_path) as (run, filler):
        wait_until_full(run)
        accepted = run.status().total("produced")
        (tmp_path / "release").touch()
        wait_for("what was accepted to be done", lambda: run.process.poll() == 0 or done(run) >= accepted)
        assert_each_once(run)
        assert filler.exists()


def done(run: Run) -> int:
    return run.status().total("processed")


def test_a_kill_while_the_disk_is_full_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK) as disk:
        filler = disk / "filler"
        fill(filler, FILLER)
        arguments = (f"{WORKLOADS}:bulky", f"folder={tmp_path}", f"tasks={TASKS}", "--spool", str(disk / "spool"))
        with running(tmp_path, *arguments, CONVEYOR_METRICS="127.0.0.1:0") as run:
            wait_until_full(run)
            accepted = run.status().total("produced")
            run.process.kill()
            run.process.wait()
            assert not run.lines()
        filler.unlink()
        (tmp_path / "release").touch()
        with running(tmp_path, *arguments, CONVEYOR_METRICS="off") as run:
            assert_each_once(run)
        assert 0 < accepted < TASKS
