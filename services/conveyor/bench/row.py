"""What a row of the benchmark is: a job, those who do it, the figures that are shown, and the goals for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conveyor.bench.jobs import Job


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a measurement, and how people read it."""

    key: str
    label: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a figure of ours, or for its ratio to another's."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None
    of: str = "conveyor"
    """Whose figure it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of work, and who does it."""

    name: str
    title: str
    measure: str
    """Which of `measures` it is measured by."""
    job: Job
    """`tasks=0` stands for as many as take about `Scale.seconds`."""
    quick: Mapping[str, object]
    """What is different in a quick run."""
    figures: tuple[Figure, ...]
    """What is shown; the first is compared."""
    goals: tuple[Goal, ...]
    contestants: tuple[str, ...] = ("conveyor", "JoinableQueue")
    peers: tuple[str, ...] = ()
    compared: bool = True
    """Whether a ratio of the first figure says something."""
    once: bool = False
    """Many events in one measurement: it is made once, in every run."""
    note: str = ""
