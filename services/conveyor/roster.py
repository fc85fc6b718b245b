"""All worker slots of a run, read together: the one place that turns the ledger's rows into counts.

The supervisor's thread changes the slots; any thread may read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from conveyor.ledger import Tally
from conveyor.queues.seam import Counts
from conveyor.slot import Slot
from conveyor.snapshot import Role, SlotStatistics

# A reading can fall between a put and its count, if the producer is interrupted just there; wait for it.
READ_ATTEMPTS, READ_PAUSE_SECONDS = 20, 0.001


@dataclass(frozen=True, slots=True)
class Reading:
    """Every slot at one moment, with no task started that is not yet put."""

    slots: tuple[SlotStatistics, ...]
    tallies: tuple[Tally, ...]

    @property
    def counts(self) -> Counts:
        """The sums over all slots."""
        return Counts(
            put=sum(slot.produced for slot in self.slots),
            started=sum(tally.started for tally in self.tallies),
            processed=sum(tally.processed for tally in self.tallies),
            in_progress=sum(tally.in_progress for tally in self.tallies),
            abandoned=sum(tally.abandoned for tally in self.tallies),
        )


class Roster:
    """The slots, in the order in which people see them."""

    def __init__(self, slots: Iterable[Slot], *, counts_puts: bool = False) -> None:
        """Keep these slots; `counts_puts` says that their queue counts a task as put before anybody can start it."""
        self._counts_puts = counts_puts
        self.slots = tuple(slots)
        """All of them. Whoever reads in another thread reads this once: it is replaced when slots are added."""

    @property
    def producers(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.role is Role.PRODUCER)

    @property
    def consumers(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.role is Role.CONSUMER)

    def add(self, slots: Iterable[Slot]) -> None:
        """Have these slots too."""
        self.slots = (*self.slots, *slots)

    def read(self) -> Reading:
        """Return all slots as they stand now."""
        for _ in range(READ_ATTEMPTS):
            known = self.slots
            pids = [slot.pid for slot in known]
            unix_time, now_ns = time.time(), time.monotonic_ns()
            tallies = _tallies(known, now_ns)
            slots = tuple(slot.statistics(tallies[slot], now_ns, unix_time) for slot in known)
            if [slot.pid for slot in slots] != pids:
                continue  # one came or went meanwhile: what it had in hand does not go with who is there
            if self._owed(tallies) <= 0:
                break
            time.sleep(READ_PAUSE_SECONDS)
        return Reading(slots=self._with_proven(known, slots, tallies), tallies=tuple(tallies[slot] for slot in known))

    def _with_proven(
        self, known: Iterable[Slot], slots: tuple[SlotStatistics, ...], tallies: Mapping[Slot, Tally]
    ) -> tuple[SlotStatistics, ...]:
        """Count as put what was started, though its producer, interrupted for long, has only announced it."""
        owed = self._owed(tallies)
        if owed <= 0:
            return slots
        shown = []
        for slot, seen in zip(known, slots, strict=True):
            announced = slot.doubts + int(tallies[slot].offered > tallies[slot].put)
            proven = min(owed, announced) if slot.role is Role.PRODUCER else 0
            owed -= proven
            shown.append(replace(seen, produced=seen.produced + proven) if proven else seen)
        return tuple(shown)

    @property
    def doubts(self) -> int:
        """Puts of which nobody knows yet whether they happened before their producer died."""
        return sum(slot.doubts for slot in self.producers)

    def settle_doubts(self) -> None:
        """Count what producers put just before they died, as far as the consumers have shown that they did."""
        owed = self._owed(_tallies(self.slots, time.monotonic_ns())) if self.doubts else 0
        for slot in self.producers:
            proven = max(0, min(owed, slot.doubts))
            slot.doubts -= proven
            slot.proven += proven
            owed -= proven

    def _owed(self, tallies: Mapping[Slot, Tally]) -> int:
        """Return the tasks that were started and are not yet counted as put."""
        if self._counts_puts:
            return 0
        return sum(tally.started - tally.put - slot.proven for slot, tally in tallies.items())


def _tallies(slots: Iterable[Slot], now_ns: int) -> dict[Slot, Tally]:
    # Consumers first: whatever they have started by then, its producer has put by the time it is read.
    return {slot: slot.tally(now_ns) for slot in sorted(slots, key=lambda slot: slot.role is Role.PRODUCER)}
