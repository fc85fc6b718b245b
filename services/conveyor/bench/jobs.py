"""What a contestant is asked to do, and what a contestant is. Both are data; trials get them as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """So many tasks of one payload, through one queue, by so many processes."""

    payload: str
    tasks: int
    producers: int = 1
    consumers: int = 1
    maxsize: int = 1000
    batch: int = 1
    """How many tasks those contestants send together that have their user choose it."""
    seconds: float = 0.0
    """How long a producer that waits does so."""
    replace_dead: bool = False
    """Whether a program without a pool starts a new consumer in a dead one's place, as a careful one does."""
    metrics: str = "off"

    def plain(self) -> dict[str, object]:
        """Return it as what JSON can hold."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A way to do a job: a library, and how it is used."""

    name: str
    how: str
    """In a few words, for people."""
    run: Callable[[Job], None]
    """Returns when the whole job is done; raises if it cannot be."""
    expected_rate: int
    """Small tasks a second, roughly: how many tasks make a measurement of the wanted length. Nothing else uses it."""
    module: str | None = None
    """What must be installed for it."""
