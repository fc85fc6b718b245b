"""A death that was over in 20 ms is to be seen all the same: its slot is `replaced` for a while."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from conveyor.ledger import NANOSECONDS, Ledger, Order, State
from conveyor.slot import Slot
from conveyor.snapshot import REPLACED_SECONDS, Death, RestartReason, Role, WorkerState

ROOT = Path(__file__).parents[2]
SIGKILLED = Death("consumer-1", -9, 1.7e9, 3.0, True, True, None, "")
RECYCLED = Death("consumer-1", 0, 1.7e9, 3.0, True, True, None, "", cause=RestartReason.RECYCLE)
TIMED_OUT = Death("consumer-1", -9, 1.7e9, 3.0, True, True, None, "", cause=RestartReason.HEARTBEAT)


class Filled:
    """A slot that was filled so many seconds ago, with its own ledger."""

    def __init__(self, *, seconds_ago: float, death: Death | None, role: Role = Role.CONSUMER) -> None:
        nothing: Any = None
        self.ledger = Ledger(1)
        self.now_ns = time.monotonic_ns()
        self.slot = Slot("consumer-1", role, nothing, nothing, self.ledger, 0, may_restart=True)
        self.slot.pid, self.slot.death = 4711, death
        self.slot._started = self.now_ns / NANOSECONDS - seconds_ago
        self.enter(State.RUNNING)

    def enter(self, state: State) -> None:
        self.ledger.rows[0].enter(state, self.now_ns)

    def seen(self) -> tuple[WorkerState | None, WorkerState | None]:
        """Return its state, and what its process does."""
        seen = self.slot.statistics(self.slot.tally(self.now_ns), self.now_ns, 1.7e9)
        return seen.state, seen.activity


@pytest.mark.parametrize("death", [SIGKILLED, TIMED_OUT])
def test_the_process_after_a_death_is_a_replacement_for_a_while(death: Death) -> None:
    assert Filled(seconds_ago=0.02, death=death).seen() == (WorkerState.REPLACED, WorkerState.IDLE)
    assert Filled(seconds_ago=REPLACED_SECONDS - 0.1, death=death).seen()[0] is WorkerState.REPLACED
    assert Filled(seconds_ago=REPLACED_SECONDS + 0.1, death=death).seen() == (WorkerState.IDLE, WorkerState.IDLE)


def test_the_first_process_of_a_slot_replaces_none() -> None:
    assert Filled(seconds_ago=0.02, death=None).seen() == (WorkerState.IDLE, WorkerState.IDLE)


def test_a_process_that_had_done_its_share_is_replaced_without_a_sign() -> None:
    """With --max-tasks-per-worker the lanes would show little else."""
    assert Filled(seconds_ago=0.02, death=RECYCLED).seen()[0] is WorkerState.IDLE


def test_a_replacement_that_does_not_run_yet_is_starting() -> None:
    """`/readyz` and whoever waits for a worker must see it, and it is as long in sight as it takes."""
    filled = Filled(seconds_ago=0.02, death=SIGKILLED)
    filled.enter(State.STARTING)
    assert filled.seen() == (WorkerState.STARTING, WorkerState.STARTING)


def test_a_replacement_that_leaves_is_stopping() -> None:
    filled = Filled(seconds_ago=0.02, death=SIGKILLED)
    filled.ledger.order = Order.STOP
    assert filled.seen() == (WorkerState.STOPPING, WorkerState.STOPPING)


def test_a_dead_worker_has_no_state_and_does_nothing() -> None:
    filled = Filled(seconds_ago=0.02, death=SIGKILLED)
    filled.slot.pid = None
    assert filled.seen() == (None, None)


def test_two_scrapes_of_the_stack_see_it() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert 2 * float(config["global"]["scrape_interval"].removesuffix("s")) <= REPLACED_SECONDS
