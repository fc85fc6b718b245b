"""The dashboards and rules with a real Prometheus: what is written down for it can be evaluated, and finds data."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conveyor.exporter import serving
from conveyor.settings import Address
from conveyor.snapshot import RedeliveryReason, RestartReason, RunStatistics, Scaling
from support.boards import DASHBOARDS, OVERVIEW, queries, question, questions
from support.fakes import FakeLoop, make_run, make_slot, make_spool, with_queue
from support.prometheus import Prometheus, prometheus_of
from support.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus, of Debian's package prometheus"),
    pytest.mark.timeout(240),
]

DEADLINE_SECONDS = 90.0  # a group of rules is first evaluated within its interval, of up to 15 s


class Moving:
    """A run in which everything that is counted goes up all the time."""

    def __init__(self, *, has_spool: bool) -> None:
        self._has_spool = has_spool
        self._began = time.monotonic()

    def statistics(self) -> RunStatistics:
        n = int(10 * (time.monotonic() - self._began))
        pid = os.getpid()
        restarts = dict.fromkeys(RestartReason, n)
        run = make_run(
            make_slot("producer-1", pid=pid, produced=2 * n + 1, blocked_seconds=n / 20, restarts=restarts),
            make_slot("consumer-1", pid=pid, processed=n, failed=n // 2, restarts=restarts, last_exit_code=-9),
            scalings=dict.fromkeys(Scaling, n),
        )
        return with_queue(
            run,
            redeliveries=dict.fromkeys(RedeliveryReason, n),
            oldest_waiting_seconds=1.0,
            spool=make_spool(commits=n, commit_seconds=n / 1000) if self._has_spool else None,
        )


@dataclass(frozen=True)
class Watched:
    """Two runs that one server watches, by the instances that they are to it."""

    prometheus: Prometheus
    spooled: str
    in_memory: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run with a spool and one without, and a Prometheus that scrapes both."""
    anywhere = Address("127.0.0.1", 0)
    with (
        serving(anywhere)(Moving(has_spool=True), FakeLoop()) as spooled,
        serving(anywhere)(Moving(has_spool=False), FakeLoop()) as in_memory,
    ):
        instances = [url.removeprefix("http://").removesuffix("/metrics") for url in (spooled, in_memory)]
        with prometheus_of(instances, tmp_path_factory.mktemp("prometheus")) as server:
            yield Watched(server, *instances)


def empty_panels(server: Prometheus, instance: str) -> set[str]:
    """Return the titles of the panels that find nothing of this run to show; of alerts there is no telling."""
    asked = [query for dashboard in DASHBOARDS for query in queries(dashboard, instance=instance)]
    return {title for title, expression in asked if title != "Alerts" and not server.graph(expression)}


def wait_for_panels(server: Prometheus, instance: str, *, empty: set[str]) -> None:
    """Wait until all panels but these show something of this run; if they never do, say which."""

    def look() -> bool:
        assert empty_panels(server, instance) == empty
        return True

    wait_for("data in the panels", look, DEADLINE_SECONDS)


def test_every_panel_shows_a_run_with_a_spool(watched: Watched) -> None:
    wait_for_panels(watched.prometheus, watched.spooled, empty=set())


def test_every_panel_but_those_of_the_spool_shows_a_run_without_one(watched: Watched) -> None:
    wait_for_panels(watched.prometheus, watched.in_memory, empty={"Spool size", "Spool commit time", "Spool commits"})


def test_nothing_is_claimed_any_more_once_the_exporter_is_gone(tmp_path: Path) -> None:
    """What was known of it last must not stay: not for the window of a rate, nor as the last value of a range."""

    def claims(server: Prometheus, instance: str) -> set[str]:
        """Return the panels with a value."""
        asked = [q for q in questions(OVERVIEW, instance=instance) if q.kind in ("stat", "gauge", "bargauge", "table")]
        return {q.panel for q in asked if server.at(q.expression, time.time())}

    def verdict(server: Prometheus, instance: str) -> float:
        ((_, word),) = server.at(question(OVERVIEW, "Verdict", instance=instance), time.time())
        return word

    with contextlib.ExitStack() as exporter:
        run = Moving(has_spool=True)
        url = exporter.enter_context(serving(Address("127.0.0.1", 0))(run, FakeLoop()))
        instance = url.removeprefix("http://").removesuffix("/metrics")
        with prometheus_of([instance], tmp_path) as server:
            all_of_them = {q.panel for q in questions(OVERVIEW) if q.kind in ("stat", "gauge", "bargauge", "table")}
            wait_for("all values", lambda: all_of_them - {"Alerts"} <= claims(server, instance), DEADLINE_SECONDS)
            assert verdict(server, instance) != 3
            exporter.close()
            wait_for("the verdict", lambda: verdict(server, instance) == 3, DEADLINE_SECONDS)
            # At that moment, nothing is left but that it is gone, and the alerts, of which the server knows.
            assert claims(server, instance) <= {"Verdict", "Firing alerts", "Alerts"}


def test_every_rule_is_evaluated(watched: Watched) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in watched.prometheus.ask("rules")["groups"] for rule in group["rules"]]

    wait_for("every rule ok", lambda: {rule["health"] for rule in rules()} == {"ok"}, DEADLINE_SECONDS)
    recorded = {rule["name"] for rule in rules() if rule["type"] == "recording"}
    assert recorded
    for name in recorded:
        spooled = f'{name}{{instance="{watched.spooled}"}}'
        wait_for(f"what {name} records", functools.partial(watched.prometheus.graph, spooled), DEADLINE_SECONDS)
