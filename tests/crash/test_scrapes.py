"""A thousand scrapes of a kitchen whose workers are killed all the while."""

from __future__ import annotations

import random
import re
import signal
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import Request, urlopen

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from conveyor.snapshot import Role
from support.runs import Run, running
from support.scrapes import Scrape, assert_consistent, assert_nothing_fell, parse
from support.waiting import wait_for

SCRAPES = 1000
SEED = 7
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def fetch(url: str, headers: dict[str, str]) -> tuple[str, float]:
    """Return a page and the seconds it took to get it."""
    began = time.perf_counter()
    with urlopen(Request(url, headers=headers), timeout=10) as response:
        text: str = response.read().decode()
    return text, time.perf_counter() - began


def kill_again_and_again(run: Run, stop: threading.Event, kills: list[str]) -> None:
    """Kill a random diner in its task until told to stop.

    No cook: on a busy machine the thread of `multiprocessing` that feeds its queue may hold a lock while it cooks.
    """
    chance = random.Random(SEED)
    while not stop.wait(0.1):
        with suppress(AssertionError, OSError, StopIteration):  # it ended or was replaced meanwhile
            name = chance.choice([slot.name for slot in run.status().slots if slot.role is Role.CONSUMER])
            if run.kill_in_task(name):
                kills.append(name)


def test_a_thousand_scrapes_during_kills_hold_together_and_no_counter_falls(tmp_path: Path) -> None:
    arguments = ("rounds=0", "speed=50", "spill=0.05", "cooks=4", "diners=4", "--metrics", "127.0.0.1:0")
    with running(tmp_path, "kitchen", *arguments, "--queue", "joinable") as run:
        url = wait_for("the URL", lambda: re.findall(r"url=(\S+)", run.said()))[0]
        stop, kills, seconds = threading.Event(), list[str](), list[float]()
        killer = threading.Thread(target=kill_again_and_again, args=(run, stop, kills))
        killer.start()
        last: Scrape | None = None
        try:
            for number in range(SCRAPES):
                text, took = fetch(url, OPENMETRICS if number % 2 else {})
                seconds.append(took)
                if number % 2:
                    # strict: it raises for whatever the format does not allow
                    list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
                    continue
                seen = parse(text)
                assert_consistent(seen)
                if last is not None:
                    assert_nothing_fell(last, seen)
                last = seen
        finally:
            stop.set()
            killer.join()
        assert last is not None
        assert len(kills) >= 10, f"seed {SEED}"
        assert last.sum("conveyor_collect_errors_total") == 0
        assert statistics.median(seconds) < 0.020
        dead = sum(number for _, number in last.find("conveyor_worker_restarts_total", reason="signal").items())
        assert 0 <= len(kills) - dead <= 8  # all but those whose slots still wait for their next process
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 3  # it drained, and says what the kills have cost
        assert run.report["ending"] == "drained"
        assert run.report["lost"] >= sum(name.startswith("diner") for name in kills)
