"""A SIGKILL of everything between any two steps of a run, in one process: nothing is lost, and only what was in hand
is done twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.walking import PRODUCERS, TASKS, World

SEEDS = [int(seed) for seed in os.environ.get("WALK_SEEDS", "1 2 3 4 5 6").split()]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_between_any_two_steps_loses_nothing_and_repeats_only_what_was_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(tmp_path, seed, monkeypatch)
    world.walk()
    repeated = sum(world.interrupted.values())
    print(f"seed {seed}: {world.kills} kills, {repeated} tasks in hand at a death, {len(world.dead)} given up")
    everything = set(range(PRODUCERS * TASKS))
    assert world.over | world.dead == everything
    assert set(world.executed) == everything
    assert world.kept() == (world.failed, world.dead)
