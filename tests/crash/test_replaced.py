"""A consumer that was killed and replaced at once is seen: on `/metrics`, by `conveyor status`, on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from conveyor.snapshot import RestartReason, WorkerState
from support.commands import command
from support.runs import Run, running
from support.scrapes import Scrape, scrape
from support.waiting import wait_for

KILLED, SPARED = "li-si", "zhang-san"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, str]]:
    """A kitchen without an end, and the URL of its metrics."""
    arguments = ("rounds=0", "speed=20", "--metrics", "127.0.0.1:0")
    with running(tmp_path_factory.mktemp("kitchen"), "kitchen", *arguments) as run:
        url = wait_for("the URL", lambda: re.findall(r"url=(\S+)", run.said()))[0]
        yield run, url


def killed_and_seen(run: Run, what: str, look: Callable[[], Any]) -> Any:
    """Kill the worker and look, until the sign is seen; a look may come too late on a machine that is busy."""

    def kill_and_look() -> Any:
        wait_for("the worker", lambda: run.worker(KILLED).state not in (None, WorkerState.STARTING))
        pid = run.kill(KILLED)
        wait_for("the next process", lambda: run.worker(KILLED).pid not in (None, pid))
        wait_for("its start", lambda: run.worker(KILLED).state is not WorkerState.STARTING)
        return look()

    return wait_for(what, kill_and_look, 60.0)


def states(seen: Scrape, worker: str) -> set[str]:
    found = seen.find("conveyor_worker_state", worker=worker)
    return {dict(labels)["state"] for labels, value in found.items() if value == 1}


def test_the_metrics_show_a_replacement_that_took_no_time(kitchen: tuple[Run, str]) -> None:
    run, url = kitchen

    def look() -> Scrape | None:
        seen = scrape(url)
        return seen if states(seen, KILLED) == {"replaced"} else None

    seen = killed_and_seen(run, "the state in a scrape", look)
    assert seen.value("conveyor_worker_up", worker=KILLED) == 1
    assert seen.value("conveyor_worker_restarts_total", worker=KILLED, reason="signal") >= 1
    assert "replaced" not in states(seen, SPARED)
    assert len(states(seen, SPARED)) == 1


def test_the_status_shows_it_as_text_and_as_json(kitchen: tuple[Run, str]) -> None:
    run, _ = kitchen

    def lines() -> dict[str, str] | None:
        told = {line.split()[0]: line for line in command(run.folder, "status").stdout.splitlines() if line.split()}
        return told if "replaced" in told[KILLED] else None

    told = killed_and_seen(run, "the state as text", lines)
    assert "replaced" not in told[SPARED]

    def slots() -> dict[str, Any] | None:
        answer = json.loads(command(run.folder, "status", "--json").stdout)
        found = {slot["name"]: slot for slot in answer["slots"]}
        return found if found[KILLED]["state"] == "replaced" else None

    found = killed_and_seen(run, "the state as JSON", slots)
    assert found[KILLED]["activity"] in ("idle", "busy")
    assert found[KILLED]["restarts"][RestartReason.SIGNAL] >= 1
    assert found[SPARED]["state"] in ("idle", "busy")


def test_the_page_shows_it(kitchen: tuple[Run, str]) -> None:
    run, url = kitchen

    def look() -> bool:
        request = Request(url.removesuffix("metrics"), headers={"Accept": "application/json"})
        with urlopen(request, timeout=10) as response:
            workers = {worker["name"]: worker for worker in json.load(response)["workers"]}
        return bool(workers[KILLED]["state"] == workers[KILLED]["tone"] == "replaced")

    assert killed_and_seen(run, "the state on the page", look)
