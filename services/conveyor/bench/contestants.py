"""All contestants, by name, and whether they are there."""

from __future__ import annotations

import importlib

from conveyor.bench import ours, peers, stdlib
from conveyor.bench.jobs import Contestant

CONTESTANTS = {each.name: each for each in (*ours.CONTESTANTS, *stdlib.CONTESTANTS, *peers.CONTESTANTS)}
OURS = "conveyor"


def is_ours(name: str) -> bool:
    """Whether a contestant is a part of this package, so that its failure is ours."""
    return name.startswith(OURS)


def missing(name: str) -> str | None:
    """Return why a contestant cannot take part and what to do about it, or None."""
    contestant: Contestant | None = CONTESTANTS.get(name)
    if contestant is None:
        return "not in this version of Conveyor"
    if contestant.module is None:
        return None
    try:
        importlib.import_module(contestant.module)
    except ModuleNotFoundError:
        return f"not installed: {peers.EXTRA}"
    except Exception as error:  # whatever a library built for another system raises
        return f"cannot be imported: {type(error).__name__}: {error}"
    return None
