"""Spools by hand: their rows, a loop that waits for nobody, and letters."""

from __future__ import annotations

from collections.abc import Callable

from conveyor.ledger import Flaw, Row
from conveyor.queues.codec import Codec
from conveyor.queues.letters import Cause, DeadLetter
from conveyor.snapshot import Role
from conveyor.spool.store import ChunkRow, SlotRow


def chunk_row(key: int, tasks: int = 10, payload: bytes = b"payload", account: int = 0) -> ChunkRow:
    return ChunkRow(key, Codec.APART, tasks, 1.7e9, account, payload)


def slot_row(name: str, row: int, put: int = 0, finished: bool = False, settled: int = 0) -> SlotRow:
    """Return a slot as it is when it is new, but for this; its name tells its role."""
    role = Role.PRODUCER if name.startswith("producer") else Role.CONSUMER
    return SlotRow(name, role.value, row, put, finished, settled, b"")


def letter(task: str = "'task'", payload: bytes = b"payload", number: int = 0) -> DeadLetter:
    return DeadLetter(
        cause=Cause.ERROR,
        task=task,
        error="ValueError",
        reason="no",
        trace="Traceback",
        attempts=2,
        worker="consumer-1",
        put_at=1.7e9,
        given_up_at=1.7e9 + 1,
        codec=Codec.APART,
        payload=payload,
        number=number,
    )


def work(row: Row, number: int, tasks: int, done: int, flaw: Flaw = Flaw.NONE, *, closes: bool = True) -> None:
    """Do so many tasks of a lease as a consumer does, then one that raises if there is a flaw; then close it or die."""
    assert row.open_lease(number, tasks, 1)
    row.begin_tasks(tasks, 1, 0)
    row.done[0] += done
    match flaw:
        case Flaw.AGAIN:
            row.give_back_task(number, done)
        case Flaw.FINAL:
            row.fail_task(number, done, 1)
    if closes:
        row.close_lease(2)


class HandLoop:
    """A loop whose timers go off when the test says."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append((seconds, action))

    def pass_time(self) -> None:
        """Have every timer go off that is set now."""
        timers, self.timers = self.timers, []
        for _, action in sorted(timers, key=lambda timer: timer[0]):
            action()

    def after_all(self, action: Callable[[], None]) -> None:
        action()

    def watch(self, descriptor: int, action: Callable[[], None]) -> None: ...

    def unwatch(self, descriptor: int) -> None: ...
