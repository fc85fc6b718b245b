"""Back-pressure: how many tasks each producer may offer. Pure.

A task counts against its producer's credit from its offer until it is leased to a consumer. A producer that
wants more says so once, and is answered once, as soon as there is something for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from conveyor.queues.wire import MAX_FREED

NO_BOUND = 1 << 40  # tasks; more than anybody puts
# Granted and not used: enough to go on with. With more a producer would keep to an old size of chunk for too long.
FIRST_TASKS = 16
MOST_CHUNKS = 4


@dataclass(slots=True)
class Account:
    """One producer's."""

    granted: int = 0
    """Tasks that it may offer and has not."""
    waiting: int = 0
    """Tasks that it has offered and that are not leased."""
    wants: bool = False
    is_open: bool = True
    freed: list[int] = field(default_factory=list)
    """Chunks that are done, of which it does not know yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a producer that wants is told."""

    producer: int
    tasks: int
    freed: tuple[int, ...]


class Credit:
    """All accounts. `capacity` is the number of tasks that may wait; 0 is no bound."""

    def __init__(self, capacity: int, legacy: int = 0) -> None:
        """Begin with `legacy` tasks that wait and are of no producer here."""
        self._capacity = capacity or NO_BOUND
        self._open = 0
        # What waits of producers that are no more, or were in an earlier run.
        self._legacy = Account(waiting=legacy, is_open=False)
        self._accounts: dict[int, Account] = {}
        self._wanting: dict[int, Account] = {}  # in the order in which they asked

    @property
    def share(self) -> int:
        """Return how many tasks one producer may have granted and waiting.

        Rounded down: if all others sleep on their shares, there is one left for the last.
        """
        return max(1, self._capacity // max(1, self._open))

    def open(self, producer: int) -> None:
        """Begin with a new producer."""
        self._accounts[producer] = Account()
        self._open += 1

    def close(self, producer: int) -> None:
        """End with a producer: what it has not used goes to the others."""
        self._wanting.pop(producer, None)
        account = self._accounts.get(producer)
        if account is not None and account.is_open:
            account.is_open, account.granted = False, 0
            self._open -= 1

    def forget(self, producer: int) -> None:
        """Close the books of a producer of which nothing is left in memory."""
        self._legacy.waiting += self._accounts.pop(producer).waiting

    def want(self, producer: int) -> None:
        """Take note that a producer waits for credit, or for room."""
        self._wanting[producer] = self._accounts[producer]

    def offered(self, producer: int, tasks: int) -> None:
        account = self._accounts[producer]
        account.granted -= tasks
        account.waiting += tasks

    def leased(self, producer: int, tasks: int) -> None:
        """Discharge tasks, or with a negative number charge them again: a consumer has handed them back."""
        account = self._accounts.get(producer, self._legacy)
        account.waiting -= tasks

    def freed(self, producer: int, chunk: int) -> None:
        """Take note that a chunk is done."""
        account = self._accounts[producer]
        account.freed.append(chunk)

    @property
    def is_wanted(self) -> bool:
        return bool(self._wanting)

    def answers(self, least: int) -> Iterator[Answer]:
        """Yield what those who want can be told now: a worthwhile number of tasks, or all that is possible."""
        pool = self._capacity - self._legacy.waiting
        pool -= sum(account.granted + account.waiting for account in self._accounts.values())
        share = self.share
        for producer, account in list(self._wanting.items()):
            most = max(FIRST_TASKS, MOST_CHUNKS * least) - account.granted
            tasks = max(0, min(pool, share - account.granted - account.waiting, most))
            if account.granted >= least:
                is_worthwhile = bool(account.freed)  # it has credit: it wants room
            elif account.waiting:
                is_worthwhile = tasks >= min(least, share)  # some now and some soon would have it send crumbs for ever
            else:
                is_worthwhile = bool(tasks or account.freed)
            if not is_worthwhile:
                continue
            pool -= tasks
            account.granted += tasks
            freed, account.freed = tuple(account.freed[:MAX_FREED]), account.freed[MAX_FREED:]
            del self._wanting[producer]
            yield Answer(producer, tasks, freed)
