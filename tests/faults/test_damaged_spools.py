"""Spools that are damaged by chance: refused with one sentence, or gone on with to the end; nothing else is touched."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from conveyor import ConfigurationError
from support.damage import HalfStart, damage, foreign, half_done
from support.walking import PRODUCERS

SEED = int(os.environ.get("DAMAGE_SEED", "1"))
NUMBER = int(os.environ.get("DAMAGED_SPOOLS", "12"))
"""For a long one: 100."""
TASKS = 40


@pytest.mark.parametrize("number", range(NUMBER))
def test_a_damaged_spool_is_refused_or_gone_on_with_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seed = SEED * 10_000 + number
    chance = random.Random(seed)
    world, _ = half_done(tmp_path, seed, monkeypatch)
    (tmp_path / "elsewhere").write_bytes(b"a file of somebody")
    how = damage(world.folder, chance)
    before = foreign(tmp_path)
    try:
        start = HalfStart(world)
    except ConfigurationError as error:
        said = str(error)
        assert said.startswith(f"the spool {world.folder} ")
        assert "\n" not in said
    else:
        start.finish()
        said = "went on"
        assert world.over | world.dead == set(range(PRODUCERS * TASKS))
    print(f"seed {seed}: {how}: {said}")
    assert foreign(tmp_path) == before
