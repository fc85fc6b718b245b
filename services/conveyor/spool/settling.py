"""The start after an end: brings the store up to what its last run came to, in one transaction.

Whoever is killed in the middle of it has changed nothing, and does it again at the next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from conveyor.errors import ConfigurationError
from conveyor.ledger import Flaw, Rows, processed_in
from conveyor.logs import fields
from conveyor.queues.codec import Codec, alone
from conveyor.queues.effigy import likeness
from conveyor.queues.letters import Cause, DeadLetter
from conveyor.snapshot import RedeliveryReason, Role
from conveyor.spool.fingerprint import ProducerPrint, difference, names_differ
from conveyor.spool.leasebook import LeaseBook, TornError
from conveyor.spool.recovery import Outcome, Progress, apply, left, outcomes
from conveyor.spool.store import RunRow, SlotRow, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remains:
    """What the workers of a run have left in shared memory. The rows are a copy."""

    rows: Rows
    book: LeaseBook
    is_converted: bool = True
    """Whether the rows note leases as they are noted now; format 1 did otherwise."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What there is to go on from; nothing at a first start, or after a run that came to its end."""

    run: RunRow
    slots: Sequence[SlotRow] = field(default_factory=list)
    unfinished: int = 0
    """Tasks."""
    last_key: int = 0


def settle(
    store: Store,
    name: str,
    remains_of: Callable[[int], Remains | None],
    places: Mapping[str, int],
    spare: int,
    producers: Sequence[ProducerPrint] = (),
    stamp: int = 0,
) -> Restored:
    """Return what the pipeline of this name goes on from.

    Raises `ConfigurationError` for tasks of another pipeline, or of other producers. `stamp` is for the files in shared
    memory of this start.
    """
    run, slots, tasks = store.run(), store.slots(), store.tasks()
    slots, found = _look(remains_of(run.epoch), slots)
    keys = store.tasks_of([outcome.entry.key for outcome in found])
    found = [outcome for outcome in found if outcome.entry.key in keys]
    progress = store.progress()
    for outcome in found:
        apply(outcome, progress.setdefault(outcome.entry.key, Progress()))
    sizes = store.tasks_of(list(progress))
    unfinished = tasks - sum(progress[key].tasks_done for key in sizes)
    before, putting = store.producers(), _producers_of(slots, spare - len(producers))
    is_over = not unfinished and _have_ended(putting, before)
    if run.name != name and not is_over:
        raise ConfigurationError(
            f"the spool {store.path.parent} holds tasks of the pipeline {run.name!r}, not of {name!r}, or that one has "
            "more to put; run it to its end, or give another folder"
        )
    if not is_over and (said := _difference(putting, before, producers)) is not None:
        raise ConfigurationError(
            f"the spool {store.path.parent} holds a run that is not over, of other producers: {said}; run it to its "
            "end as it was started, or give another folder"
        )
    if is_over:
        run, slots = RunRow(epoch=run.epoch), []  # it came to its end: the next one is a new one
    put, processed = sum(slot.put for slot in slots), sum(processed_in(slot.words) for slot in slots)
    run = replace(
        run,
        name=name,
        epoch=run.epoch + 1,
        # After a power cut what is unfinished may be more than the ledger knows; else this changes nothing.
        added=unfinished - (put - processed - run.dead_lettered),
        redeliveries=_with_restarts(run.redeliveries, sum(outcome.is_in_hand for outcome in found)),
        stamp=stamp,
    )
    slots = _placed(slots, places, spare)
    with store.transaction() as db:
        for outcome in found:
            if outcome.closed.flaw is Flaw.FINAL:
                store.write_letter(_letter(store, outcome, progress[outcome.entry.key]))
        over = [key for key, size in sizes.items() if not left(size, progress[key].done)]
        db.executemany("DELETE FROM chunks WHERE key = ?", [(key,) for key in over])
        db.execute("DELETE FROM progress")
        store.write_progress({key: progress[key] for key in sizes if key not in over})
        db.execute("UPDATE chunks SET account = 0 WHERE account")  # of a process that is no more
        db.execute("DELETE FROM slots")
        store.write_slots(slots)
        store.write_run(run)
        store.write_producers(producers)
    return Restored(run, slots, unfinished, store.last_key())


def _producers_of(slots: Sequence[SlotRow], present: int) -> list[SlotRow]:
    """Return the slots of the producers that the last start had; a former one has its row behind all of these."""
    return [slot for slot in slots if slot.role == Role.PRODUCER and slot.row < present]


def _have_ended(slots: Sequence[SlotRow], before: Sequence[ProducerPrint]) -> bool:
    """Return whether no producer has more to put: all have finished, or none had begun."""
    if not any(slot.put or slot.is_finished for slot in slots):
        return True
    finished = {slot.name for slot in slots if slot.is_finished}
    return {slot.name for slot in slots} | {producer.name for producer in before} <= finished


def _difference(slots: Sequence[SlotRow], before: Sequence[ProducerPrint], now: Sequence[ProducerPrint]) -> str | None:
    """Return in words what is another with the producers than it was, or None."""
    if before:
        return difference(before, now, {slot.name: slot.is_finished for slot in slots if _has_past(slot)})
    names, present = [slot.name for slot in slots], [producer.name for producer in now]
    if now and set(names) != set(present):
        return names_differ(names, present)
    if now and names:
        log.warning("an earlier version wrote the spool: it cannot tell whether the arguments are the same")
    return None


def _has_past(slot: SlotRow) -> bool:
    return bool(slot.put or slot.is_finished or any(slot.words))


def _look(remains: Remains | None, slots: Sequence[SlotRow]) -> tuple[list[SlotRow], list[Outcome]]:
    """Return the slots with their totals at the end, and what the leases came to of which the store has not heard."""
    if remains is None:
        return list(slots), []
    settled, found = [], list[Outcome]()
    try:
        for slot in slots:
            row = remains.rows[slot.row]
            if not remains.is_converted:
                row.convert_notes()
            found += outcomes(remains.book.read(slot.row, slot.settled), row)
            # By its last sign of life, not by the time now: nobody was busy since, and the clock may have begun anew.
            row.settle(max(row.read(0).heartbeat_ns, row.read(0).task_began_ns))
            if row.read(0).in_progress:
                row.abandon()
            settled.append(slot._replace(words=row.totals()))
    except (IndexError, ValueError, TornError) as error:
        # Files that a power cut has torn; what they would have said is done again.
        log.warning("the ledger of the last run cannot be read", extra=fields(reason=repr(error)))
        return list(slots), []
    return settled, found


def _with_restarts(redeliveries: Mapping[str, int], number: int) -> dict[str, int]:
    reason = RedeliveryReason.RESTART.value
    return {**redeliveries, reason: redeliveries.get(reason, 0) + number}


def _placed(slots: Sequence[SlotRow], places: Mapping[str, int], spare: int) -> list[SlotRow]:
    """Return the slots that have a past, with the rows that they get in the new ledger."""
    placed = []
    for slot in slots:
        if _has_past(slot):
            place = places.get(slot.name)
            if place is None:
                place, spare = spare, spare + 1
            placed.append(slot._replace(row=place, settled=0))
    return placed


def _letter(store: Store, outcome: Outcome, progress: Progress) -> DeadLetter:
    """Return a letter on a task that failed for good just before everything died."""
    place = outcome.failed
    assert place is not None
    (chunk,) = store.load(outcome.entry.key - 1, 1, 0)
    codec, payload = Codec(chunk.codec), memoryview(chunk.payload)
    codec_alone, task = alone(codec, payload, chunk.tasks, place)
    return DeadLetter(
        cause=Cause.ERROR,
        task=likeness(codec, payload, chunk.tasks, place),
        error="unknown",
        reason="the run was killed before it could tell",
        trace="",
        attempts=progress.failures.get(place, 0) + progress.attempts.get(place, 0),
        worker="",
        put_at=chunk.put_at,
        given_up_at=time.time(),
        codec=codec_alone,
        payload=task,
    )
