"""What the workers of the metrics tests do. Importable by worker processes, so all of it is at top level."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from support.workloads import wait_at


def count_forever() -> Iterator[int]:
    """Yield numbers without end; the queue's bound holds it back."""
    return itertools.count()


class Gated:
    """Holds each task until the gate is open, and fails every third one then."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def __call__(self, task: int) -> None:
        wait_at(self.gate)
        if task % 3 == 0:
            raise ValueError("every third task fails")
