"""Which failed tasks are logged: all of them, unless they are a flood. Pure, with the time as an argument.

A consumer whose every task fails would else bury all other lines, and the supervisor would do little but log.
What is not logged is still counted, and its number is told.
"""

from __future__ import annotations

from dataclasses import dataclass

# Arbitrary: more than a person reads as it goes by, less than would hide a worker's death between them.
LINES_A_SECOND = 10.0
BURST_LINES = 20.0


@dataclass(slots=True)
class FailureLog:
    """A bucket of lines, filled at a steady rate. Used by the supervisor's thread alone."""

    unsaid: int = 0
    """Failures that were not logged, since that was last told."""
    _lines: float = BURST_LINES
    _filled_at: float | None = None

    def admit(self, now: float) -> bool:
        """Return whether the failure that has just happened is logged."""
        since = now - self._filled_at if self._filled_at is not None else 0.0
        self._lines, self._filled_at = min(BURST_LINES, self._lines + since * LINES_A_SECOND), now
        if self._lines < 1.0:
            self.unsaid += 1
            return False
        self._lines -= 1.0
        return True

    def tell(self) -> int:
        """Return how many have gone unsaid, and begin anew."""
        number, self.unsaid = self.unsaid, 0
        return number
