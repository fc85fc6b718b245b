"""`leased`: the queue that loses nothing when a worker dies, and blocks nobody.

Each worker has a private socket to the supervisor, which alone knows what waits and who has what. So no worker can
die with something that another one needs: a death is the end of one socket. What decides is pure and lies beside
this (`leases.py`, `credit.py`, `pace.py`); here are the sockets.

Called in the supervisor's loop, and in no other thread but for `statistics`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from conveyor.descriptors import Descriptor
from conveyor.ledger import Row, Tally
from conveyor.queues import wire
from conveyor.queues.arena import Window, new_memory
from conveyor.queues.codec import Codec
from conveyor.queues.credit import Credit
from conveyor.queues.effigy import likeness
from conveyor.queues.leased_ends import LeasedIntake, LeasedOutlet, pair
from conveyor.queues.leases import Lease, Leases, Span, StoredChunk, Suspect
from conveyor.queues.pace import LEASE_NS, Pace
from conveyor.queues.relief import Relief
from conveyor.queues.seam import Casualty, Counts, Intake, Outlet
from conveyor.queues.setup import Setup
from conveyor.queues.wire import Kind
from conveyor.snapshot import QueueStatistics, RedeliveryReason

# Of all payloads that wait, or are in hand; a producer beyond its share waits for room. Arbitrary: enough to keep
# consumers busy with tasks of a megabyte, small beside what a container has.
LIMIT_BYTES = 64 << 20

_CODECS = tuple(Codec)  # by number; to call the enum takes longer


@dataclass(slots=True, eq=False)
class _Producer:
    """A producer process's end here, and the chunks that lie in its memory."""

    slot: int
    line: socket.socket | None
    memory: int
    chunks: int = 0
    known_to: set[int] = field(default_factory=set)
    """Slots of the consumers that have the memory mapped."""


class LeasedTaskQueue:
    """The queue as its supervisor sees it."""

    kind = "leased"
    can_break = False
    can_be_steered = True

    def __init__(self, setup: Setup) -> None:
        self.capacity = setup.capacity
        self._rows = setup.rows
        self._loop = setup.loop
        self._limit_bytes = LIMIT_BYTES // max(1, setup.producers)
        self._pace = Pace()
        self._leases = Leases(setup.max_attempts, self._pace)
        self._credit = Credit(setup.capacity)
        self._producers: dict[int, _Producer] = {}  # by the number of their arena
        self._arenas = 0
        self._arena_of: dict[int, int] = {}  # of the process in a slot
        self._consumers: dict[int, socket.socket] = {}
        self._handed_over: dict[int, list[Descriptor]] = {}
        self._unsettled = 0
        self._results = setup.results
        self._windows: dict[int, Window] = {}
        """The memory in which a consumer keeps its results."""
        self._settled: dict[int, int] = {}
        self._news: Callable[[], None] | None = None
        self._relief = Relief(self._leases, setup.rows, setup.loop, self._wait_again)
        self._is_pumping = False
        self._is_paused = False
        # Written here, read by any thread.
        self._redelivered = 0
        self._redeliveries = dict.fromkeys(RedeliveryReason, 0)
        self._dead_lettered = 0

    # -- processes come and go -----------------------------------------------------------------------------

    def outlet(self, slot: int) -> Outlet:
        self._arenas += 1
        ours, theirs = pair()
        producer = _Producer(slot, ours, new_memory())
        self._producers[self._arenas] = producer
        self._arena_of[slot] = self._arenas
        self._credit.open(self._arenas)
        self._loop.watch(ours.fileno(), functools.partial(self._on_producer, self._arenas, producer, ours))
        self._handed_over[slot] = [theirs]
        return LeasedOutlet(theirs, Descriptor(producer.memory), self._limit_bytes)

    def intake(self, slot: int) -> Intake:
        ours, theirs = pair()
        self._consumers[slot] = ours
        self._loop.watch(ours.fileno(), functools.partial(self._on_consumer, slot, ours))
        self._handed_over[slot] = [theirs]
        if self._results is None:
            return LeasedIntake(theirs, None)
        memory = new_memory()
        unused = self._windows.pop(slot, None)  # of a process that never was
        if unused is not None:
            unused.close()
        self._windows[slot] = Window(memory)
        return LeasedIntake(theirs, Descriptor(memory))

    def started(self, slot: int) -> None:
        for descriptor in self._handed_over.pop(slot, []):
            descriptor.close()

    def bury(self, slot: int, row: Row, tally: Tally) -> Casualty | None:
        if slot in self._arena_of:
            self._bury_producer(self._arena_of.pop(slot))
            return None
        line = self._consumers.pop(slot, None)
        if line is None:
            return None
        while self._read_consumer(slot, line):
            pass
        self._hang_up(line)
        for producer in self._producers.values():
            producer.known_to.discard(slot)
        done, again, suspect = self._leases.bury(slot, tally.processed, tally.lease if tally.in_progress else 0)
        reason = RedeliveryReason.TIMEOUT if row.is_out_of_time else RedeliveryReason.DEATH
        casualty = self._casualty(suspect, reason) if suspect else None
        self._rescue_results(slot, sum(span.tasks for span in done) - bool(suspect and suspect.is_dead_letter))
        self._wait_again(again)
        for span in done:
            self._settle(span)
        self._pump_soon()
        return casualty

    def _bury_producer(self, arena: int) -> None:
        producer = self._producers.get(arena)  # None if it had ended and all that it left is done
        if producer is not None and producer.line is not None:
            while self._read_producer(arena, producer, producer.line):
                pass
            self._close_producer(arena, producer)
        self._pump_soon()

    def _close_producer(self, arena: int, producer: _Producer) -> None:
        """End with a producer that has sent its last; its chunks stay."""
        if producer.line is not None:
            self._hang_up(producer.line)
            producer.line = None
            self._credit.close(arena)
            self._forget(arena, producer)

    def _forget(self, arena: int, producer: _Producer) -> None:
        """Give a dead producer's memory back once all its chunks are done."""
        if producer.line is not None or producer.chunks:
            return
        del self._producers[arena]
        self._credit.forget(arena)
        os.close(producer.memory)
        for slot in producer.known_to & self._consumers.keys():  # the one that is being buried is not among them
            with contextlib.suppress(BlockingIOError):  # one that is stopped keeps its mapping
                _send(self._consumers[slot], wire.forget(arena))

    def _hang_up(self, line: socket.socket) -> None:
        self._loop.unwatch(line.fileno())
        line.close()

    # -- what they say -------------------------------------------------------------------------------------

    def _on_producer(self, arena: int, producer: _Producer, line: socket.socket) -> None:
        if not self._read_producer(arena, producer, line):
            self._close_producer(arena, producer)
        self._pump_soon()

    def _read_producer(self, arena: int, producer: _Producer, line: socket.socket) -> bool:
        """Read one message; return whether there was one, and not the end."""
        data = _receive(line)
        if not data:
            return False
        if data[0] == Kind.OFFER:
            offer = wire.read_offer(data)
            chunk = StoredChunk(
                arena, offer.chunk, _CODECS[offer.codec], offer.tasks, offer.offset, offer.size, offer.offered_ns,
                offer.tasks,
            )  # fmt: skip
            self._leases.accept(chunk)
            self._credit.offered(arena, offer.tasks)
            producer.chunks += 1
            self._unsettled += offer.tasks
            self._rows[producer.slot].accept(offer.tasks)
            if not offer.wants:
                return True
        self._credit.want(arena)
        return True

    def _on_consumer(self, slot: int, line: socket.socket) -> None:
        if not self._read_consumer(slot, line):
            self._loop.unwatch(line.fileno())  # its process has ended; `bury` follows
        self._pump_soon()

    def _read_consumer(self, slot: int, line: socket.socket) -> bool:
        """Read one message; return whether there was one, and not the end."""
        data = _receive(line)
        if not data:
            return False
        if data[0] == Kind.READY:
            self._leases.join(slot, self._rows[slot].read(0).processed)
            return True
        report = wire.read_done(data)
        result = self._leases.report(slot, report.number, report.done)
        if result is not None:
            span, handed_back = result
            self._read_results(slot, report.results)
            self._settled[slot] = report.number
            self._relief.reported(slot)
            self._pace.learn(report.done, report.took_ns)
            if handed_back:
                self._credit.leased(span.chunk.arena, -handed_back)
            self._settle(span)
        return True

    def _read_results(self, slot: int, places: Sequence[int]) -> None:
        """Pass results on; their places are pairs of offset and size."""
        if self._results is not None and places:
            view = self._windows[slot].view
            self._results.add([bytes(view(offset, size)) for offset, size in _pairs(places)])

    def _rescue_results(self, slot: int, tasks: int) -> None:
        """Pass on what a dead consumer had kept and not reported: that of so many tasks."""
        window = self._windows.pop(slot, None)
        if window is None:
            return
        if self._results is not None and tasks:
            places = window.view(0, 16 * tasks).cast("Q").tolist()
            self._results.add([bytes(window.view(offset, size)) for offset, size in _pairs(places)])
        window.close()

    def _wait_again(self, spans: Iterable[Span]) -> None:
        """Count tasks that came back as waiting, and give them out."""
        for span in spans:
            self._credit.leased(span.chunk.arena, -span.tasks)
        self._pump_soon()

    def _settle(self, span: Span) -> None:
        """Take note that these tasks are over."""
        self._unsettled -= span.tasks
        if not span.chunk.left and not span.chunk.is_freed:
            span.chunk.is_freed = True
            arena = span.chunk.arena
            producer = self._producers[arena]
            producer.chunks -= 1
            if producer.line is None:
                self._forget(arena, producer)
            else:
                self._credit.freed(arena, span.chunk.number)
        if not self._unsettled and self._news is not None:
            self._news()

    # -- what they are told --------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.after_all(self._pump)

    def _pump(self) -> None:
        """Give out all that can be given out now."""
        self._is_pumping = False
        is_open = not self._is_paused and (self._results is None or self._results.has_room)
        if is_open and self._leases.may_grant:
            for slot, lease in self._leases.grants(time.monotonic_ns()):
                self._credit.leased(lease.span.chunk.arena, lease.span.tasks)
                self._send_lease(slot, lease)
        if self._credit.is_wanted:
            wanted = self._pace.chunk(self._credit.share)
            for answer in self._credit.answers(wanted):
                line = self._producers[answer.producer].line
                if line is not None:
                    _send(line, wire.credit(wire.Credit(answer.tasks, wanted, answer.freed)))
        self._relief.look_later()

    def _send_lease(self, slot: int, lease: Lease) -> None:
        span, chunk = lease.span, lease.span.chunk
        producer = self._producers[chunk.arena]
        message = wire.grant(
            wire.Grant(
                chunk.codec, lease.number, chunk.arena, chunk.count, span.first, span.last, chunk.offset, chunk.size,
                chunk.offered_ns, LEASE_NS, self._settled.get(slot, 0),
            )
        )  # fmt: skip
        if slot in producer.known_to:
            _send(self._consumers[slot], message)
        else:
            producer.known_to.add(slot)
            _send(self._consumers[slot], message, producer.memory)

    # -- deaths --------------------------------------------------------------------------------------------

    def _casualty(self, suspect: Suspect, reason: RedeliveryReason) -> Casualty:
        if suspect.is_dead_letter:
            self._dead_lettered += 1
        else:
            self._redelivered += 1
            self._redeliveries[reason] += 1
        chunk = suspect.chunk
        window = Window(os.dup(self._producers[chunk.arena].memory))
        try:
            task = likeness(chunk.codec, window.view(chunk.offset, chunk.size), chunk.count, suspect.place)
        finally:
            window.close()
        casualty = Casualty(task=task, attempt=suspect.attempt, is_dead_letter=suspect.is_dead_letter)
        if casualty.is_dead_letter and self._results is not None:
            self._results.add_dead_letter(casualty)
        return casualty

    # -- for the supervisor --------------------------------------------------------------------------------

    def finish(self, consumers: int, news: Callable[[], None]) -> None:
        self._news = news
        if not self._unsettled:
            news()

    def notice_room(self) -> None:
        self._pump_soon()

    def retire(self, slot: int) -> None:
        self._leases.retire(slot)

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._pump_soon()

    def is_empty(self) -> bool:
        return self._leases.is_empty

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        unfinished = max(0, counts.put - counts.processed - self._dead_lettered)
        return QueueStatistics(
            name=self.kind,
            capacity=self.capacity,
            waiting=max(0, unfinished - counts.in_progress - lost_in_transit),
            in_progress=counts.in_progress,
            unfinished=unfinished,
            lost=lost_in_transit,
            redelivered=self._redelivered,
            dead_lettered=self._dead_lettered,
            redeliveries=dict(self._redeliveries),
            is_paused=self._is_paused,
        )

    def dispose(self) -> None:
        for slot in list(self._handed_over):
            self.started(slot)
        for producer in self._producers.values():
            if producer.line is not None:
                self._hang_up(producer.line)
            os.close(producer.memory)
        for line in self._consumers.values():
            self._hang_up(line)
        for window in self._windows.values():
            window.close()
        self._producers.clear()
        self._consumers.clear()
        self._windows.clear()
        self._news = None  # or a ring would keep the ledger open until the next collection of garbage
        del self._relief  # likewise


def _pairs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=True)


def _receive(line: socket.socket) -> bytes:
    """Return a message, or nothing if there is none or will be none."""
    while True:
        try:
            return line.recv(wire.MAX_BYTES)
        except BlockingIOError:
            return b""
        except ConnectionError:
            # It has ended without reading all that we had sent. The kernel says so once, before what it had sent us.
            continue


def _send(line: socket.socket, message: bytes, descriptor: int | None = None) -> None:
    """Send to a worker. One that is gone is not told; its death is on its way to us."""
    try:
        if descriptor is None:
            line.send(message)
        else:
            socket.send_fds(line, [message], [descriptor])
    except ConnectionError:
        pass
