"""The broker: a small process that serves all queues which one process, their maker, has made. It owns their state.

A process and not a thread of the maker: a thread would get the interpreter's lock 5 ms late after each system call
whenever the maker computes, and would stand in the way of `fork`. It imports little, has no thread and no lock.

Started by `launch.py`, not as a child of the maker, so that nobody's `wait()` ever meets it. It ends when the maker
is dead, however that happened, and when the last queue is out of everybody's reach. If it dies itself, or with its
maker, every process that uses a queue of it gets `QueueLostError`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
from typing import Final

from conveyor.dropin import talk
from conveyor.dropin.desk import Desk
from conveyor.dropin.member import open_process
from conveyor.dropin.talk import CONTROL
from conveyor.dropin.turns import Turns

LINGER_SECONDS: Final = 1.0  # without a queue: the next one is mostly made soon
MOST_ENDED: Final = 16  # queues that have ended, until their memory is collected; arbitrary


class Broker:
    """All queues of one maker."""

    def __init__(self, loop: Turns, control: socket.socket) -> None:
        self._loop = loop
        self._control = control
        self._desks: set[Desk] = set()
        self._waits = 0
        self._ended_desks = 0
        self._is_over = False
        loop.watch(control.fileno(), self._register)
        process = open_process(control)
        if process >= 0:
            loop.watch(process, self._stop)

    def run(self) -> None:
        self._linger()
        while not self._is_over:
            self._loop.turn()

    def _register(self) -> None:
        try:
            data, doors = talk.receive(self._control, talk.REGISTER.size, talk.AT_ONCE)
        except BlockingIOError:
            return
        except ConnectionError:
            data, doors = b"", []
        if not data:
            self._stop()
        for door in doors:
            capacity = talk.REGISTER.unpack(data)[0]
            self._desks.add(Desk(self._loop, socket.socket(fileno=door), capacity, self._ended))

    def _stop(self) -> None:
        self._is_over = True

    def _ended(self, desk: Desk) -> None:
        self._desks.discard(desk)
        self._ended_desks += 1
        if self._ended_desks >= MOST_ENDED:
            self._collect()
        self._linger()

    def _collect(self) -> None:
        """Let go of the descriptors and the memory of queues that have ended: a desk's parts refer to each other."""
        self._ended_desks = 0
        gc.collect()

    def _linger(self) -> None:
        self._waits += 1
        waits = self._waits
        self._loop.after(LINGER_SECONDS, lambda: self._leave(waits))

    def _leave(self, waits: int) -> None:
        """End if no queue is left, and none has been since."""
        if self._ended_desks and waits == self._waits:
            self._collect()
        if self._desks or waits != self._waits:
            return
        # From here on the maker cannot send to us, and starts another broker; what it has sent is still ours.
        self._loop.unwatch(self._control.fileno())
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RD)
        while not self._is_over:
            self._register()
        self._is_over = not self._desks


def main() -> None:
    """Be a broker. The process has no threads and only one descriptor that matters."""
    for meant_for_the_maker in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(meant_for_the_maker, signal.SIG_IGN)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # standard error stays: should we fail, it says why
        os.dup2(null, number)
    os.closerange(CONTROL + 1, 1 << 16)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Broker(Turns(), socket.socket(fileno=CONTROL)).run()
