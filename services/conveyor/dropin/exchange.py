"""A process's end of the private socket to the broker of a queue, shared by all threads of the process.

Several threads may wait at once: one of them reads the socket, for all. The base of `line.py`, which knows what is
said. When the broker dies, the socket ends, and every thread that waits or sends gets `QueueLostError`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable

from conveyor.dropin import talk
from conveyor.dropin.talk import Kind
from conveyor.errors import QueueLostError


class Exchange:
    """The socket, and who waits for what. Everything is guarded by `_lock`."""

    def __init__(self, door: socket.socket, memory: int) -> None:
        """Knock at the door with our memory, whose descriptor is closed, and wait until the broker has opened."""
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._is_reading = False
        self._is_lost = False
        self._requests = 0
        self._answers: dict[int, tuple[int, bytes] | None] = {}
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                talk.send_with(door, talk.HELLO, theirs.fileno(), memory)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _lost() from error
        finally:
            os.close(memory)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        if not self._receive(None)[0]:
            raise _lost()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def _take_in(self, message: talk.Message, data: bytes, descriptors: list[int]) -> None:
        """Take in a message, for whomever it is. Called with the lock."""
        if message.kind == Kind.ANSWER and message.number in self._answers:
            self._answers[message.number] = message.first, data[talk.MESSAGE_BYTES :]

    # -- asking --------------------------------------------------------------------------------------------

    def _call(self, kind: Kind, first: int = 0, deadline: float | None = None) -> tuple[int, bytes]:
        """Ask the broker and wait for the answer; after the deadline, withdraw a JOIN."""
        self._requests = request = (self._requests + 1) & 0xFFFFFFFF
        self._answers[request] = None
        try:
            self._send(kind, request, first)
            if not self._wait(lambda: self._answers[request] is not None, deadline):
                self._send(Kind.DROP_JOIN, first=request)
                self._wait(lambda: self._answers[request] is not None, None)
            answer = self._answers[request]
            assert answer is not None
            return answer
        finally:
            del self._answers[request]

    def _send(self, kind: Kind, number: int = 0, first: int = 0, second: int = 0) -> None:
        try:
            self._socket.send(talk.write(kind, number, first, second))
        except OSError as error:
            raise self._lose() from error

    # -- waiting -------------------------------------------------------------------------------------------

    def _wait(self, is_there: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for an answer; return False after the deadline. Called with the lock, which is let go meanwhile."""
        while not is_there():
            if self._is_lost:
                raise _lost()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._is_reading:
                self._news.wait(left)
                continue
            self._is_reading = True
            self._lock.release()
            try:
                received = self._receive(left)
            except BlockingIOError:
                received = None
            except OSError:
                received = b"", []
            finally:
                self._lock.acquire()
                self._is_reading = False
                self._news.notify_all()
            if received is not None:
                self._open(*received)
        return True

    def _receive(self, timeout_seconds: float | None) -> tuple[bytes, list[int]]:
        flags = 0
        if timeout_seconds is not None:
            if timeout_seconds:
                self._poll.poll(timeout_seconds * 1e3)
            flags = socket.MSG_DONTWAIT
        return talk.receive(self._socket, talk.MAX_BYTES, flags)

    def _read_what_is_there(self) -> None:
        """Take in what has come, and notice that the broker is gone."""
        if self._is_reading:
            return
        try:
            while True:
                self._open(*self._receive(0.0))
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lose() from error

    def _open(self, data: bytes, descriptors: list[int]) -> None:
        if not data:
            raise self._lose()
        self._take_in(talk.read(data), data, descriptors)

    def _lose(self) -> QueueLostError:
        """Tell everybody that waits; return what to raise."""
        self._is_lost = True
        self._news.notify_all()
        return _lost()


def _lost() -> QueueLostError:
    return QueueLostError("the process that made this queue has ended, and the queue with it")
