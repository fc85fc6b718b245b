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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from conveyor.descriptors import Descriptor
from conveyor.ledger import Closed, Flaw, Row, State, Tally
from conveyor.queues import wire
from conveyor.queues.arena import NO_LIMIT, Arena, Window, new_memory
from conveyor.queues.codec import Codec, alone
from conveyor.queues.credit import Credit
from conveyor.queues.effigy import likeness
from conveyor.queues.leased_ends import LeasedIntake, LeasedOutlet, pair
from conveyor.queues.leases import OWN_ARENA, Failed, Lease, Leases, Returned, Span, StoredChunk, Suspect
from conveyor.queues.letters import Cause, Counted, DeadLetter, DeadLetters, LettersInMemory
from conveyor.queues.pace import LEASE_NS, Pace
from conveyor.queues.relief import Relief
from conveyor.queues.seam import Casualty, Counts, End, Intake, Outlet
from conveyor.queues.setup import Setup
from conveyor.queues.wire import Kind
from conveyor.snapshot import QueueStatistics, RedeliveryReason, Role

# Of all payloads that wait, or are in hand; a producer beyond its share waits for room. Arbitrary: enough to keep
# consumers busy with tasks of a megabyte, small beside what a container has.
LIMIT_BYTES = 64 << 20

if TYPE_CHECKING:
    from conveyor.queues.backlog import Backlog

NEVER = 1 << 62  # nanoseconds
UNTOLD = wire.Failed("unknown", "its consumer died before it could tell", "")

_CODECS = tuple(Codec)  # by number; to call the enum takes longer


@dataclass(slots=True, eq=False)
class _Producer:
    """A producer process's end here, and the chunks that lie in its memory."""

    slot: int
    line: socket.socket | None
    memory: int
    chunks: int = 0
    window: Window | None = None
    known_to: set[int] = field(default_factory=set)
    """Slots of the consumers that have the memory mapped."""

    def payload(self, chunk: StoredChunk) -> memoryview:
        """Return what a chunk holds."""
        if self.window is None:
            self.window = Window(os.dup(self.memory))
        return self.window.view(chunk.offset, chunk.size)

    def close(self) -> None:
        if self.window is not None:
            self.window.close()
        os.close(self.memory)


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
        self._leases = Leases(setup.max_attempts, self._pace, setup.retries)
        restored = setup.restored
        self._unsettled = restored.unfinished if restored is not None else 0
        self._credit = Credit(setup.capacity, self._unsettled)
        self._producers: dict[int, _Producer] = {}  # by the number of their arena
        own = _Producer(-1, None, new_memory(), chunks=1)  # never without a chunk: it is never given back
        self._producers[OWN_ARENA] = own
        self._own = Arena(own.memory, NO_LIMIT)
        self._arenas = OWN_ARENA
        self._arena_of: dict[int, int] = {}  # of the process in a slot
        self._consumers: dict[int, socket.socket] = {}
        self._handed_over: dict[int, list[Descriptor]] = {}
        self._results = setup.results
        self._windows: dict[int, Window] = {}
        """The memory in which a consumer keeps its results."""
        self._settled: dict[int, int] = {}
        self._name = setup.name
        self.letters: DeadLetters = LettersInMemory()
        self._backlog: Backlog | None = None
        if setup.spool is not None and restored is not None:
            # Imported only where it is used: SQLite takes as long to import as the rest of a worker.
            from conveyor.queues.backlog import Backlog

            self._backlog = Backlog(setup.spool, restored, self._own, setup.loop, self._pump_soon)
            self.letters = self._backlog.letters
        self._told: dict[int, wire.Failed] = {}
        """How a task raised, of which a consumer is about to report."""
        self._alarm_ns = NEVER
        self._news: Callable[[], None] | None = None
        self._relief = Relief(self._leases, setup.rows, setup.loop, self._wait_again)
        self._is_pumping = False
        self._is_paused = False
        # Written here, read by any thread.
        self._redeliveries = dict.fromkeys(RedeliveryReason, 0)
        self._dead_lettered = self._added = 0
        if restored is not None:
            self._redeliveries |= {RedeliveryReason(name): n for name, n in restored.run.redeliveries.items()}
            self._dead_lettered, self._added = restored.run.dead_lettered, restored.run.added
        """Tasks beyond those that producers have put: dead letters that are tried again."""

    # -- processes come and go -----------------------------------------------------------------------------

    def outlet(self, slot: int) -> Outlet:
        if self._backlog is not None:
            self._backlog.enrol(slot, self._name(slot), Role.PRODUCER)
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
        if self._backlog is not None:
            self._backlog.enrol(slot, self._name(slot), Role.CONSUMER)
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

    def bury(self, slot: int, row: Row, tally: Tally, end: End) -> Casualty | None:
        if slot in self._arena_of:
            self._bury_producer(self._arena_of.pop(slot))
            if self._backlog is not None and tally.state is State.FINISHED:
                self._backlog.finish_producer(slot)
            return None
        line = self._consumers.pop(slot, None)
        if line is None:
            return None
        while self._read_consumer(slot, line):
            pass
        self._hang_up(line)
        for producer in self._producers.values():
            producer.known_to.discard(slot)
        number = self._leases.first_number(slot)
        closed = row.outcome(number) if number else Closed(0, Flaw.NONE)
        is_in_task = bool(tally.in_progress) and tally.lease == number and not closed.flaw
        back = self._leases.bury(slot, closed, is_in_task, time.monotonic_ns())
        row.close_for_dead(number, closed)
        self._rescue_results(slot, closed.done + (closed.flaw is Flaw.FINAL))
        casualty = self._casualty(back.suspect, end) if back.suspect else None
        self._take_back(back, self._told.pop(slot, None), end.slot)
        if self._backlog is not None:
            if back.suspect is not None:
                self._backlog.touch(back.suspect.span.chunk)
                self._backlog.count(self._counts())
            self._backlog.settle(slot, self._leases.last_number(slot))
        return casualty

    def _bury_producer(self, arena: int) -> None:
        producer = self._producers.get(arena)  # None if it had ended and all that it left is done
        if producer is not None and producer.line is not None:
            while self._read_producer(arena, producer, producer.line):
                pass
            self._write()  # so that what it has put counts before anybody asks whether all is done
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
        producer.close()
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
                offer.tasks, account=arena,
            )  # fmt: skip
            producer.chunks += 1
            self._unsettled += offer.tasks
            if self._backlog is None:
                self._leases.accept(chunk)
                self._count_put(producer, chunk)
            else:
                self._backlog.offer(chunk, producer.slot, producer.payload(chunk))
            if not offer.wants:
                return True
        self._credit.want(arena)
        return True

    def _count_put(self, producer: _Producer, chunk: StoredChunk) -> None:
        self._credit.offered(chunk.account, chunk.count)
        self._rows[producer.slot].accept(chunk.count)

    def _write(self) -> None:
        """Write what producers have offered into the spool, and accept it."""
        if self._backlog is None:
            return
        for incoming in self._backlog.write():
            chunk = incoming.chunk
            self._count_put(self._producers[chunk.arena], chunk)  # first: its producer may be gone but for this chunk
            if self._backlog.keep_in_memory(chunk):
                self._leases.accept(chunk)
            else:
                self._free(chunk)

    def _load(self) -> None:
        """Have some of what is on disk alone in memory, if there is room."""
        if self._backlog is None:
            return
        has_loaded = False
        for chunk, done in self._backlog.load(is_urgent=self._leases.may_want):
            self._leases.accept(chunk, done)
            has_loaded = True
        if has_loaded and self._backlog.tasks_on_disk:
            self._loop.after(0.0, self._pump_soon)  # more of it in the next turn, if there is room

    def _on_consumer(self, slot: int, line: socket.socket) -> None:
        if not self._read_consumer(slot, line):
            self._loop.unwatch(line.fileno())  # its process has ended; `bury` follows
        self._pump_soon()

    def _read_consumer(self, slot: int, line: socket.socket) -> bool:
        """Read one message; return whether there was one, and not the end."""
        data = _receive(line)
        if not data:
            return False
        match data[0]:
            case Kind.READY:
                self._leases.join(slot)
            case Kind.FAILED:
                self._told[slot] = wire.read_failed(data)
            case _:
                self._read_report(slot, wire.read_done(data))
        return True

    def _read_report(self, slot: int, report: wire.Done) -> None:
        told = self._told.pop(slot, None)
        closed = Closed(report.done, Flaw.NONE)
        if report.has_failed:
            closed = self._rows[slot].closed(report.number) or closed
        back = self._leases.report(slot, report.number, closed, time.monotonic_ns())
        if back is not None:
            self._read_results(slot, report.results)
            self._settled[slot] = report.number
            if self._backlog is not None:
                self._backlog.settle(slot, report.number)
            self._relief.reported(slot)
            self._pace.learn(report.done + report.has_failed, report.took_ns)
            self._take_back(back, told, self._name(slot))

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

    def _take_back(self, back: Returned, told: wire.Failed | None, worker: str) -> None:
        """See to what has come back from a consumer."""
        self._wait_again(back.again)
        if back.failed is not None:
            self._take_failed(back.failed, told, worker)
        for span in back.done:
            self._settle(span)

    def _take_failed(self, failed: Failed, told: wire.Failed | None, worker: str) -> None:
        if self._backlog is not None:
            self._backlog.touch(failed.span.chunk)
        if not failed.is_final:
            self._redeliveries[RedeliveryReason.ERROR] += 1
            if self._backlog is not None:
                self._backlog.count(self._counts())
        elif self._results is None:  # else whoever reads the results has it
            told = told or UNTOLD
            letter = self._letter(failed.span, Cause.ERROR, worker)
            self.letters.add(replace(letter, error=told.error, reason=told.reason, trace=told.trace))

    def _wait_again(self, spans: Iterable[Span]) -> None:
        """Count tasks that came back as waiting, and give them out."""
        for span in spans:
            self._credit.leased(span.chunk.account, -span.tasks)
        self._pump_soon()

    def _settle(self, span: Span) -> None:
        """Take note that these tasks are over."""
        chunk = span.chunk
        self._unsettled -= span.tasks
        if self._backlog is not None:
            self._backlog.finish(span)
        if not chunk.left and not chunk.is_freed:
            self._free(chunk)
            if self._backlog is not None:
                self._backlog.end(chunk)
        if not self._unsettled and self._news is not None:
            self._news()

    def _free(self, chunk: StoredChunk) -> None:
        """Give the memory of a chunk back."""
        chunk.is_freed = True
        if chunk.arena == OWN_ARENA:
            self._own.free(chunk.offset, chunk.size)
            return
        producer = self._producers[chunk.arena]
        producer.chunks -= 1
        if producer.line is None:
            self._forget(chunk.arena, producer)
        else:
            self._credit.freed(chunk.arena, chunk.number)

    # -- what they are told --------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.after_all(self._pump)

    def _pump(self) -> None:
        """Give out all that can be given out now."""
        self._is_pumping = False
        self._write()
        self._load()
        self._ripen()
        is_open = not self._is_paused and (self._results is None or self._results.has_room)
        if is_open and self._may_grant:
            for slot, lease in self._leases.grants(time.monotonic_ns()):
                self._credit.leased(lease.span.chunk.account, lease.span.tasks)
                self._send_lease(slot, lease)
        if self._credit.is_wanted and not (self._backlog is not None and self._backlog.is_stuck):
            wanted = self._pace.chunk(self._credit.share, self._unsettled)
            for answer in self._credit.answers(wanted):
                line = self._producers[answer.producer].line
                if line is not None:
                    _send(line, wire.credit(wire.Credit(answer.tasks, wanted, answer.freed)))
        self._relief.look_later()

    @property
    def _may_grant(self) -> bool:
        return self._leases.may_grant and (self._backlog is None or self._backlog.may_grant)

    def _ripen(self) -> None:
        """Have tasks wait again whose next attempt is due, and look again when the next one is."""
        for span in self._leases.ripen(time.monotonic_ns()):
            self._credit.leased(span.chunk.account, -span.tasks)
        due_ns = self._leases.next_due_ns
        if due_ns is not None and due_ns < self._alarm_ns:
            self._alarm_ns = due_ns
            self._loop.after((due_ns - time.monotonic_ns()) / 1e9, self._ring)

    def _ring(self) -> None:
        self._alarm_ns = NEVER
        self._pump_soon()

    def _send_lease(self, slot: int, lease: Lease) -> None:
        if self._backlog is not None:
            self._backlog.give(slot, lease)
        span, chunk = lease.span, lease.span.chunk
        producer = self._producers[chunk.arena]
        message = wire.grant(
            wire.Grant(
                chunk.codec, lease.number, chunk.arena, chunk.count, span.first, span.last, chunk.offset, chunk.size,
                chunk.offered_ns, LEASE_NS, self._settled.get(slot, 0), self._leases.tries_left(span),
            )
        )  # fmt: skip
        if slot in producer.known_to:
            _send(self._consumers[slot], message)
        else:
            producer.known_to.add(slot)
            _send(self._consumers[slot], message, producer.memory)

    # -- deaths --------------------------------------------------------------------------------------------

    def _casualty(self, suspect: Suspect, end: End) -> Casualty:
        """Return the task that a dead consumer had in hand; keep it as a dead letter if it is given up."""
        letter = self._letter(suspect.span, Cause.TIMEOUT if end.is_timeout else Cause.DEATH, end.slot)
        if suspect.is_dead_letter:
            self._dead_lettered += 1
        else:
            self._redeliveries[RedeliveryReason.TIMEOUT if end.is_timeout else RedeliveryReason.DEATH] += 1
            self._wait_again([suspect.span])
        casualty = Casualty(task=letter.task, attempt=suspect.attempt, is_dead_letter=suspect.is_dead_letter)
        if suspect.is_dead_letter and self._results is not None:
            self._results.add_dead_letter(casualty)
        elif suspect.is_dead_letter:
            self.letters.add(replace(letter, error=end.how))
        return casualty

    def _counts(self) -> Counted:
        return Counted(self._added, self._dead_lettered, dict(self._redeliveries))

    def _letter(self, span: Span, cause: Cause, worker: str) -> DeadLetter:
        """Return a letter on one task, of which nobody has yet said what it died of."""
        chunk, place = span.chunk, span.first
        attempts = (chunk.attempts or {}).get(place, 0) + (chunk.failures or {}).get(place, 0)
        payload = self._producers[chunk.arena].payload(chunk)
        codec, alone = _alone(chunk, payload, place)
        task = likeness(chunk.codec, payload, chunk.count, place)
        put_at = time.time() - (time.monotonic_ns() - chunk.offered_ns) / 1e9
        return DeadLetter(cause, task, "", "", "", attempts, worker, put_at, time.time(), codec, alone)

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

    def revive(self, letter: DeadLetter) -> None:
        offset = self._own.write([letter.payload], len(letter.payload))
        assert offset is not None
        chunk = StoredChunk(OWN_ARENA, 0, letter.codec, 1, offset, len(letter.payload), time.monotonic_ns(), 1)
        self._added += 1
        self._redeliveries[RedeliveryReason.REQUEST] += 1
        is_in_memory = True
        try:
            if self._backlog is None:
                self.letters.remove([letter.number])
            else:
                is_in_memory = self._backlog.adopt(chunk, letter, self._counts())
        except OSError:
            self._added -= 1
            self._redeliveries[RedeliveryReason.REQUEST] -= 1
            self._own.free(offset, chunk.size)
            raise
        self._unsettled += 1
        self._credit.leased(chunk.account, -1)
        if is_in_memory:
            self._leases.accept(chunk)
        else:
            self._free(chunk)
        self._pump_soon()

    def is_writing(self) -> bool:
        return self._backlog is not None and self._backlog.is_writing

    def is_empty(self) -> bool:
        return self._leases.is_empty and not (self._backlog is not None and self._backlog.tasks_on_disk)

    def statistics(self, counts: Counts, lost_in_transit: int) -> QueueStatistics:
        unfinished = max(0, counts.put + self._added - counts.processed - self._dead_lettered)
        return QueueStatistics(
            name=self.kind,
            capacity=self.capacity,
            waiting=max(0, unfinished - counts.in_progress - lost_in_transit),
            in_progress=counts.in_progress,
            unfinished=unfinished,
            lost=lost_in_transit,
            redelivered=self._redeliveries[RedeliveryReason.DEATH] + self._redeliveries[RedeliveryReason.TIMEOUT],
            dead_lettered=self._dead_lettered,
            redeliveries=dict(self._redeliveries),
            delayed=self._leases.delayed_tasks,
            dead_letters=len(self.letters),
            oldest_waiting_seconds=_seconds_since(self._leases.oldest_ns),
            is_paused=self._is_paused,
            spool=self._backlog.statistics() if self._backlog is not None else None,
        )

    def dispose(self) -> None:
        if self._backlog is not None:
            self._backlog.flush()
        for slot in list(self._handed_over):
            self.started(slot)
        for producer in self._producers.values():
            if producer.line is not None:
                self._hang_up(producer.line)
            producer.close()
        for line in self._consumers.values():
            self._hang_up(line)
        for window in self._windows.values():
            window.close()
        self._producers.clear()
        self._consumers.clear()
        self._windows.clear()
        self._news = None  # or a ring would keep the ledger open until the next collection of garbage
        del self._relief  # likewise


def _seconds_since(then_ns: int | None) -> float:
    return (time.monotonic_ns() - then_ns) / 1e9 if then_ns is not None else 0.0


def _alone(chunk: StoredChunk, payload: memoryview, place: int) -> tuple[Codec, bytes]:
    try:
        return alone(chunk.codec, payload, chunk.count, place)
    except Exception:  # a worker's pickle can say anything; a letter that cannot be tried again is better than none
        return Codec.APART, b""


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
