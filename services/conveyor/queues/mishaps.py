"""What goes wrong with tasks: how often they were tried again, and a dead letter on each that was given up.

Called in the supervisor's loop, and in no other thread; the counts are read by any.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from conveyor.queues import wire
from conveyor.queues.codec import Codec, alone
from conveyor.queues.effigy import likeness
from conveyor.queues.leases import Failed, Span, StoredChunk, Suspect
from conveyor.queues.letters import Cause, Counted, DeadLetter, DeadLetters
from conveyor.queues.memories import Memories
from conveyor.queues.seam import Casualty, End, ResultSink
from conveyor.snapshot import RedeliveryReason

if TYPE_CHECKING:
    from conveyor.spool.store import RunRow

UNTOLD = wire.Failed("unknown", "its consumer died before it could tell", "")


class Mishaps:
    """Counts them, and has whoever wants to know told of tasks that were given up."""

    def __init__(
        self, memories: Memories, letters: DeadLetters, results: ResultSink | None, before: RunRow | None
    ) -> None:
        """Go on from what was counted before. With `results` no letters are kept: whoever reads these is told there."""
        self._memories = memories
        self._letters = letters
        self._results = results
        # Written here, read by any thread.
        self.redeliveries = dict.fromkeys(RedeliveryReason, 0)
        self.dead_lettered = 0
        """Tasks that killed their consumers too often."""
        self.added = 0
        """Tasks beyond those that producers have put: dead letters that are tried again."""
        if before is not None:
            self.redeliveries |= {RedeliveryReason(name): n for name, n in before.redeliveries.items()}
            self.dead_lettered, self.added = before.dead_lettered, before.added

    def counted(self) -> Counted:
        """Return what a spool keeps of it."""
        return Counted(self.added, self.dead_lettered, dict(self.redeliveries))

    def raised(self, failed: Failed, told: wire.Failed | None, worker: str) -> None:
        """Take note that a task has raised, and how, if its consumer has told; give it up if it is tried no more."""
        if not failed.is_final:
            self.redeliveries[RedeliveryReason.ERROR] += 1
        elif self._results is None:  # else whoever reads the results has it
            told = told or UNTOLD
            letter = self._letter(failed.span, Cause.ERROR, worker)
            self._letters.add(replace(letter, error=told.error, reason=told.reason, trace=told.trace))

    def died(self, suspect: Suspect, end: End) -> Casualty:
        """Return the task that a dead consumer had in hand; keep it as a dead letter if it is given up."""
        letter = self._letter(suspect.span, Cause.TIMEOUT if end.is_timeout else Cause.DEATH, end.slot)
        casualty = Casualty(task=letter.task, attempt=suspect.attempt, is_dead_letter=suspect.is_dead_letter)
        if not suspect.is_dead_letter:
            self.redeliveries[RedeliveryReason.TIMEOUT if end.is_timeout else RedeliveryReason.DEATH] += 1
            return casualty
        self.dead_lettered += 1
        if self._results is not None:
            self._results.add_dead_letter(casualty)
        else:
            self._letters.add(replace(letter, error=end.how))
        return casualty

    def revived(self, tasks: int) -> None:
        """Count so many dead letters more that are tried again; or fewer, if they are not after all."""
        self.added += tasks
        self.redeliveries[RedeliveryReason.REQUEST] += tasks

    def _letter(self, span: Span, cause: Cause, worker: str) -> DeadLetter:
        """Return a letter on one task, of which nobody has yet said what it died of."""
        chunk, place = span.chunk, span.first
        attempts = (chunk.attempts or {}).get(place, 0) + (chunk.failures or {}).get(place, 0)
        payload = self._memories.payload(chunk)
        codec, alone = _alone(chunk, payload, place)
        task = likeness(chunk.codec, payload, chunk.count, place)
        put_at = time.time() - (time.monotonic_ns() - chunk.offered_ns) / 1e9
        return DeadLetter(cause, task, "", "", "", attempts, worker, put_at, time.time(), codec, alone)


def _alone(chunk: StoredChunk, payload: memoryview, place: int) -> tuple[Codec, bytes]:
    try:
        return alone(chunk.codec, payload, chunk.count, place)
    except Exception:  # a worker's pickle can say anything; a letter that cannot be tried again is better than none
        return Codec.APART, b""
