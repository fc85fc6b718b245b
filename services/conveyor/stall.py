"""How the supervisor learns that a dead worker broke a stdlib queue: pure, with what it saw as arguments.

`multiprocessing`'s queues share locks and a pipe between their users. Who dies while it holds one stops all the
others without a sign. No lock can be asked who holds it, so we look at what follows: after a death, somebody
waits for something that should have come at once, and nothing at all moves.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# A healthy queue hands over a task in under a millisecond; this is long only for the sake of busy machines.
PATIENCE_SECONDS = 3.0

# The supervisor looks four times a second.
MAX_LOOK_GAP_SECONDS = 1.0


class Verdict(enum.Enum):
    """What the stillness means."""

    NOTHING = enum.auto()
    TASKS_LOST = enum.auto()
    """The tasks that seem to wait are nowhere: they died in a worker's buffers. All others can go on."""
    FROZEN = enum.auto()
    """A dead worker holds a lock, or left half a message: no task will ever be taken or put again."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the supervisor sees at one moment."""

    started: int
    movement: int
    """A number that changes whenever a task is put, started or done."""
    waiting: int
    """Tasks that seem to lie in the queue."""
    is_empty: bool
    has_room: bool
    surely_has_room: bool
    """The same if each task that was given up still takes its place, as one that a feeder thread never sent does."""
    idle_consumers: int
    reporting_consumers: int
    blocked_producers: int
    """Those inside a put."""
    leaving_producers: int
    """Those that have only to send what their feeder thread still holds."""


class StallDetector:
    """Watches the scenes of one run; says nothing before the first death."""

    def __init__(self) -> None:
        self._deaths = False
        self._movement = -1
        self._still_since = 0.0
        self._looked_at = 0.0
        self._started_at_loss = -1

    def on_death(self) -> None:
        self._deaths = True

    def forgive(self, now: float) -> None:
        """Start the patience anew: there is an innocent reason for the stillness."""
        self._still_since = now

    def look(self, now: float, scene: Scene) -> Verdict:
        """Return what must be made of this scene, given those before it. Times in seconds."""
        starved = scene.idle_consumers > 0 and scene.waiting > 0
        locked_out = (
            scene.reporting_consumers > 0
            or (scene.blocked_producers > 0 and scene.has_room and scene.idle_consumers > 0)
            or (scene.blocked_producers > 0 and scene.surely_has_room)
            or (scene.leaving_producers > 0 and scene.idle_consumers > 0)
        )
        was_away = now - self._looked_at > MAX_LOOK_GAP_SECONDS  # we were stopped ourselves, perhaps with all others
        self._looked_at = now
        if was_away or scene.movement != self._movement or not (starved or locked_out):
            self._movement = scene.movement
            self._still_since = now
        if not self._deaths or now - self._still_since < PATIENCE_SECONDS:
            return Verdict.NOTHING
        if locked_out or not scene.is_empty or scene.started == self._started_at_loss:
            return Verdict.FROZEN  # the last: no task has been taken since some were given up
        self._started_at_loss = scene.started
        return Verdict.TASKS_LOST
