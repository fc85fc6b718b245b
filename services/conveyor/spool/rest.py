"""A spool that no run uses: its dead letters, listed, forgotten or put back among the tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from conveyor.errors import ConfigurationError
from conveyor.queues.letters import DeadLetter
from conveyor.snapshot import RedeliveryReason
from conveyor.spool.directory import TASKS
from conveyor.spool.folder import Spool
from conveyor.spool.store import Changes, ChunkRow, Store


class RestingSpool:
    """Held as a run would hold it, so that none begins meanwhile. Raises `ConfigurationError`."""

    def __init__(self, folder: Path) -> None:
        if not os.path.lexists(folder / TASKS):
            raise ConfigurationError(f"there is no spool in {folder}; give the folder that a run was given")
        self._spool = Spool(folder, "normal")
        self.letters = RestingLetters(self._spool.store)

    def __enter__(self) -> RestingSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def revive(self, number: int) -> bool:
        """Make a task of a letter, for the next start; return whether that could be."""
        store, letter = self._spool.store, self.letters.find(number)
        if letter is None or not letter.payload:
            return False
        run, reason = store.run(), RedeliveryReason.REQUEST.value
        redeliveries = {**run.redeliveries, reason: run.redeliveries.get(reason, 0) + 1}
        store.write(
            Changes(
                chunks=[ChunkRow(store.last_key() + 1, letter.codec, 1, time.time(), 0, letter.payload)],
                forgotten=[number],
                run=replace(run, added=run.added + 1, redeliveries=redeliveries),
            )
        )
        return True


class RestingLetters:
    """Those in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self.numbers())

    def add(self, letter: DeadLetter) -> None:
        self._store.write(Changes(letters=[letter]))

    def list(self, after: int, most: int) -> Sequence[DeadLetter]:
        return self._store.letters(after, most)

    def find(self, number: int) -> DeadLetter | None:
        return self._store.letter(number)

    def numbers(self) -> Sequence[int]:
        return self._store.letter_numbers()

    def remove(self, numbers: Sequence[int]) -> int:
        gone = set(numbers) & set(self.numbers())
        self._store.write(Changes(forgotten=list(gone)))
        return len(gone)
