"""The folder of a spool: opens it for one run at a time, and hands out its parts.

Everything that is wrong with a folder is a `ConfigurationError` that names it, before a worker starts; nothing in it is
changed then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from conveyor.descriptors import Descriptor
from conveyor.errors import ConfigurationError
from conveyor.ledger import Ledger, Rows
from conveyor.spool.leasebook import LeaseBook
from conveyor.spool.settling import Remains, Restored, settle
from conveyor.spool.store import CHECKPOINT_PAGES, Store, StoreError

# Held back so that what is done can still be noted when the disk is full: the room to write all of the log back into
# the database, so that the log can begin anew, and some for what is noted meanwhile.
RESERVE_BYTES = 4096 * CHECKPOINT_PAGES + (1 << 20)
TASKS = "tasks.db"


class Spool:
    """An open spool. One process holds it, until it ends."""

    def __init__(self, folder: Path, sync: str) -> None:
        """Open the folder, or make it. Raises `ConfigurationError`."""
        self.folder = folder
        self._held: list[int] = []
        self._store: Store | None = None
        with self._complaining():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock()
            self._opened(TASKS, os.O_CREAT)  # so that nobody else may read it; SQLite would let them
            self._store = Store(folder / TASKS, sync)

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """Turn what is wrong with the folder into one sentence, and let go of it."""
        try:
            yield
        except StoreError as error:
            self.close()
            raise ConfigurationError(
                f"the spool {self.folder} cannot be used: tasks.db: {error}. Nothing in it was changed; mend it, or "
                "give another folder"
            ) from error
        except OSError as error:
            self.close()
            raise ConfigurationError(
                f"the spool {self.folder} cannot be used: {error.strerror}; give a folder that can be written to"
            ) from error
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        descriptor = self._opened("lock", os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            raise ConfigurationError(
                f"the spool {self.folder} is in use by the run with pid {holder}; wait for its end, or give another "
                "folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def _opened(self, name: str, flags: int) -> int:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        self._held.append(descriptor)
        return descriptor

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        while self._held:
            os.close(self._held.pop())

    # -- going on where an earlier run ended ---------------------------------------------------------------

    def begin(self, name: str, places: Mapping[str, int], spare: int) -> Restored:
        """Settle what an earlier run left, and have a ledger that goes on from it. Raises `ConfigurationError`.

        `name` is the pipeline's: another one's tasks are not touched. `places` has the rows of slots by their names;
        those that are no more get one from `spare` on.
        """
        with self._complaining():
            restored = settle(self.store, name, self._remains, places, spare)
            for old in (*self.folder.glob("ledger-*"), *self.folder.glob("leases-*"), *self.folder.glob("new-*")):
                old.unlink()
            rows = spare + len(restored.slots)
            memory = Descriptor(self._file("new-ledger", Ledger.size(rows)))
            self.book = LeaseBook(self._file("new-leases", LeaseBook.size(rows)))
            self.ledger = Ledger(rows, memory)
            self._held.remove(memory.number)  # it is the ledger's now
            for slot in restored.slots:
                self.ledger.rows[slot.row].restore(slot.words, slot.put)
            # Only now under their names: who dies before has the totals in the store, and nothing was done since.
            for kind in ("leases", "ledger"):
                (self.folder / f"new-{kind}").rename(self.folder / f"{kind}-{restored.run.epoch}")
            self.reserve()
        return restored

    def _file(self, name: str, size: int) -> int:
        descriptor = self._opened(name, os.O_CREAT | os.O_EXCL)
        os.posix_fallocate(descriptor, 0, size)  # else a store into it would be a SIGBUS once the disk is full
        return descriptor

    def _remains(self, epoch: int) -> Remains | None:
        """Return what the workers of that start have left in shared memory, or None if they had not begun."""
        ledger, leases = self.folder / f"ledger-{epoch}", self.folder / f"leases-{epoch}"
        if not ledger.exists() or not leases.exists():
            return None
        with ledger.open("rb") as file:
            words = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # it is put in order, but not in the file
        with leases.open("rb") as file:
            return Remains(Rows(memoryview(words).cast("Q")), LeaseBook(file.fileno(), is_copy=True))

    # -- the disk ------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Hold some of the disk back. Raises `OSError` if there is not that much."""
        descriptor = os.open(self.folder / "reserve", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.use_reserve()
            raise
        finally:
            os.close(descriptor)

    def use_reserve(self) -> None:
        """Give back what was held back: the disk is full."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "reserve").unlink()

    def size_bytes(self) -> int:
        """Return the size of all files of the spool. Safe from any thread."""
        size = 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat().st_size
        return size
