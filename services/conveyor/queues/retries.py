"""How often a task that raised is tried again, and when: pure, but for chance."""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_DELAY_SECONDS = 300.0
# Tasks that failed together, as when a database went away, must not all come back together. Half to one and a half
# times the delay, as is usual; arbitrary.
JITTER = 0.5


@dataclass(frozen=True, slots=True)
class Retries:
    """The rule of a run: `most` more attempts, the first after `delay_seconds`, each next after twice the time."""

    most: int = 0
    delay_seconds: float = 1.0

    def left(self, failures: int) -> int:
        """Return how often a task may still raise and be tried again, after so many failures."""
        return max(0, self.most - failures)

    def delay_ns(self, failures: int) -> int:
        """Return how long to wait after the nth failure, counted from 1."""
        delay = min(self.delay_seconds * 2.0 ** min(failures - 1, 64), MAX_DELAY_SECONDS)
        return int(delay * random.uniform(1 - JITTER, 1 + JITTER) * 1e9)
