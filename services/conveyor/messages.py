"""What a worker tells its supervisor beside the counts: frozen dataclasses, one JSON line each, on a private pipe.

A worker that is SIGKILLed while it writes leaves half a line, which is dropped: nothing here is ever counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A consumer's function raised. `trace` is empty but for the first of its class in a process."""

    error: str
    reason: str
    task: str
    seconds: float
    trace: str


@dataclass(frozen=True, slots=True)
class ProducerFailed:
    """A producer cannot go on; its process leaves with exit code 1."""

    error: str
    reason: str
    trace: str


Message = TaskFailed | ProducerFailed
_KINDS: dict[str, type[TaskFailed] | type[ProducerFailed]] = {
    kind.__name__: kind for kind in (TaskFailed, ProducerFailed)
}


def send(descriptor: int, message: Message) -> None:
    """Write the message whole; block while the supervisor is behind."""
    line = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


class LineReader:
    """Cuts what arrives on a non-blocking descriptor into lines. Read by the supervisor alone."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """Return the whole lines that have arrived, or None at the end of the stream."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def read_all(self) -> Iterator[bytes]:
        """Yield the whole lines that are left in the stream, without waiting for more."""
        while lines := self.read():
            yield from lines

    @property
    def rest(self) -> bytes:
        """What has arrived of a line without its end."""
        return self._rest


def decode(line: bytes) -> Message:
    """Return the message that `send` wrote."""
    fields = json.loads(line)
    return _KINDS[fields.pop("kind")](**fields)
