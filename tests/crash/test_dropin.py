"""The drop-in queues lose processes, by every start method: nothing accepted is lost, and nobody else is stopped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import dropin

START_METHODS = ["fork", "spawn", "forkserver"]
DEATHS = [
    "killed_in_an_item",
    "killed_while_waiting",
    "killed_with_children",
    "stuck_with_items",
    "leaves_without_done",
    "interrupted",
    "killed_after_a_put",
    "killed_in_a_put",
    "killed_broker",
    "forgotten",
]
SEEDS = os.environ.get("STORM_SEEDS", "1 2").split()


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("death", DEATHS)
def test_a_death_costs_nothing_and_stops_nobody(death: str, start_method: str, tmp_path: Path) -> None:
    dropin.run(death, start_method, tmp_path)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("maxsize", ["0", "5"])
def test_who_uses_a_queue_whose_maker_dies_gets_an_error(maxsize: str, start_method: str, tmp_path: Path) -> None:
    dropin.run("killed_maker", start_method, tmp_path, maxsize)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_kills_loses_no_accepted_item(seed: str, start_method: str, tmp_path: Path) -> None:
    print(dropin.run("storm", start_method, tmp_path, seed))
