"""One process's connection to the broker of a queue: a private socket and shared memory. All its threads use it.

A put is a copy into the memory and a store; a get takes from the items that were sent ahead. Only who must wait, or
be waited for, sends a message. When this process dies, the broker reads what it had put, and takes back what it had
not finished. When the broker dies, whoever uses the queue gets `QueueLostError`.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import time
from typing import Final

from conveyor.dropin import page, talk
from conveyor.dropin.exchange import Exchange, Question
from conveyor.dropin.page import BELL, DONE, EAGER, LIMIT, PUTTING, RING_BYTES, ROOM, TAKING
from conveyor.dropin.ring import FRAME_BYTES, SIZE, RingWriter
from conveyor.dropin.talk import Kind, Outcome

_CHECK_SECONDS: Final = 0.01  # how often a process that only puts looks whether the broker is there
_size_at: Final = SIZE.unpack_from
_now: Final = time.monotonic

Item = memoryview | int
"""A pickle, or the descriptor of the memory in which a large one lies."""


class Line(Exchange):
    """The connection. Everything is guarded by `_lock`."""

    def __init__(self, door: socket.socket) -> None:
        memory = page.new_memory()
        self._words, ring = page.open_memory(memory)
        self._writer = RingWriter(self._words, ring)
        self._check_at = 0.0
        # Putting.
        self._put = 0
        self._rung = 0
        self._look_at = RING_BYTES // 2
        self._room = Question(Kind.ROOM, Kind.TRY_ROOM, Kind.DROP_ROOM, queue.Full)
        # Getting. The items are those from `_taken` on; while there is one, none is asked for.
        self._items = memoryview(b"")
        self._at = 0
        self._parcel = -1
        self._left = 0
        self._taken = 0
        self._done = 0
        self._more = Question(Kind.WANT, Kind.TRY, Kind.DROP_WANT, queue.Empty)
        super().__init__(door, memory)

    # -- putting -------------------------------------------------------------------------------------------

    def put(self, data: bytes, deadline: float | None) -> None:
        """Put one item that fits the ring. Raises `Full`, `ShutDown` and `QueueLostError`."""
        words, writer = self._words, self._writer
        with self._lock:
            if _now() > self._check_at:
                self._check()
            while True:
                number = self._put + 1
                words[PUTTING] = number
                if number > words[ROOM]:
                    words[PUTTING] = number - 1
                    self._await(self._room, deadline)
                elif writer.write(data):
                    self._put += 1
                    break
                else:
                    words[PUTTING] = number - 1
                    self._call(Kind.ASK)  # the broker reads the ring before it answers
        bell = words[BELL]
        if bell != self._rung or writer.tail > self._look_at:
            self._ring(bell)

    def put_large(self, descriptor: int, deadline: float | None) -> None:
        """Put one item that lies in memory of its own."""
        words, writer = self._words, self._writer
        with self._lock:
            while True:
                number = self._put + 1
                words[PUTTING] = number
                if number > words[ROOM]:
                    words[PUTTING] = number - 1
                    self._await(self._room, deadline)
                # Send before we commit: then the broker has it when the ring says where it belongs.
                elif writer.has_room() and self._send_parcel(descriptor):
                    break
                else:
                    words[PUTTING] = number - 1
                    self._call(Kind.ASK)
            self._put += 1
            writer.write_large()
        self._ring(words[BELL])

    def _send_parcel(self, descriptor: int) -> bool:
        """Return False if more descriptors are on their way to the broker than the kernel allows."""
        try:
            talk.send_with(self._socket, talk.write(Kind.PARCEL, self._writer.larges + 1), descriptor)
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                return False
            raise self._lose() from error
        return True

    def _ring(self, bell: int) -> None:
        """Wake the broker if somebody waits for an item, or before the ring is full."""
        with self._lock:
            if bell and bell != self._rung:
                self._send(Kind.BELL)
            elif self._writer.tail > self._look_at:
                if self._writer.is_half_full():
                    self._send(Kind.BELL)
                self._look_at = self._writer.tail + RING_BYTES // 4
            self._rung = bell

    def _check(self) -> None:
        """Notice that the broker is gone, although we have nothing to ask it."""
        self._check_at = _now() + _CHECK_SECONDS
        if not self._is_reading:
            self._read_what_is_there()

    # -- getting -------------------------------------------------------------------------------------------

    def get(self, deadline: float | None, most: int = 1) -> Item:
        """Return the next item. `most` is how many are likely to be got at once. Raises `Empty` and `ShutDown`."""
        words = self._words
        with self._lock:
            while True:
                if self._left:
                    items, at = self._items, self._at
                    end = at + FRAME_BYTES + _size_at(items, at)[0] if self._parcel < 0 else 0
                    # A signal's handler may have got it; from here on there is no call that would let one run.
                    if items is not self._items or at != self._at:
                        continue
                    number = self._taken + 1
                    words[TAKING] = number
                    if number <= words[LIMIT]:
                        self._taken = number
                        self._left -= 1
                        if self._parcel >= 0:
                            descriptor, self._parcel = self._parcel, -1
                            return descriptor
                        self._at = end
                        return items[at + FRAME_BYTES : end]
                    words[TAKING] = number - 1  # called back
                    self._drop_items()
                self._await(self._more, deadline, self._taken, most)

    def _drop_items(self) -> None:
        self._left = 0
        descriptor, self._parcel = self._parcel, -1
        if descriptor >= 0:
            os.close(descriptor)

    def done(self) -> None:
        """Finish the oldest item that is taken. Raises `ValueError` if nothing at all is unfinished."""
        words = self._words
        with self._lock:
            if self._done < self._taken:
                self._done += 1
                words[DONE] = self._done
                if words[EAGER] and self._done >= words[LIMIT]:
                    self._send(Kind.BELL)
            elif self._call(Kind.FINISH)[0] != Outcome.OK:
                raise ValueError("task_done() called too many times")

    # -- other requests ------------------------------------------------------------------------------------

    def numbers(self) -> talk.Numbers:
        with self._lock:
            return talk.read_numbers(self._call(Kind.ASK)[1])

    def shut(self, at_once: bool) -> None:
        with self._lock:
            self._call(Kind.SHUT, first=at_once)

    def join(self, deadline: float | None) -> bool:
        """Wait until nothing is unfinished; return whether that came about."""
        with self._lock:
            return self._call(Kind.JOIN, deadline=deadline)[0] == Outcome.OK

    # -- what the broker says ------------------------------------------------------------------------------

    def _take_in(self, message: talk.Message, data: bytes, descriptors: list[int]) -> None:
        match message.kind:
            case Kind.ITEMS if message.number == self._more.number and self._more.asked:
                self._items = memoryview(data)
                self._at = talk.MESSAGE_BYTES
                is_parcel = bool(message.second)
                self._parcel = descriptors[0] if is_parcel and descriptors else -1
                self._left = message.first if bool(descriptors) == is_parcel else 0  # without it, ask again
                self._more.answer(Outcome.OK)
            case Kind.ITEMS:  # to one that was interrupted, and has asked again
                for descriptor in descriptors:
                    os.close(descriptor)
            case Kind.NO_ITEMS if message.number == self._more.number:
                self._more.answer(message.first)
            case Kind.ROOM_ANSWER if message.number == self._room.number:
                self._room.answer(message.first)
            case _:
                super()._take_in(message, data, descriptors)
