"""The folder of a spool: opens it for one run at a time, and hands out its parts.

Everything that is wrong with a folder is a `ConfigurationError` that names it, before a worker starts; nothing in it is
changed then.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conveyor.descriptors import Descriptor, keep_from_forks
from conveyor.errors import ConfigurationError
from conveyor.ledger import Ledger, Rows
from conveyor.logs import fields
from conveyor.spool.directory import LOCK, RESERVE, TASKS, Directory
from conveyor.spool.fingerprint import ProducerPrint
from conveyor.spool.leasebook import LeaseBook, TornError
from conveyor.spool.settling import Remains, Restored, settle
from conveyor.spool.store import CHECKPOINT_PAGES, Store, StoreError

log = logging.getLogger(__name__)

# Held back so that what is done can still be noted when the disk is full: the room to write all of the log back into
# the database, so that the log can begin anew, and some for what is noted meanwhile.
RESERVE_BYTES = 4096 * CHECKPOINT_PAGES + (1 << 20)


class Spool:
    """An open spool. One process holds it, until it ends."""

    def __init__(self, folder: Path, sync: str) -> None:
        """Open the folder, or make it. Raises `ConfigurationError`."""
        self.folder = folder
        self._held: list[int] = []
        self._locked: Descriptor | None = None
        self._store: Store | None = None
        self._directory: Directory | None = None
        with self._complaining():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = Directory(folder)
            is_new = self._directory.check_contents()  # before anything is opened for writing
            self._lock()
            self._tasks = self._opened(TASKS, os.O_CREAT)  # so that nobody else may read it; SQLite would let them
            self._store = Store(folder / TASKS, sync)
            if not is_new and not self._store.run().epoch and list(self._directory.shared()):
                log.warning("the spool has lost its first start: it begins anew", extra=fields(folder=str(folder)))

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @property
    def directory(self) -> Directory:
        assert self._directory is not None
        return self._directory

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """Turn what is wrong with the folder into one sentence, and let go of it."""
        try:
            yield
        except StoreError as error:
            self.close()
            raise ConfigurationError(
                f"the spool {self.folder} cannot be used: {TASKS}: {error}. Nothing in it was changed; mend it, or "
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
        descriptor = self._opened(LOCK, os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = re.match(rb"[0-9]+", os.read(descriptor, 20))
            holder = pid[0].decode() if pid else "unknown"
            raise ConfigurationError(
                f"the spool {self.folder} is in use by the run with pid {holder}; wait for its end, or give another "
                "folder"
            ) from None
        self._locked = keep_from_forks(Descriptor(descriptor))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def _opened(self, name: str, flags: int) -> int:
        descriptor = self.directory.open(name, os.O_RDWR | flags)
        self._held.append(descriptor)
        return descriptor

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._locked = None
        while self._held:
            os.close(self._held.pop())
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    # -- going on where an earlier run ended ---------------------------------------------------------------

    def begin(
        self, name: str, places: Mapping[str, int], spare: int, producers: Sequence[ProducerPrint] = ()
    ) -> Restored:
        """Settle what an earlier run left, and have a ledger that goes on from it. Raises `ConfigurationError`.

        `name` is the pipeline's: another one's tasks are not touched, nor are those of other `producers`. `places` has
        the rows of slots by their names; those that are no more get one from `spare` on.
        """
        with self._complaining():
            stamp = int.from_bytes(os.urandom(8)) | 1
            restored = settle(self.store, name, self._remains, places, spare, producers, stamp)
            self._remove_former(restored.run.epoch)
            rows = spare + len(restored.slots)
            memory = Descriptor(self._file("new-ledger", Ledger.size(rows)))
            self.book = LeaseBook(self._file("new-leases", LeaseBook.size(rows)), stamp=stamp)
            self.ledger = Ledger(rows, memory)
            self.ledger.stamp = stamp
            self._held.remove(memory.number)  # it is the ledger's now
            for slot in restored.slots:
                self.ledger.rows[slot.row].restore(slot.words, slot.put)
            # Only now under their names: who dies before has the totals in the store, and nothing was done since.
            for kind in ("leases", "ledger"):
                self.directory.rename(f"new-{kind}", f"{kind}-{restored.run.epoch}")
            self.reserve()
        return restored

    def _remove_former(self, epoch: int) -> None:
        """Remove what earlier starts had in shared memory. A file with a greater number is none of ours."""
        for name, number in list(self.directory.shared()):
            if number is None or number < epoch:
                self.directory.remove(name)

    def _file(self, name: str, size: int) -> int:
        descriptor = self._opened(name, os.O_CREAT | os.O_EXCL)
        os.posix_fallocate(descriptor, 0, size)  # else a store into it would be a SIGBUS once the disk is full
        return descriptor

    def _remains(self, epoch: int) -> Remains | None:
        """Return what the workers of that start have left in shared memory, or None if they had not begun.

        What cannot be read is as if they had not: what it would have said is done again.
        """
        stamp = self.store.run().stamp
        try:
            with self._reading(f"ledger-{epoch}") as ledger, self._reading(f"leases-{epoch}") as leases:
                words = mmap.mmap(ledger, 0, access=mmap.ACCESS_COPY)  # it is put in order, but not in the file
                rows = Rows(memoryview(words).cast("Q"))
                if rows.stamp != stamp:
                    raise TornError("the ledger is not of this start")
                return Remains(rows, LeaseBook(leases, stamp=stamp, is_copy=True), is_converted=bool(stamp))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, TornError) as error:  # an odd length, for one
            log.warning("the ledger of the last start cannot be read", extra=fields(reason=str(error)))
            return None

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[int]:
        descriptor = self.directory.open(name, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # -- the disk ------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Hold some of the disk back. Raises `OSError` if there is not that much."""
        descriptor = self.directory.open(RESERVE, os.O_RDWR | os.O_CREAT)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:
            self.use_reserve()
            raise
        finally:
            os.close(descriptor)

    def use_reserve(self) -> None:
        """Give back what was held back: the disk is full."""
        with contextlib.suppress(OSError):
            self.directory.remove(RESERVE)

    def is_gone(self) -> bool:
        """Return whether somebody has removed the database: what is written to it is gone when this process ends."""
        return not self.directory.is_same(TASKS, self._tasks)

    def size_bytes(self) -> int:
        """Return the size of all files of the spool. Safe from any thread."""
        with contextlib.suppress(OSError):
            return self.directory.size_bytes()
        return 0
