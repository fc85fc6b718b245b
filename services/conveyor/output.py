"""Writes text to a terminal, a pipe or a file that perhaps nobody reads: in a thread of its own, so that nobody waits.

Used by the log (`logs.py`), the live view (`live.py`) and the command line (`cli.py`). The supervisor's loop must go on
and a stop must work, whatever is done to the other end: Ctrl-S on a terminal, a pipe whose reader sleeps.

Who writes: any thread appends to what is pending, and one thread of this takes it from there to the descriptor, past
the buffers of `sys`: a daemon thread that waits inside of those would keep the interpreter from ending.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

MAX_PENDING_BYTES = 1 << 20  # arbitrary: more than a person scrolls back, nothing beside what a run needs
# For how long a process that ends waits for a reader that takes nothing. Arbitrary: one that is only slow has moved.
LAST_SECONDS = 1.0


class Output:
    """One descriptor, and what is to be written to it."""

    def __init__(self, descriptor: int, encoding: str = "utf-8", told: Callable[[int], str] | None = None) -> None:
        """`told` returns the text that says how many texts were dropped, as soon as there is room again."""
        self._descriptor = descriptor
        self._encoding = encoding
        self._told = told
        self._dropped = 0
        self._pending: collections.deque[bytes] = collections.deque()
        self._size = 0
        """Bytes that are not written yet; those in the thread's hands are counted until they are."""
        self._written = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_over = False

    @property
    def is_behind(self) -> bool:
        """Whether something is not written yet."""
        return self._size > 0

    @property
    def has_room(self) -> bool:
        """Whether a text that is written now is not dropped."""
        return self._size < MAX_PENDING_BYTES

    def write(self, text: str) -> None:
        """Have the text written as soon as there is a reader, or count it as dropped. Never blocks. For any thread."""
        with self._changed:
            if not self.has_room:
                self._dropped += 1
                return
            self._tell()
            self._append(text)

    def _tell(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped and self._told is not None:
            self._append(self._told(dropped))

    def _append(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        self._pending.append(data)
        self._size += len(data)
        if self._thread is None:
            self._start()
        self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="output", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had; then only what surely does not block is written
            self._write_some()
        else:
            self._thread = thread

    def _write_some(self) -> None:
        while self._pending:
            data = self._pending.popleft()
            self._size -= len(data)
            for at in range(0, len(data), select.PIPE_BUF):
                if not _is_ready(self._descriptor, 0.0):
                    self._dropped += 1
                    break
                with contextlib.suppress(OSError):
                    os.write(self._descriptor, data[at : at + select.PIPE_BUF])

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    if self._is_over:
                        return
                    self._changed.wait()
                data = b"".join(self._pending)
                self._pending.clear()
            self._write_all(memoryview(data))

    def _write_all(self, data: memoryview) -> None:
        while data:
            try:
                number = os.write(self._descriptor, data)
            except BlockingIOError:  # somebody has made it non-blocking, for all who share it
                _is_ready(self._descriptor, LAST_SECONDS)
                continue
            except OSError:  # whoever read it has gone: what is written is lost, and nobody misses it
                number = len(data)
            data = data[number:]
            with self._changed:
                self._size -= number
                self._written += number
                self._changed.notify_all()

    def flush(self, patience_seconds: float = LAST_SECONDS) -> bool:
        """Wait until all is written, or nothing was for so long; return whether all is."""
        with self._changed:
            while self._size:
                before, until = self._written, time.monotonic() + patience_seconds
                while self._size and self._written == before:
                    left = until - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
        return True

    def close(self, patience_seconds: float = LAST_SECONDS) -> None:
        """Write what is left, if it is taken, and end the thread. One that waits for a reader is left behind."""
        with self._changed:
            if self.has_room:
                self._tell()
        is_written = self.flush(patience_seconds)
        with self._changed:
            self._is_over = True
            self._pending.clear()
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None and is_written:
            thread.join()


def _is_ready(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def descriptor_of(stream: TextIO, name: str) -> int | None:
    """Return the descriptor of a standard stream, or None if a program has put another stream in its place."""
    if stream is None or stream is not getattr(sys, f"__{name}__"):
        return None
    try:
        number: int = stream.fileno()
    except (OSError, ValueError):
        return None
    return number


class Stream:
    """An `Output` that looks like the text stream whose place it takes, for those who write to streams."""

    def __init__(self, output: Output, stream: TextIO) -> None:
        self._output = output
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        self._output.write(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: it is written as soon as it can be."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
