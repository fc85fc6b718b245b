"""The directory of a spool on the disk: what may be opened in it, and what is not ours.

Tasks are pickles, which run code when they are read, so nobody else may write here. And a user may name a folder by
mistake, so only files of the exact names of a spool are ever opened, and only where there is a spool, or nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from conveyor.errors import ConfigurationError
from conveyor.spool.store import APPLICATION_ID

TASKS = "tasks.db"
LOCK = "lock"
RESERVE = "reserve"
_DATABASE = (TASKS, f"{TASKS}-wal", f"{TASKS}-shm", f"{TASKS}-journal")
_SHARED = re.compile(r"(?:ledger|leases)-(0|[1-9][0-9]*)|new-(?:ledger|leases)")
_EVERYWHERE = {"lost+found"}  # what a file system makes for itself at the top of a volume
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES, _WAL_HEADER, _FRAME_HEADER = 112, 32, 24
_APPLICATION = slice(68, 72)  # of a database's first page
_NO_TABLES = b"\x0d\0\0\0\0"  # how the schema's page begins, behind the header of 100 bytes, while there is no table


class Directory:
    """An open folder. Raises `OSError` where the system says no, and `ConfigurationError` where we do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check_owner()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def _check_owner(self) -> None:
        status, user = os.fstat(self._descriptor), os.geteuid()
        if status.st_uid != user:
            raise self.refusal(
                f"it belongs to another user (uid {status.st_uid}), and its tasks would run as you (uid {user}); "
                "give a folder of your own"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self.refusal(
                f"others may write into it (mode {stat.S_IMODE(status.st_mode):04o}), and its tasks run as you; "
                "forbid them with chmod go-w, or give another folder"
            )

    def refusal(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"the spool {self.folder} cannot be used: {why}")

    # -- what is in it -------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        return set(os.listdir(self._descriptor))  # noqa: PTH208 - of a descriptor

    def check_contents(self) -> bool:
        """Refuse a folder that holds something else, and no spool; return whether it holds none yet.

        Nothing is opened for writing for that.
        """
        names = self.names() - _EVERYWHERE
        for name in sorted(filter(_is_ours, names)):
            os.close(self.open(name, os.O_RDONLY))  # refuses what is no file of ours
        if TASKS in names and not self._is_blank():
            self._check_database()
            return False
        others = names - {LOCK, *_DATABASE}
        if not others and self._holds_pid():
            return True
        if foreign := sorted(name for name in names if not _is_ours(name)):
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise self.refusal(
                f"it holds other files ({', '.join(map(repr, foreign[:3]))}{more}) and no spool; give an empty folder, "
                "or one that a run was given"
            )
        raise self.refusal(
            f"its {TASKS} is {'empty' if TASKS in names else 'missing'}, but it holds "
            f"{', '.join(map(repr, sorted(others or {LOCK})))}; put it back, or give an empty folder"
        )

    def _holds_pid(self) -> bool:
        """Return whether the lock, if there is one, is a spool's: a pid, or nothing yet."""
        try:
            content = self._read(LOCK, 21)
        except FileNotFoundError:
            return True
        return re.fullmatch(rb"(?:[0-9]{1,19}\n)?", content) is not None

    def _is_blank(self) -> bool:
        """Return whether no table was ever made in the database: its first start was killed."""
        header = self._read(TASKS, _HEADER_BYTES)
        if not header:
            return True
        is_unmarked = header.startswith(_MAGIC) and header[_APPLICATION] == bytes(4)
        return is_unmarked and header[100:].startswith(_NO_TABLES) and not self._is_logged()

    def _check_database(self) -> None:
        """Refuse a file that another program wrote, as far as can be told without opening it as a database."""
        header = self._read(TASKS, _HEADER_BYTES)
        if not header.startswith(_MAGIC):
            raise self.refusal(f"{TASKS}: file is not a database; nothing was changed, mend it or give another folder")
        if header[_APPLICATION] != APPLICATION_ID.to_bytes(4) and not self._is_logged():
            raise self.refusal(f"{TASKS}: it is a database of another program; give another folder")

    def _is_logged(self) -> bool:
        """Return whether the first page in the log is one of ours: it is not in the database itself yet."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = self.open(f"{TASKS}-wal", os.O_RDONLY)
            with os.fdopen(descriptor, "rb") as log:
                page_bytes = int.from_bytes(log.read(_WAL_HEADER)[8:12])
                while len(frame := log.read(_FRAME_HEADER)) == _FRAME_HEADER and 512 <= page_bytes <= 65536:
                    page = log.read(page_bytes)
                    if int.from_bytes(frame[:4]) == 1:
                        return page[_APPLICATION] == APPLICATION_ID.to_bytes(4)
        return False

    def shared(self) -> Iterator[tuple[str, int | None]]:
        """Yield the files in shared memory of earlier starts, with the number of the start if they were in use."""
        for name in self.names():
            if found := _SHARED.fullmatch(name):
                yield name, int(found[1]) if found[1] else None

    # -- its files -----------------------------------------------------------------------------------------

    def open(self, name: str, flags: int) -> int:
        """Return a descriptor of one of our files. Refuses links, what is no file, and what is another user's."""
        more = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(name, flags | more, 0o600, dir_fd=self._descriptor)
        except OSError:
            if self._is_irregular(name):
                raise self._irregular(name) from None
            raise
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(descriptor)
            raise self._irregular(name)
        return descriptor

    def _is_irregular(self, name: str) -> bool:
        try:
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return False
        return not stat.S_ISREG(status.st_mode)

    def _irregular(self, name: str) -> ConfigurationError:
        return self.refusal(f"{name} in it is not a regular file of yours; move it away, or give another folder")

    def _read(self, name: str, size: int) -> bytes:
        descriptor = self.open(name, os.O_RDONLY)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove one of our files, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.close(self.open(name, os.O_RDONLY))
            os.unlink(name, dir_fd=self._descriptor)

    def rename(self, name: str, other: str) -> None:
        os.rename(name, other, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def is_same(self, name: str, descriptor: int) -> bool:
        """Return whether the file of this name is the one that is open."""
        try:
            there = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def size_bytes(self) -> int:
        """Return the size of all files of the spool. Safe from any thread."""
        size = 0
        for name in filter(_is_ours, self.names()):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_size
        return size


def _is_ours(name: str) -> bool:
    """Return whether a spool has files of this name."""
    return name in (*_DATABASE, LOCK, RESERVE) or _SHARED.fullmatch(name) is not None
