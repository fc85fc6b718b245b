"""What a run that died left behind, worked out from the store, the ledger and the book of leases: pure.

A lease came to what its consumer's row says of it (`Row.outcome`). Each lease speaks for itself. Those that the store
has heard of are left out, by the number up to which it has heard of a slot's leases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from conveyor.ledger import Closed, Flaw, Row
from conveyor.spool.leasebook import Entry, TornError

Ranges = list[tuple[int, int]]


@dataclass(slots=True)
class Progress:
    """How far a chunk has come: which of its tasks are over, as (first, last), and what others have been through."""

    done: Ranges = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)

    def finish(self, first: int, last: int) -> None:
        """Take note that these tasks are over."""
        if first < last:
            self.done = merged([*self.done, (first, last)])

    @property
    def tasks_done(self) -> int:
        return sum(last - first for first, last in self.done)


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same places in order, each once, in as few ranges as possible."""
    result: Ranges = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one lease came to."""

    entry: Entry
    closed: Closed
    is_in_hand: bool
    """The task behind those that are over was in its consumer's hands at the end."""

    @property
    def failed(self) -> int | None:
        """The place of the task that raised, if one did."""
        return self.entry.first + self.closed.done if self.closed.flaw else None


def outcomes(entries: Iterable[Entry], row: Row) -> Iterator[Outcome]:
    """Yield what the leases of a slot came to, by its row. Raises `TornError` if it says what cannot be."""
    if row.is_torn():
        raise TornError("a row of the ledger is torn")
    tally = row.read(0)
    for entry in entries:
        closed = row.outcome(entry.number)
        if closed.done + bool(closed.flaw) > entry.last - entry.first:
            raise TornError("a lease came to more than it was")
        is_open = bool(tally.in_progress) and tally.lease == entry.number and not closed.flaw
        yield Outcome(entry, closed, is_open and entry.first + closed.done < entry.last)


def apply(outcome: Outcome, progress: Progress) -> None:
    """Take note of what a lease came to, in the progress of its chunk."""
    entry, closed = outcome.entry, outcome.closed
    progress.finish(entry.first, min(entry.first + closed.done, entry.last))
    if outcome.failed is not None:
        progress.failures[outcome.failed] = progress.failures.get(outcome.failed, 0) + 1
        if closed.flaw is Flaw.FINAL:
            progress.finish(outcome.failed, outcome.failed + 1)


def left(tasks: int, done: Sequence[tuple[int, int]]) -> int:
    """Return how many of a chunk's tasks are not over."""
    return tasks - sum(last - first for first, last in done)
