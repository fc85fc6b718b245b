"""The stack as `docker compose up` brings it up, in real containers with a real Prometheus.

`STACK_SERVICES` leaves services out, for machines that cannot have the image of one.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.boards import DASHBOARDS, queries
from support.stack import Stack, assert_hardened
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

SCRAPE_SECONDS = 5.0
# Panels that may be empty in a healthy stack, by their title, with the reason.
MAY_BE_EMPTY = {
    "Alerts": "an empty list is the good news; one killed diner alone raises nothing for six minutes",
}

# Run inside the container: stop a consumer, and kill it only if that caught it in a task; an idle one would take
# the read lock of a stdlib queue with it.
KILL_A_BUSY_CONSUMER = """
import json, os, signal, subprocess, time
until = time.monotonic() + 30
while time.monotonic() < until:
    for slot in json.loads(subprocess.check_output(["conveyor", "status", "--json"]))["slots"]:
        if slot["role"] != "consumer" or slot["activity"] != "busy":
            continue
        os.kill(slot["pid"], signal.SIGSTOP)
        again = json.loads(subprocess.check_output(["conveyor", "status", "--json"]))["slots"]
        if any(s["pid"] == slot["pid"] and s["activity"] == "busy" and s["in_progress"] for s in again):
            os.kill(slot["pid"], signal.SIGKILL)
            print(slot["name"])
            raise SystemExit
        os.kill(slot["pid"], signal.SIGCONT)
raise SystemExit("no busy consumer was caught")
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stack, healthy."""
    stack = Stack(os.environ.get("STACK_SERVICES", "").split())
    try:
        stack.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "120", *stack.services)
        yield stack
    finally:
        logs = stack.compose("logs", "--no-color", "--tail", "50", check=False).stdout
        print(logs)  # pytest shows it beside a failure
        stack.compose("down", "--volumes", "--timeout", "10")


@pytest.fixture(scope="module")
def wounded(stack: Stack) -> str:
    """The stack after a minute of waves, in which a busy consumer was SIGKILLed; its slot's name."""
    assert restarts(stack, ".+") == 0
    killed = stack.compose("exec", "-T", "conveyor", "python", "-c", KILL_A_BUSY_CONSUMER).stdout.strip()
    began = time.monotonic()
    wait_for("the restart in Prometheus", lambda: restarts(stack, killed) == 1)
    assert time.monotonic() - began < 2 * SCRAPE_SECONDS + 2.0  # two scrapes, and the query itself
    oldest = 'min(count_over_time(up{job="conveyor"}[5m]))'
    wait_for("a minute of scrapes", lambda: (stack.value(oldest) or 0) >= 13, 90.0)
    wait_for("a failed task", lambda: stack.value("sum(conveyor_tasks_failed_total) > 0"), 60.0)
    return killed


def restarts(stack: Stack, worker: str) -> float | None:
    return stack.value(f'sum(conveyor_worker_restarts_total{{worker=~"{worker}",reason="signal"}})')


def test_every_service_becomes_healthy(stack: Stack) -> None:
    for service in stack.services or ["conveyor", "prometheus", "grafana"]:
        assert stack.container(service)["State"]["Health"]["Status"] == "healthy"


def test_every_service_is_hardened(stack: Stack) -> None:
    for service in stack.services or ["conveyor", "prometheus", "grafana"]:
        assert_hardened(stack.container(service))


def test_the_first_process_leaves_no_zombie(stack: Stack) -> None:
    """An orphan of any process in the container becomes its child."""
    orphan = "(sleep 0.1; exit 3) & echo $!"
    pid = stack.compose("exec", "-T", "conveyor", "sh", "-c", orphan).stdout.strip()
    assert pid.isdecimal()
    look = f"test -e /proc/{pid}"
    wait_for("it to be gone", lambda: stack.compose("exec", "-T", "conveyor", "sh", "-c", look, check=False).returncode)


def test_prometheus_scrapes_every_target(stack: Stack) -> None:
    def healthy() -> bool:
        targets = stack.prometheus("targets", state="active")["activeTargets"]
        return len(targets) == 2 and all(t["health"] == "up" and not t["lastError"] for t in targets)

    wait_for("both targets up", healthy)


def test_every_rule_is_evaluated_and_the_watchdog_fires(stack: Stack) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in stack.prometheus("rules")["groups"] for rule in group["rules"]]

    wait_for("every rule ok", lambda: len(rules()) > 20 and all(rule["health"] == "ok" for rule in rules()))
    wait_for("the watchdog", lambda: any(r["name"] == "Watchdog" and r.get("state") == "firing" for r in rules()))


def test_the_three_metrics_of_the_queue_are_fresh(stack: Stack) -> None:
    for name in ("conveyor_queue_size", "conveyor_queue_unfinished_tasks", "conveyor_worker_up"):
        age = f"max(time() - timestamp({name}))"
        wait_for(f"a fresh {name}", functools.partial(is_below, stack, age, 15.0))


def is_below(stack: Stack, expression: str, limit: float) -> bool:
    value = stack.value(expression)
    return value is not None and value < limit


def test_types_and_help_reach_prometheus(stack: Stack) -> None:
    from conveyor.exporter.catalogue import CATALOGUE

    metadata = wait_for("metadata", lambda: stack.prometheus("metadata"))
    for metric in CATALOGUE:
        found = metadata.get(metric.name) or metadata.get(metric.name.removesuffix("_total"))
        assert found, metric.name
        assert found[0]["help"] == metric.help


def test_a_sigkill_in_the_container_shows_in_prometheus_within_two_scrapes(stack: Stack, wounded: str) -> None:
    assert restarts(stack, wounded) == 1
    assert wait_for("it is up again", lambda: stack.value(f'conveyor_worker_up{{worker="{wounded}"}}') == 1)
    assert stack.value(f'conveyor_worker_last_exit_code{{worker="{wounded}"}}') == -9
    given_again = 'sum(conveyor_tasks_redelivered_total{reason="death"})'
    wait_for("its task given to another", lambda: stack.value(given_again) == 1)
    assert stack.value("sum(conveyor_tasks_retried_total)") == 1
    unaccounted = "sum(instance_queue:conveyor_queue_unaccounted_tasks:sum)"
    wait_for("no task to be missing", lambda: stack.value(unaccounted) == 0)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_data(stack: Stack, wounded: str, dashboard: Path) -> None:
    for title, query in queries(dashboard):
        if title not in MAY_BE_EMPTY:
            wait_for(f"data in {title}: {query}", functools.partial(recent, stack, query))


def recent(stack: Stack, expression: str) -> list[Any]:
    """Return what a graph of the last two minutes would draw."""
    now = time.time()
    data = stack.prometheus("query_range", query=expression, start=f"{now - 120}", end=f"{now}", step="5")
    drawn: list[Any] = data["result"]
    return drawn


def test_compose_stop_drains_within_the_grace_period(stack: Stack) -> None:
    """On a fresh container, so that all that it says is of this drain."""
    stack.compose("up", "--detach", "--force-recreate", "--no-deps", "--wait", "conveyor")
    processed = re.compile(r"^conveyor_tasks_processed_total\S+ (\S+)", re.M)
    wait_for("work", lambda: sum(map(float, processed.findall(stack.metrics()))) > 3)
    began = time.monotonic()
    stack.compose("stop", "conveyor")
    assert time.monotonic() - began < 10.0
    state = stack.container("conveyor")["State"]
    assert state["ExitCode"] == 0
    assert not state["OOMKilled"]
    logged = re.findall(r"{.*}", stack.compose("logs", "--no-log-prefix", "conveyor").stdout)
    last = json.loads(logged[-1])
    assert (last["message"], last["ending"]) == ("run ended", "drained")
    assert last["produced"] == last["processed"]
