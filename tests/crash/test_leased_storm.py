"""Kills at random moments, again and again: the `leased` queue does every task, counts each once, and shows it."""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest

from conveyor import ExitCode, Pipeline, Producer
from conveyor.settings import read
from conveyor.snapshot import Role, WorkerState
from support.diary import Account
from support.doom import Brisk, numbered, untrapped
from support.runs import Run, running
from support.scrapes import Scrape, assert_nothing_fell, assert_nothing_is_lost, parse, scrape
from support.storms import Storm, assert_holds_together
from support.waiting import wait_for

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1 2").split()]
KILL_SECONDS = float(os.environ.get("STORM_SECONDS", "6"))
"""So long the storm lasts, if there is work for so long. For a full one: 30, and a million tasks."""
TASKS = int(os.environ.get("STORM_TASKS", "200000"))
PRODUCERS = 4
SCRAPES = 150
TESTS = str(Path(__file__).parents[1])


def left_open() -> Counter[str]:
    """Return what this process has open, by what it is, without numbers that differ from run to run."""
    gc.collect()
    return Counter(re.sub(r"\d+", "N", found) for found in _targets())


def _targets() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder's own descriptor
            yield str(entry.readlink())


def storm_of_numbers(folder: Path, tasks: int = TASKS, consumers: int = 4) -> Pipeline:
    share = tasks // PRODUCERS
    producers = [
        Producer(numbered, share * number, share, untrapped(folder), -1, folder, False) for number in range(PRODUCERS)
    ]
    return Pipeline(producers=producers, consumer=Brisk(folder), consumers=consumers, queue="leased")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120 + 2 * KILL_SECONDS)
def test_a_storm_of_kills_loses_no_task_and_repeats_only_those_in_hand(tmp_path: Path, seed: int) -> None:
    settings = read({"metrics": "off", "max_attempts": "100"}, {})
    (tmp_path / "first").mkdir()
    storm_of_numbers(tmp_path / "first", 40).run_with(settings, [])  # the fork server comes with it, and stays
    temporary = set(Path("/tmp").iterdir())
    before, threads = left_open(), threading.active_count()
    storm = Storm(seed, 0.02, KILL_SECONDS)
    report = storm_of_numbers(tmp_path).run_with(settings, [storm.beside])

    account = Account(tmp_path)
    twice = account.twice()
    deaths = sum(worker.restarts for worker in report.workers)
    print(
        f"seed {seed}: {storm.kills} kills, {deaths} restarts, {report.redelivered} redelivered, {len(twice)} begun "
        f"twice, {sum(account.done.values()) - TASKS} done twice, in {report.elapsed_seconds} s"
    )
    assert set(account.done) == set(range(TASKS)), f"seed {seed}"
    assert (report.produced, report.processed, report.unfinished) == (TASKS, TASKS, 0)
    assert (report.failed, report.dead_lettered, report.lost) == (0, 0, 0)
    assert (report.exit_code, report.trouble) == (ExitCode.DONE, None)
    assert storm.kills >= 5, "no storm"  # on an idle machine it is a hundred
    again = sum(account.begun.values()) - TASKS
    assert again <= report.redelivered <= storm.kills  # at most one a kill, and only what was in hand
    assert sum(account.done.values()) - TASKS <= again
    assert sum(worker.abandoned for worker in report.workers) == report.redelivered
    assert all(worker.restarts == 0 for worker in report.workers if worker.role == "producer")
    assert len(report.deaths) <= storm.kills
    for look in storm.looks:
        assert_holds_together(look)
    for earlier, later in itertools.pairwise(storm.looks):
        assert all(later.total(count) >= earlier.total(count) for count in ("produced", "processed", "abandoned"))

    wait_for("as many threads as before", lambda: threading.active_count() <= threads)
    assert left_open() - before == Counter()
    left = psutil.Process().children(recursive=True)
    assert [p for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []
    assert {path for path in set(Path("/tmp").iterdir()) - temporary if "conveyor" in path.name} == set()


# -- seen from outside --------------------------------------------------------------------------------------


def under_fire(folder: Path, *arguments: str) -> AbstractContextManager[Run]:
    options = ("--queue", "leased", "--consumers", "4", "--metrics", "127.0.0.1:0", "--max-attempts", "1000")
    return running(folder, "support.doom:endless", f"folder={folder}", *arguments, *options, PYTHONPATH=TESTS)


def kill_again_and_again(run: Run, chance: random.Random, stop: threading.Event, kills: list[int]) -> None:
    """Kill a random consumer now and then, until told to stop."""
    while not stop.wait(0.05):
        with suppress(AssertionError, OSError, IndexError):  # nobody is there, just now
            slots = [slot for slot in run.status().slots if slot.role is Role.CONSUMER]
            slots = [slot for slot in slots if slot.state not in (None, WorkerState.STARTING)]
            os.kill(chance.choice(slots).pid or 0, signal.SIGKILL)
            kills.append(1)


@pytest.mark.parametrize("millis", [0, 3], ids=["by the stride", "one by one"])
@pytest.mark.parametrize("seed", SEEDS[:1])
def test_scrapes_during_kills_hold_together_and_no_counter_falls(tmp_path: Path, seed: int, millis: int) -> None:
    with under_fire(tmp_path, f"millis={millis}") as run:
        url = wait_for("the URL", lambda: re.findall(r"url=(\S+)", run.said()))[0]
        stop, kills = threading.Event(), list[int]()
        killer = threading.Thread(target=kill_again_and_again, args=(run, random.Random(seed), stop, kills))
        killer.start()
        last: Scrape = parse("")
        try:
            for _ in range(SCRAPES):
                seen = scrape(url)
                assert_nothing_is_lost(seen)
                assert_nothing_fell(last, seen)
                last = seen
                time.sleep(0.01)
        finally:
            stop.set()
            killer.join()
        assert len(kills) >= 5, f"seed {seed}"
        assert last.sum("conveyor_collect_errors_total") == 0
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        report = run.report
        assert report["ending"] == "drained"
        assert report["processed"] == report["produced"]
        assert report["lost"] == report["unfinished"] == report["dead_lettered"] == 0
        assert 0 <= report["redelivered"] <= len(kills)
