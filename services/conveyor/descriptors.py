"""File descriptors across processes: sent to a worker when it is started, and closed in what the program forks."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from multiprocessing import reduction
from typing import Any, Protocol, TypeVar

from conveyor.errors import ConfigurationError

_SHARED_MEMORY = "/dev/shm"


class _Closeable(Protocol):
    def close(self) -> object: ...


F = TypeVar("F", bound=_Closeable)


class Descriptor:
    """An open descriptor. The sender keeps its own; the receiver gets a duplicate, which it must close."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)

    def __reduce__(self) -> tuple[object, ...]:
        return _receive, (reduction.DupFd(self.number),)


def new_memory(name: str) -> int:
    """Return the descriptor of new shared memory, of no size, which the kernel frees with its last holder.

    Where there is no `memfd_create`, or a filter of system calls denies it, it is a file that is removed at once.
    Raises `ConfigurationError` if that cannot be had either.
    """
    refused = "this system has no memfd_create"
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
                raise
            refused = f"memfd_create is denied: {error.strerror}"
    import tempfile  # takes as long to import as all the rest of this, and is hardly ever needed

    for folder in (_SHARED_MEMORY, None):
        with contextlib.suppress(OSError), tempfile.TemporaryFile(prefix=f"{name}-", dir=folder) as file:
            return os.dup(file.fileno())
    raise ConfigurationError(
        f"no shared memory can be had: {refused}, and no file can be made in {_SHARED_MEMORY} or a temporary folder"
    )


def _receive(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())


_kept: weakref.WeakSet[_Closeable] = weakref.WeakSet()
_watched_forks: list[bool] = []  # one entry once forks are watched: the hook cannot be taken back


def keep_from_forks(file: F) -> F:
    """Close this file or socket in every process that the program forks; return it.

    Such a process may outlive this one: it must not hold a lock, a port or a connection that others wait to see freed.
    """
    if not _watched_forks:
        _watched_forks.append(True)
        os.register_at_fork(after_in_child=_let_go)
    _kept.add(file)
    return file


def _let_go() -> None:
    for file in list(_kept):
        with contextlib.suppress(OSError):
            file.close()
    _kept.clear()
