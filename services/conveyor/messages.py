"""What a worker tells its supervisor beside the counts: frozen dataclasses, one JSON line each, on a private pipe.

A worker that is SIGKILLed while it writes leaves half a line, which is dropped: nothing here is ever counted. On the
same pipe `faulthandler` dumps the stack of one that crashes, in lines of plain text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A consumer's function raised. `trace` is empty but for the first of its class in a process."""

    error: str
    reason: str
    task: str
    seconds: float
    is_final: bool
    """Whether it has failed for good: it is not tried again."""
    trace: str


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker cannot go on, mostly a producer whose function raised; its process leaves with exit code 1."""

    error: str
    reason: str
    trace: str


@dataclass(frozen=True, slots=True)
class OutputLost:
    """What a worker had printed last could not be written when it left."""

    reason: str


MAX_TEXT = 10_000  # characters of an exception's message or trace that are told; arbitrary
READ_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 20  # of what a worker prints; arbitrary, far more than a person reads
MAX_READS = 32  # of a dead worker's pipe, into which a process that it had started may go on writing

Message = TaskFailed | WorkerFailed | OutputLost
_KINDS: dict[str, Callable[..., Message]] = {kind.__name__: kind for kind in (TaskFailed, WorkerFailed, OutputLost)}


def send(descriptor: int, message: Message) -> None:
    """Write the message whole; block while the supervisor is behind."""
    line = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def text_of(error: BaseException) -> str:
    """Return an exception's message, cut."""
    try:
        return cut(str(error))
    except Exception as worse:  # the user's __str__
        return f"(its text cannot be had: {type(worse).__qualname__})"


def cut(text: str) -> str:
    """Return a text that is not too long to be told."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"


class LineReader:
    """Cuts what arrives on a non-blocking descriptor into lines. Read by the supervisor alone."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._pieces: list[bytes] = []
        self._size = 0

    def read(self) -> list[bytes] | None:
        """Return the whole lines that have arrived, or None at the end of the stream."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return None
        first, *more = data.split(b"\n")
        self._pieces.append(first)
        self._size += len(first)
        if not more and self._size < MAX_LINE_BYTES:
            return []
        lines = [b"".join(self._pieces), *more]
        rest = lines.pop() if more else b""  # a line that is too long is cut here
        self._pieces, self._size = [rest], len(rest)
        return lines

    def read_all(self) -> Iterator[bytes]:
        """Yield the whole lines that are left in the stream, without waiting for more."""
        for _ in range(MAX_READS):
            lines = self.read()
            if lines is None:
                return
            yield from lines

    @property
    def rest(self) -> bytes:
        """What has arrived of a line without its end."""
        return b"".join(self._pieces)


def decode(line: bytes) -> Message | None:
    """Return the message that `send` wrote, or None for a line of what a crash dumped."""
    try:
        fields = json.loads(line)
        return _KINDS[fields.pop("kind")](**fields)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
