"""File descriptors across processes: sent to a worker when it is started, and closed in what the program forks."""

from __future__ import annotations

import contextlib
import os
import weakref
from multiprocessing import reduction
from typing import Any, Protocol, TypeVar


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
