"""A process's end of the private socket to the broker of a queue, shared by all threads of the process.

Several threads may wait at once: one of them reads the socket, for all. The base of `line.py`, which knows what is
said. When the broker dies, the socket ends, and every thread that waits or sends gets `QueueLostError`.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from conveyor.dropin import talk
from conveyor.dropin.talk import Kind, Outcome
from conveyor.errors import QueueLostError

_REFUSED: Final = int(Outcome.REFUSED)
_SHUT_DOWN: Final = int(Outcome.SHUT_DOWN)
_TURN_SECONDS: Final = 1.0  # how long a thread waits for another one that reads, and may have been interrupted

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
        self.is_sent = False
        self.number = 0
        self.answers = 0
        self.outcome = 0
        self.waiters = 0

    def answer(self, outcome: int) -> None:
        self.outcome = outcome
        self.answers += 1
        self.asked = 0


class Exchange:
    """The socket, and who waits for what.

    A signal's handler may run in the main thread after any call, at the start of a function and of each round of a
    loop. It may use the queue, and it may raise. So the lock is held by `with` statements alone: the interpreter runs
    no handler between taking the lock and the block. What must not be divided is written without any call in it.
    """

    def __init__(self, door: socket.socket, memory: int) -> None:
        """Knock at the door with our memory, whose descriptor is closed, and wait until the broker has opened."""
        self._lock = threading.RLock()
        self._reader = 0  # the thread that reads the socket, for all; 0 is none
        self._gates: list[threading.Lock] = []  # of the other threads that wait
        self._is_lost = False
        self._is_welcome = False
        self._buffer = memoryview(bytearray(talk.MAX_BYTES))
        self._taken = 0  # items, ever
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
        """Ask the broker and wait for the answer; after the deadline, withdraw a JOIN. Called without the lock."""
        with self._lock:
            self._requests = request = (self._requests + 1) & 0xFFFFFFFF
            self._answers[request] = None
        is_answered = False
        try:
            self._send(kind, request, first)
            if not self._wait(lambda: self._answers[request] is not None, deadline):
                self._send(Kind.DROP_JOIN, first=request)
                self._wait(lambda: self._answers[request] is not None, None)
            answer = self._answers[request]
            assert answer is not None
            is_answered = True
            return answer
        finally:
            del self._answers[request]
            if kind == Kind.JOIN and not is_answered and not self._is_lost:  # interrupted
                self._send(Kind.DROP_JOIN, first=request)

    def _send(self, kind: Kind, number: int = 0, first: int = 0, second: int = 0) -> None:
        try:
            self._socket.send(talk.write(kind, number, first, second))
        except OSError as error:
            raise self._lose() from error

    # -- waiting -------------------------------------------------------------------------------------------

    def _await(self, question: Question, deadline: float | None, most: int = 1) -> None:
        """Return when the question was answered well, perhaps to another thread. Called without the lock.

        Raises its refusal after the deadline, where 0 is no waiting, and `ShutDown`.
        """
        is_try = deadline == 0
        limit = None if is_try else deadline
        is_counted = False
        try:
            with self._lock:
                if self._is_served(question):  # by an answer to another thread, just now
                    return
                seen = question.answers
                if not question.asked or not question.is_sent:  # else a signal's handler has interrupted the sending
                    self._ask(question, is_try, most)
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
                is_counted = True
            if not self._wait(lambda: question.answers != seen, limit):
                with self._lock:
                    if question.waiters > 1:
                        raise question.refusal
                    if question.answers == seen:  # and if a good answer is on its way, it is welcome
                        self._send(question.drop, question.number)
                self._wait(lambda: question.answers != seen, None)
                is_try = True
        finally:
            if is_counted:
                question.waiters -= 1
        if question.outcome == _SHUT_DOWN:
            raise ShutDown
        if question.outcome == _REFUSED and is_try:
            raise question.refusal

    def _is_served(self, question: Question) -> bool:
        """Return whether there is no need to ask. Called with the lock."""
        raise NotImplementedError

    def _ask(self, question: Question, is_try: bool, most: int) -> None:
        question.number = number = (question.number + 1) & 0xFFFFFFFF
        question.is_sent = False
        question.asked = kind = question.attempt if is_try else question.wait
        try:
            self._send(kind, number, self._taken, most)
        except BaseException:  # if it was sent: nobody waits for an answer with this number
            if question.number == number:
                question.asked = 0
            raise
        if question.number == number:  # else a signal's handler has asked in our place
            question.is_sent = True

    def _wait(self, is_there: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for an answer; return False after the deadline. Called without the lock."""
        while not is_there():
            if self._is_lost:
                raise _lost()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._wait_a_turn(is_there, left)
        return True

    def _wait_a_turn(self, is_there: Callable[[], bool], left: float | None) -> None:
        """Take in a message, or wait for another thread that does."""
        me = threading.get_ident()
        gate: threading.Lock | None = None
        before = me
        is_reader = False
        try:
            with self._lock:
                if is_there():  # by another thread, just now
                    return
                if self._buffer[0]:
                    self._open(bytes(self._buffer), [])
                    return
                before = self._reader
                if before in (0, me):  # ours, if a signal's handler has interrupted the reading
                    self._reader = me
                    is_reader = True
                else:
                    gate = threading.Lock()
                    gate.acquire()
                    self._gates.append(gate)
            if gate:
                self._wait_at(gate, _TURN_SECONDS if left is None else min(left, _TURN_SECONDS))
                return
            try:
                received = self._receive(left)
            except BlockingIOError:
                return
            except OSError:
                received = b"", []
            with self._lock:
                self._open(*received)
        finally:
            if is_reader:
                self._reader = before
                if before:  # the call that our handler has interrupted must look whether we have read its answer
                    self._send(Kind.ASK)
                self._wake_the_others()

    def _wait_at(self, gate: threading.Lock, seconds: float) -> None:
        lock: Any = self._lock
        if not lock._is_owned():
            gate.acquire(timeout=seconds)
            return
        # This thread holds the lock, perhaps below us, interrupted by a signal's handler. The reader needs it.
        held = lock._release_save()
        try:
            gate.acquire(timeout=seconds)
        finally:
            lock._acquire_restore(held)

    def _wake_the_others(self) -> None:
        """Let the others see what has come, and one of them read. If we are interrupted, they look by themselves."""
        if self._gates:
            with self._lock:
                gates, self._gates = self._gates, []
            for gate in gates:
                gate.release()

    def _receive(self, timeout_seconds: float | None) -> tuple[bytes, list[int]]:
        if timeout_seconds is None:
            return talk.receive_into(self._socket, self._buffer, 0)
        if timeout_seconds:
            self._poll.poll(timeout_seconds * 1e3)
        return talk.receive_into(self._socket, self._buffer, talk.AT_ONCE)

    def _read_what_is_there(self) -> None:
        """Take in what has come, and notice that the broker is gone. Called with the lock."""
        if self._reader:
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
        self._wake_the_others()
        return _lost()


def _lost() -> QueueLostError:
    return QueueLostError("the queue is lost: the process that made it, or the broker of that process, has ended")
