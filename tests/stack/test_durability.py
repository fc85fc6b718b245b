"""The queue outlives its container: killed, stopped in the middle of work, or out of memory, on a real volume."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.stack import ROOT, Stack
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

SEED = int(os.environ.get("STORM_SEED", "1"))
SPOOL = "/var/lib/conveyor"
KILLS = int(os.environ.get("STACK_KILLS", "10"))
OVERRIDE = """
services:
  conveyor:
    restart: "no"
    command: [run, kitchen, %s]
"""


@contextmanager
def kitchen(cooks: int, diners: int, dishes: int, speed: int) -> Iterator[Stack]:
    """Start the kitchen alone, for so many dishes of each cook, none of which is spilled."""
    command = f"rounds=1, cooks={cooks}, diners={diners}, dishes={dishes}, speed={speed}"
    stack = Stack(["conveyor"], OVERRIDE % command)
    try:
        stack.compose("up", "--detach", "--build", "conveyor")
        yield stack
    finally:
        print(stack.compose("logs", "--no-color", "--tail", "30", check=False).stdout)  # shown beside a failure
        stack.compose("down", "--volumes", "--timeout", "10")


def figures(stack: Stack) -> tuple[int, int] | None:
    """Return what was produced and processed, or None while nobody answers."""
    status = stack.compose("exec", "-T", "conveyor", "conveyor", "status", "--json", check=False)
    if status.returncode:
        return None
    slots = json.loads(status.stdout)["slots"]
    return sum(slot["produced"] for slot in slots), sum(slot["processed"] for slot in slots)


def produced(stack: Stack) -> int:
    return (figures(stack) or (0, 0))[0]


def eaten(stack: Stack) -> Counter[str]:
    """Return how often each dish was eaten, in all lives of the container."""
    lines = stack.compose("logs", "--no-log-prefix", "conveyor").stdout
    return Counter(f"{cook} {number}" for number, cook in re.findall(r" ate \w+ #(\d+) made by (\S+)", lines))


def wait_for_the_end(stack: Stack) -> dict[str, Any]:
    """Return what the run says of itself, once its container has ended by itself."""
    wait_for("the end", lambda: ended(stack), 120.0)
    assert stack.container("conveyor")["State"]["ExitCode"] == 0
    return last_line(stack)


def last_line(stack: Stack) -> dict[str, Any]:
    logged = re.findall(r"{.*}", stack.compose("logs", "--no-log-prefix", "conveyor").stdout)
    last: dict[str, Any] = json.loads(logged[-1])
    assert last["message"] == "run ended"
    return last


def ended(stack: Stack) -> bool:
    return not stack.container("conveyor")["State"]["Running"]


def test_a_container_that_is_killed_again_and_again_goes_on_where_it_was() -> None:
    chance, dishes, kills = random.Random(SEED), 3600, 0
    with kitchen(cooks=2, diners=4, dishes=dishes, speed=200) as stack:
        for _ in range(KILLS):
            before = wait_for("it to cook", lambda: produced(stack))
            more = before + chance.randint(1, 40)
            wait_for("some more", lambda: ended(stack) or produced(stack) >= more)  # noqa: B023 - called here alone
            if ended(stack):
                break
            stack.compose("kill", "--signal", "SIGKILL", "conveyor")
            wait_for("its death", lambda: ended(stack))
            if stack.container("conveyor")["State"]["ExitCode"] == 0:
                break  # it had come to its end just before; started again, it would begin anew
            kills += 1
            stack.compose("up", "--detach", "--no-recreate", "conveyor")
        last = wait_for_the_end(stack)
        seen = eaten(stack)
    print(f"seed {SEED}: {kills} kills, {sum(seen.values()) - len(seen)} eaten twice")
    assert kills >= KILLS // 2
    assert set(seen) == {f"chef-{cook} {number}" for cook in (1, 2) for number in range(1, dishes + 1)}
    assert sum(seen.values()) - len(seen) <= 4 * kills
    assert (last["produced"], last["processed"]) == (2 * dishes, 2 * dishes)


def test_compose_stop_during_a_full_queue_leaves_the_rest_to_the_next_start() -> None:
    with kitchen(cooks=8, diners=2, dishes=60, speed=20) as stack:
        wait_for("a full queue", lambda: "conveyor_queue_size" in stack.metrics() and full(stack.metrics()))
        stack.compose("stop", "conveyor")
        state = stack.container("conveyor")["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
        stack.compose("up", "--detach", "--no-recreate", "conveyor")
        last = wait_for_the_end(stack)
        assert (last["produced"], last["processed"]) == (480, 480)
        seen = eaten(stack)
    assert len(seen) == 480
    assert set(seen.values()) == {1}


def full(metrics: str) -> bool:
    found = re.search(r"^conveyor_queue_size\S+ (\S+)", metrics, re.M)
    return found is not None and float(found[1]) >= 90


POISON = """
services:
  conveyor:
    restart: "no"
    mem_limit: 256m
    memswap_limit: 256m
    volumes: ["%s:/poison.py:ro"]
    command: [run, "/poison.py:poisoned", "poison=%s", --task-timeout, "%s", --max-attempts, "2"]
"""
TIMEOUT_SECONDS = 2.0


def test_four_villains_among_ten_thousand_good_tasks_are_given_up_and_explained() -> None:
    """One kills its worker, one hangs, one raises, and one eats memory until the kernel's killer comes."""
    took = {}
    for poison in ("no", "yes"):
        stack = Stack(["conveyor"], POISON % (ROOT / "tests/support/poison.py", poison, TIMEOUT_SECONDS))
        try:
            stack.compose("up", "--detach", "--build", "conveyor")
            wait_for("the end", lambda: ended(stack), 120.0)  # noqa: B023 - called here alone
            last = last_line(stack)
            letters = stack.compose("run", "--rm", "-T", "conveyor", "dead", "list", "--json", "--spool", SPOOL).stdout
        finally:
            stack.compose("down", "--volumes", "--timeout", "10")
        took[poison] = last["seconds"]
        assert last["exit_code"] == (1 if poison == "yes" else 0)
    assert (last["produced"], last["processed"], last["dead_lettered"], last["failed"]) == (10_004, 10_001, 3, 1)
    found = {letter["task"]: (letter["cause"], letter["error"], letter["attempts"]) for letter in json.loads(letters)}
    assert found == {
        "'kills'": ("death", "SIGKILL", 2),
        "'hangs'": ("timeout", "SIGTERM", 2),
        "'raises'": ("error", "ValueError", 1),
        "'eats memory'": ("death", "SIGKILL", 2),
    }
    print(f"{took['no']} s without the villains, {took['yes']} s with them")
    assert took["yes"] <= 1.2 * took["no"] + 2 * (TIMEOUT_SECONDS + 1.0)  # a second to eat all memory, or to be killed
