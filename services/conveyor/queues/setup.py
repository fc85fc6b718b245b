"""What a queue is made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING

from conveyor.ledger import Row
from conveyor.queues.retries import Retries
from conveyor.queues.seam import ResultSink, Watcher

if TYPE_CHECKING:
    from conveyor.spool.folder import Spool
    from conveyor.spool.settling import Restored


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a queue may need; none needs all of it."""

    capacity: int
    """Tasks that may wait; 0 is no bound."""
    context: BaseContext
    rows: Sequence[Row]
    """The ledger's, one a slot."""
    loop: Watcher
    producers: int
    max_attempts: int
    retries: Retries
    name: Callable[[int], str]
    """A slot's, by its row."""
    results: ResultSink | None = None
    spool: Spool | None = None
    restored: Restored | None = None
    """What an earlier run left in the spool, if there is one."""
