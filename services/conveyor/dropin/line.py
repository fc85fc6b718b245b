"""One process's connection to the broker of a queue: a private socket and shared memory. All its threads use it.

A put is a copy into the memory and a store; a get takes from the items that were sent ahead. Only who must wait, or
be waited for, sends a message. When this process dies, the broker reads what it had put, and takes back what it had
not finished. When the broker dies, whoever uses the queue gets `QueueLostError`.

A get takes an item, unpickles it, and then, with the last store before it returns, notes that it has been got. If
anything raises before that, a signal's handler for instance, the item is returned to the queue, in its old place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import socket
import time
from collections import deque
from typing import Any, Final

from conveyor.dropin import page, talk
from conveyor.dropin.exchange import Exchange, Question, ShutDown
from conveyor.dropin.holds import Held, Hold, Holds, has_items
from conveyor.dropin.interruption import is_from_a_signal
from conveyor.dropin.packing import loads, read_large
from conveyor.dropin.page import (
    BELL,
    DONE,
    EAGER,
    FINISHED,
    KEPT,
    LIMIT,
    LOG,
    LOG_ENTRIES,
    LOGGED,
    PUTTING,
    RETURNED,
    RING_BYTES,
    ROOM,
    SEEN,
    TAKING,
    UNNAMED,
)
from conveyor.dropin.ring import FRAME_BYTES, SIZE, RingWriter
from conveyor.dropin.talk import Kind, Outcome
from conveyor.errors import QueueLostError

_CHECK_SECONDS: Final = 0.01  # how often a process that only puts looks whether the broker is there
_size_at: Final = SIZE.unpack_from
_now: Final = time.monotonic

_OK: Final = int(Outcome.OK)
MOST_UNNAMED: Final = 4096
"""Items that a process holds while it is not known which of them are done. Arbitrary: the broker has to keep them."""


class Line(Exchange):
    """The connection. Everything is guarded by `_lock`, but what is written without a call between its steps."""

    def __init__(self, door: socket.socket, is_joinable: bool) -> None:
        memory = page.new_memory()
        self._words, ring = page.open_memory(memory)
        self._writer = RingWriter(self._words, ring)
        self._check_at = 0.0
        # Putting.
        self._rung = 0
        self._parcels = 0
        self._look_at = RING_BYTES // 2
        self._room = Question(Kind.ROOM, Kind.TRY_ROOM, Kind.DROP_ROOM, queue.Full)
        # Getting. The items are those from `_taken` on; while there is one, none is asked for.
        self._items = memoryview(b"")
        self._at = 0
        self._parcel = -1
        self._left = 0
        self._more = Question(Kind.WANT, Kind.TRY, Kind.DROP_WANT, queue.Empty)
        self._returned: deque[list[int]] = deque()
        """First and last items to return to the queue, because the get that took them was interrupted."""
        # Marking as done. All up to `_done` are, but for those that are kept, which the log says.
        self._done = 0
        self._logged = 0
        self._unnamed = 0
        self._marked = 0
        self._gone = 0  # returned, or over
        self._holds = Holds()
        self._hold = Hold(self._holds) if is_joinable else None
        super().__init__(door, memory)

    # -- putting -------------------------------------------------------------------------------------------

    def put(self, data: bytes, deadline: float | None) -> None:
        """Put one item that fits the ring. Raises `Full`, `ShutDown` and `QueueLostError`."""
        words, writer = self._words, self._writer
        if _now() > self._check_at:
            self._check()
        while True:
            with self._lock:
                number = writer.count + 1
                try:
                    words[PUTTING] = number
                    has_room = number <= words[ROOM]
                    if has_room and writer.write(data):
                        break
                    words[PUTTING] = number - 1
                except BaseException:
                    words[PUTTING] = writer.count  # a claim that nothing comes of would keep others from putting
                    raise
            if has_room:
                self._call(Kind.ASK)  # the broker reads the ring before it answers
            else:
                self._await(self._room, deadline)
        bell = words[BELL]
        if bell != self._rung or writer.tail > self._look_at:
            self._ring(bell)

    def put_large(self, descriptor: int, deadline: float | None) -> None:
        """Put one item that lies in memory of its own."""
        words, writer = self._words, self._writer
        while True:
            with self._lock:
                number = writer.count + 1
                try:
                    words[PUTTING] = number
                    has_room = number <= words[ROOM]
                    # Send before we commit: then the broker has it when the ring says where it belongs.
                    parcel = self._send_parcel(descriptor) if has_room and writer.has_room() else 0
                    if parcel and writer.write_large(parcel):
                        break
                    words[PUTTING] = number - 1
                except BaseException:
                    words[PUTTING] = writer.count
                    raise
            if has_room:
                self._call(Kind.ASK)
            else:
                self._await(self._room, deadline)
        self._ring(words[BELL])

    def _send_parcel(self, descriptor: int) -> int:
        """Return its number, or 0 if more descriptors are on their way to the broker than the kernel allows."""
        self._parcels = number = self._parcels + 1
        try:
            talk.send_with(self._socket, talk.write(Kind.PARCEL, first=number), descriptor)
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                return 0
            raise self._lose() from error
        return number

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
        with self._lock:
            self._read_what_is_there()

    # -- getting -------------------------------------------------------------------------------------------

    def get(self, deadline: float | None) -> Any:
        """Return the next item. Raises `Empty`, `ShutDown`, `QueueLostError`, and what unpickling it raises."""
        hold = self._hold
        held = hold.items if hold else None
        mine = [0, 0, -1]
        is_opened = False
        try:
            data = self._take(mine, deadline, 1)
            is_opened = True
            item = loads(data) if data is not None else self._open_large(mine)
            number = mine[1]
            # In either case: from the store that says that the item is got to the end there is no call.
            if held:
                if held[-1] == number:
                    held[-1] = number + 1
                else:
                    held += (number, number + 1)
            elif number == self._done + 1:
                self._words[DONE] = number
                self._done = number
            else:
                self._finish(number, number)
            return item
        except BaseException as error:
            if mine[1]:
                self._returned += (mine,)  # first thing, without a call: another handler may raise at the next one
                self._give_back(mine, error if is_opened else None)
            raise

    def get_many(self, deadline: float | None, most: int) -> list[Any]:
        """Return at most so many consecutive items: all that can be had without waiting, once there is one."""
        held = self._hold.items if self._hold else None
        mine, found = [0, 0, -1], list[Any]()
        is_opened = False
        try:
            while len(found) < most:
                is_opened = False
                try:
                    data = self._take(mine, 0 if found else deadline, most - len(found))
                except (queue.Empty, ShutDown):
                    if found:
                        break
                    raise
                is_opened = True
                found.append(loads(data) if data is not None else self._open_large(mine))
            first, last = mine[0], mine[1]
            if not held:
                self._finish(first, last)
            elif held[-1] == first:
                held[-1] = last + 1
            else:
                held += (first, last + 1)
            return found
        except BaseException as error:
            if mine[1]:
                self._returned += (mine,)
                self._give_back(mine, error if is_opened else None)
            raise

    def _open_large(self, mine: list[int]) -> Any:
        item = read_large(mine[2])
        self._close(mine)
        return item

    def _close(self, mine: list[int]) -> None:
        descriptor, mine[2] = mine[2], -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, mine: list[int], deadline: float | None, most: int) -> memoryview | None:
        """Return the next item as bytes; None is a large one. `most` is how many are likely to be got at once.

        What is taken is noted in `mine`: the first and the last item, and the descriptor of a large one.
        """
        words = self._words
        while True:
            if self._returned:
                self._tidy()
            while self._left:
                items, at = self._items, self._at
                end = at + FRAME_BYTES + _size_at(items, at)[0] if self._parcel < 0 else 0
                # A signal's handler, or another thread, may have got it. From here on there is no call that would let
                # one run: no lock is needed.
                if items is not self._items or at != self._at or not self._left:
                    continue
                number = self._taken + 1
                if mine[1] and number != mine[1] + 1:
                    raise queue.Empty
                words[TAKING] = number
                if number <= words[LIMIT]:
                    self._taken = mine[1] = number
                    self._left -= 1
                    if not mine[0]:
                        mine[0] = number
                    self._at = end
                    if self._parcel < 0:
                        return items[at + FRAME_BYTES : end]
                    mine[2], self._parcel = self._parcel, -1
                    return None
                words[TAKING] = number - 1  # called back
                self._drop_items()
            self._await(self._more, deadline, most)

    def _drop_items(self) -> None:
        self._left = 0
        descriptor, self._parcel = self._parcel, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _give_back(self, mine: list[int], error: BaseException | None) -> None:
        """Return the items to the queue that an interrupted get has taken, but for one that could not be unpickled.

        That one is over, as in `multiprocessing`, or, of a `JoinableQueue`, unfinished as long as this process lives.
        """
        self._close(mine)
        self._gone += mine[1] - mine[0] + 1
        if error and not is_from_a_signal(error):
            spoiled = mine[1]
            if self._hold:
                self._log(KEPT, spoiled, spoiled)
            else:
                self._finish(spoiled, spoiled)
            mine[1] -= 1
        with contextlib.suppress(QueueLostError):  # what has interrupted us is what is to be raised
            with self._lock:
                self._return_items()
            self._send(Kind.BELL)

    def _return_items(self) -> None:
        """Return what is to be returned, and what was sent behind it, so that it comes first. Called with the lock."""
        while self._returned:
            mine = self._returned[0]
            if mine[0] <= mine[1]:
                self._log(RETURNED, mine[0], mine[1])
            # Log before we forget: should we be interrupted in between, the broker is told twice, and does it once.
            if self._returned and self._returned[0] is mine:
                del self._returned[0]
        more = self._more
        if not more.waiters:  # an answer to what was asked before would come first
            more.number = (more.number + 1) & 0xFFFFFFFF
            more.asked = 0
        self._drop_items()

    # -- marking as done -----------------------------------------------------------------------------------

    def done(self) -> None:
        """Finish the oldest item that this thread has got. Raises `ValueError` if nothing at all is unfinished.

        If it has none, one of this process's items is finished, and it is not known which. If the process has none, it
        is one of another process.
        """
        held = self._hold.items  # type: ignore[union-attr]
        words = self._words
        number = held[0]
        is_other = False
        if number == self._done + 1 and number != held[1]:  # no call from here on: it is both finished and not held
            words[DONE] = number
            self._done = number
            held[0] = number + 1
            self._marked += 1
        else:
            is_other = not self._finish_out_of_order(held)
        if self._unnamed:
            self._name_items()
        if is_other:
            if self._call(Kind.FINISH)[0] != Outcome.OK:
                raise ValueError("task_done() called too many times")
        elif words[EAGER] and self._taken >= words[LIMIT]:
            self._send(Kind.BELL)

    def _finish_out_of_order(self, held: Held) -> bool:
        """Finish an item that this thread has got, or another one; return False if no thread has any."""
        with self._lock:
            if has_items(held):
                self._finish_oldest(held)
            elif self._holds.oldest():
                self._unnamed += 1
                self._words[UNNAMED] = self._unnamed
            else:
                return False
        return True

    def _finish_oldest(self, held: Held) -> None:
        number = held[0]
        self._finish(number, number)  # no call after it
        if held[0] == number:  # else a signal's handler has been here, too
            held[0] = number + 1
        self._marked += 1

    def _name_items(self) -> None:
        """Say which items are done if that is certain: all are. Beyond a bound, the oldest are taken for done."""
        with self._lock:
            while self._unnamed and not self._unnamed < self._taken - self._gone - self._marked <= MOST_UNNAMED:
                oldest = self._holds.oldest()
                if not oldest:  # another thread is about to get one
                    return
                # Fewer without a name before one more with it: in between too many are unfinished, which does no harm.
                self._words[UNNAMED] = self._unnamed = self._unnamed - 1
                self._finish_oldest(oldest)

    def _finish(self, first: int, last: int) -> None:
        """Note that consecutive items are finished. The last thing that is done here is the store that says so."""
        while True:
            done = self._done
            if first == done + 1:
                self._words[DONE] = last
                self._done = last
                return
            if first <= done:
                break
            self._log(KEPT, done + 1, last, done)  # let DONE pass what others have in hand
        self._log(FINISHED, first, last)

    def _log(self, kind: int, first: int, last: int, done: int = -1) -> None:
        """Write an entry to the log. The last thing that is done here is the store that commits it.

        If `done` is given, and DONE is still there, it passes these items.
        """
        words = self._words
        while True:
            logged = self._logged
            at = LOG + 2 * (logged % LOG_ENTRIES)
            if logged - words[SEEN] >= LOG_ENTRIES:
                self._call(Kind.ASK)  # the broker reads the log before it answers
            elif logged == self._logged:  # and no call from here on
                if 0 <= done != self._done:
                    return
                words[at] = kind | first
                words[at + 1] = last
                words[LOGGED] = logged + 1
                self._logged = logged + 1
                if done >= 0:
                    words[DONE] = last
                    self._done = last
                return

    # -- other requests ------------------------------------------------------------------------------------

    def numbers(self) -> talk.Numbers:
        self._tidy()
        return talk.read_numbers(self._call(Kind.ASK)[1])

    def shut(self, at_once: bool) -> None:
        self._call(Kind.SHUT, first=at_once)

    def join(self, deadline: float | None) -> bool:
        """Wait until nothing is unfinished; return whether that came about."""
        self._tidy()
        return self._call(Kind.JOIN, deadline=deadline)[0] == Outcome.OK

    def _tidy(self) -> None:
        """Return to the queue what an interruption, and another one on top of it, has left."""
        if self._returned:
            with self._lock:
                self._return_items()

    def _is_served(self, question: Question) -> bool:
        if question is self._more:
            return self._left > 0
        return self._writer.count < self._words[ROOM]

    # -- what the broker says ------------------------------------------------------------------------------

    def _take_in(self, message: talk.Message, data: bytes, descriptors: list[int]) -> None:
        match message.kind:
            case Kind.ITEMS:
                self._take_in_items(message, memoryview(data), descriptors)
            case Kind.NO_ITEMS if message.number == self._more.number:
                self._more.answer(message.first)
            case Kind.ROOM_ANSWER if message.number == self._room.number:
                self._room.answer(message.first)
            case _:
                super()._take_in(message, data, descriptors)
                for descriptor in descriptors:  # of a message that a signal's handler has read in our place
                    os.close(descriptor)

    def _take_in_items(self, message: talk.Message, items: memoryview, descriptors: list[int]) -> None:
        more, is_parcel = self._more, bool(message.second)
        parcel = descriptors[0] if descriptors and is_parcel else -1
        if message.number != more.number or not more.asked:  # for one that was interrupted, and has asked again
            for descriptor in descriptors:
                os.close(descriptor)
            return
        # No call from here on: these items are begun with once.
        self._items = items
        self._at = talk.MESSAGE_BYTES
        self._parcel = parcel
        self._left = message.first if is_parcel == (parcel >= 0) else 0  # without it, ask again
        more.outcome = _OK
        more.answers += 1
        more.asked = 0
