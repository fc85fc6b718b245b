"""The standard input of workers: a consumer's is empty, and a producer's is the run's, if there is one producer alone.

Two processes that read the same input would each get some of it. Where that could happen, reading is an error that
says so: descriptor 0 is a socket that is connected to nothing. It is no file of another kind because reading must fail
by its number, by the name `/dev/stdin`, and in programs that the producer starts: the end of a file, such as
`/dev/null` has it, would look like an input without any task.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from typing import NoReturn

from conveyor.descriptors import Descriptor

REFUSAL = (
    "standard input cannot be read here: it goes to a producer only if that is the only one of its run, and if the run "
    "has one; give what is to be read as an argument, such as the path of a file"
)


def shared_with_workers() -> Descriptor | None:
    """Return the run's own standard input, for its only producer; None if it has none."""
    if sys.__stdin__ is None:  # it was closed when Python started: descriptor 0 is something else
        return None
    try:
        os.fstat(0)
    except OSError:
        return None
    return Descriptor(0)


def be_empty() -> None:
    """Have descriptor 0 of this process be empty. `multiprocessing` has seen to `sys.stdin`."""
    _replace(os.open(os.devnull, os.O_RDONLY))


def be(given: Descriptor) -> None:
    """Have this be the standard input of this process."""
    _replace(given.number)
    # As Python itself would have opened it.
    encoding, errors = getattr(sys.stdout, "encoding", None), getattr(sys.stdout, "errors", None)
    sys.stdin = open(0, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115  (it stays open)


def refuse() -> None:
    """Have every attempt to read standard input fail, in this process and in those that it starts."""
    _replace(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach())
    sys.stdin = _Refusal()


def _replace(number: int) -> None:
    if number != 0:
        os.dup2(number, 0)
        os.close(number)


class _Refusal(io.TextIOBase):
    """A standard input that says why it cannot be read."""

    def fileno(self) -> int:
        return 0

    def readable(self) -> bool:
        return True

    def _refuse(self, *_: object) -> NoReturn:
        raise io.UnsupportedOperation(REFUSAL)

    read = readline = readlines = __next__ = _refuse

    @property
    def buffer(self) -> NoReturn:
        self._refuse()
