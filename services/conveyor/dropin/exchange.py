"""A process's end of the private socket to the broker of a queue, shared by all threads of the process.

Several threads may wait at once: one of them reads the socket, for all. The base of `line.py`, which knows what is
said. When the broker dies, the socket ends, and every thread that waits or sends gets `QueueLostError`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable

from conveyor.dropin import talk
from conveyor.dropin.talk import Kind, Outcome
from conveyor.errors import QueueLostError

ShutDown: type[Exception] = getattr(queue, "ShutDown", None) or type(
    "ShutDown",
    (Exception,),
    {"__doc__": "Raised by put and get once the queue is shut down.", "__module__": "conveyor"},
)


class Question:
    """One that is open once at most in each process, for whoever waits there. Guarded by the exchange's lock."""

    def __init__(self, wait: Kind, attempt: Kind, drop: Kind, refusal: type[Exception]) -> None:
        self.wait = wait
        self.attempt = attempt
        self.drop = drop
        self.refusal = refusal
        self.asked = 0
        """The kind that is open; 0 if it is answered."""
        self.number = 0
        self.answers = 0
        self.outcome = Outcome.OK
        self.waiters = 0

    def answer(self, outcome: int) -> None:
        self.outcome = Outcome(outcome)
        self.answers += 1
        self.asked = 0


class Exchange:
    """The socket, and who waits for what. Everything is guarded by `_lock`."""

    def __init__(self, door: socket.socket, memory: int) -> None:
        """Knock at the door with our memory, whose descriptor is closed, and wait until the broker has opened."""
        self._lock = threading.RLock()  # a signal's handler may use the queue as well
        self._news = threading.Condition(self._lock)
        self._is_reading = False
        self._is_lost = False
        self._is_welcome = False
        self._buffer = memoryview(bytearray(talk.MAX_BYTES))
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
        with self._lock:
            self._wait(lambda: self._is_welcome, None)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def _take_in(self, message: talk.Message, data: bytes, descriptors: list[int]) -> None:
        """Take in a message, for whomever it is. Called with the lock."""
        if message.kind == Kind.WELCOME:
            self._is_welcome = True
        elif message.kind == Kind.ANSWER and message.number in self._answers:
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

    def _await(self, question: Question, deadline: float | None, first: int = 0, second: int = 0) -> None:
        """Return when the question was answered well, perhaps to another thread.

        Raises its refusal after the deadline, where 0 is no waiting, and `ShutDown`.
        """
        is_try, seen = deadline == 0, question.answers
        limit = None if is_try else deadline
        if not question.asked:
            question.number = (question.number + 1) & 0xFFFFFFFF
            question.asked = question.attempt if is_try else question.wait
            try:
                self._send(question.asked, question.number, first, second)
            except BaseException:  # if it was sent: nobody waits for an answer with this number
                question.asked = 0
                raise
        elif question.asked == question.attempt:  # another thread's, which is answered at once
            limit = None
        elif not question.waiters:  # whoever asked was interrupted: his question is ours
            if is_try:
                self._send(question.drop, question.number)
                is_try = False  # unless there is a good answer, ask anew
        elif is_try:  # another thread waits already
            self._read_what_is_there()
            if question.answers == seen:
                raise question.refusal
            return
        question.waiters += 1
        try:
            if not self._wait(lambda: question.answers != seen, limit):
                if question.waiters > 1:
                    raise question.refusal
                self._send(question.drop, question.number)  # and if a good answer is on its way, it is welcome
                self._wait(lambda: question.answers != seen, None)
                is_try = True
        finally:
            question.waiters -= 1
        if question.outcome == Outcome.SHUT_DOWN:
            raise ShutDown
        if question.outcome == Outcome.REFUSED and is_try:
            raise question.refusal

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
            if self._buffer[0]:
                self._open(bytes(self._buffer), [])
                continue
            self._is_reading = True
            try:
                self._lock.release()
                received = self._receive(left)
            except BlockingIOError:
                received = None
            except OSError:
                received = b"", []
            finally:
                try:
                    self._lock.acquire()
                except BaseException:  # a signal's handler raised, before or after it was taken
                    with contextlib.suppress(RuntimeError):  # it is not ours
                        self._lock.release()
                    self._lock.acquire()
                    raise
                finally:
                    self._is_reading = False
                    self._news.notify_all()
            if received is not None:
                self._open(*received)
        return True

    def _receive(self, timeout_seconds: float | None) -> tuple[bytes, list[int]]:
        if timeout_seconds is None:
            return talk.receive_into(self._socket, self._buffer, 0)
        if timeout_seconds:
            self._poll.poll(timeout_seconds * 1e3)
        return talk.receive_into(self._socket, self._buffer, talk.AT_ONCE)

    def _read_what_is_there(self) -> None:
        """Take in what has come, and notice that the broker is gone."""
        if self._is_reading:
            return
        try:
            while True:
                if self._buffer[0]:
                    self._open(bytes(self._buffer), [])
                self._open(*self._receive(0.0))
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lose() from error

    def _open(self, data: bytes, descriptors: list[int]) -> None:
        """Take in a message. Its first byte stays in the buffer until that is done.

        So one that was read when a signal's handler raised is not lost, although its descriptors are.
        """
        if not data:
            raise self._lose()
        self._take_in(talk.read(data), data, descriptors)
        self._buffer[0] = 0

    def _lose(self) -> QueueLostError:
        """Tell everybody that waits; return what to raise."""
        self._is_lost = True
        self._news.notify_all()
        return _lost()


def _lost() -> QueueLostError:
    return QueueLostError("the queue is lost: the process that made it, or the broker of that process, has ended")
