"""`leased`: the queue that loses nothing when a worker dies, and blocks nobody.

Each worker has a private socket to the supervisor, which alone knows what waits and who has what. So no worker can
die with something that another one needs: a death is the end of one socket. What decides is pure and lies beside
this (`leases.py`, `credit.py`, `pace.py`), as what is kept does (`memories.py`, `harvest.py`, `mishaps.py`); here is
who says what to whom.

Called in the supervisor's loop, and in no other thread but for `statistics`.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from conveyor.descriptors import Descriptor
from conveyor.ledger import Closed, Flaw, Row, State, Tally
from conveyor.queues import wire
from conveyor.queues.codec import Codec
from conveyor.queues.credit import Credit
from conveyor.queues.harvest import Harvest
from conveyor.queues.leased_ends import LeasedIntake, LeasedOutlet, pair
from conveyor.queues.leases import OWN_ARENA, Failed, Lease, Leases, Returned, Span, StoredChunk
from conveyor.queues.letters import DeadLetter, DeadLetters, LettersInMemory
from conveyor.queues.lines import receive, send
from conveyor.queues.memories import Memories, Memory
from conveyor.queues.mishaps import Mishaps
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

_CODECS = tuple(Codec)  # by number; to call the enum takes longer


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
        self._memories = Memories()
        self._lines: dict[int, socket.socket] = {}
        """By arena, to the producers that are alive."""
        self._arena_of: dict[int, int] = {}  # of the process in a slot
        self._consumers: dict[int, socket.socket] = {}
        self._handed_over: dict[int, list[Descriptor]] = {}
        self._harvest = Harvest(setup.results) if setup.results is not None else None
        self._settled: dict[int, int] = {}
        self._name = setup.name
        self.letters: DeadLetters = LettersInMemory()
        self._backlog: Backlog | None = None
        if setup.spool is not None and restored is not None:
            # Imported only where it is used: SQLite takes as long to import as the rest of a worker.
            from conveyor.queues.backlog import Backlog

            self._backlog = Backlog(setup.spool, restored, self._memories.own, setup.loop, self._pump_soon)
            self.letters = self._backlog.letters
        before = restored.run if restored is not None else None
        self._mishaps = Mishaps(self._memories, self.letters, setup.results, before)
        self._told: dict[int, wire.Failed] = {}
        """How a task raised, of which a consumer is about to report."""
        self._alarm_ns = NEVER
        self._news: Callable[[], None] | None = None
        self._relief = Relief(self._leases, setup.rows, setup.loop, self._wait_again)
        self._is_pumping = False
        self._is_paused = False

    # -- processes come and go -----------------------------------------------------------------------------

    def outlet(self, slot: int) -> Outlet:
        if self._backlog is not None:
            self._backlog.enrol(slot, self._name(slot), Role.PRODUCER)
        arena = self._arena_of[slot] = self._memories.open(slot)
        memory = self._memories.by_arena[arena]
        ours, theirs = pair()
        self._lines[arena] = ours
        self._credit.open(arena)
        self._loop.watch(ours.fileno(), functools.partial(self._on_producer, arena, memory, ours))
        self._handed_over[slot] = [theirs]
        max_bytes = self._backlog.store.max_payload_bytes if self._backlog is not None else None
        return LeasedOutlet(theirs, Descriptor(memory.descriptor), self._limit_bytes, max_bytes)

    def intake(self, slot: int) -> Intake:
        if self._backlog is not None:
            self._backlog.enrol(slot, self._name(slot), Role.CONSUMER)
        unused = self._consumers.pop(slot, None)  # of a process that could not be started
        if unused is not None:
            self._hang_up(unused)
        ours, theirs = pair()
        self._consumers[slot] = ours
        self._loop.watch(ours.fileno(), functools.partial(self._on_consumer, slot, ours))
        self._handed_over[slot] = [theirs]
        return LeasedIntake(theirs, self._harvest.open(slot) if self._harvest is not None else None)

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
        self._memories.forget(slot)
        number = self._leases.first_number(slot)
        closed = row.outcome(number) if number else Closed(0, Flaw.NONE)
        is_in_task = bool(tally.in_progress) and tally.lease == number and not closed.flaw
        back = self._leases.bury(slot, closed, is_in_task, time.monotonic_ns())
        row.close_for_dead(number, closed)
        if self._harvest is not None:
            self._harvest.rescue(slot, closed.done + (closed.flaw is Flaw.FINAL))
        casualty = None
        if back.suspect is not None:
            casualty = self._mishaps.died(back.suspect, end)
            if not casualty.is_dead_letter:
                self._wait_again([back.suspect.span])
        self._take_back(back, self._told.pop(slot, None), end.slot)
        if self._backlog is not None:
            if back.suspect is not None:
                self._backlog.touch(back.suspect.span.chunk)
                self._backlog.count(self._mishaps.counted())
            self._backlog.settle(slot, self._leases.last_number(slot))
        return casualty

    def _bury_producer(self, arena: int) -> None:
        line = self._lines.get(arena)  # None if we have read its last, and its end
        if line is not None:
            memory = self._memories.by_arena[arena]
            while self._read_producer(arena, memory, line):
                pass
            self._write()  # so that what it has put counts before anybody asks whether all is done
            self._close_producer(arena)
        self._pump_soon()

    def _close_producer(self, arena: int) -> None:
        """End with a producer that has sent its last; its chunks stay."""
        line = self._lines.pop(arena, None)
        if line is not None:
            self._hang_up(line)
            self._credit.close(arena)
            self._forget(arena)

    def _forget(self, arena: int) -> None:
        """Give a dead producer's memory back once all its chunks are done."""
        if arena in self._lines or self._memories.by_arena[arena].chunks:
            return
        self._credit.forget(arena)
        mapped = self._memories.give_back(arena)
        for slot in mapped & self._consumers.keys():  # the one that is being buried is not among them
            with contextlib.suppress(BlockingIOError):  # one that is stopped keeps its mapping
                send(self._consumers[slot], wire.forget(arena))

    def _hang_up(self, line: socket.socket) -> None:
        self._loop.unwatch(line.fileno())
        line.close()

    # -- what they say -------------------------------------------------------------------------------------

    def _on_producer(self, arena: int, memory: Memory, line: socket.socket) -> None:
        if not self._read_producer(arena, memory, line):
            self._close_producer(arena)
        self._pump_soon()

    def _read_producer(self, arena: int, memory: Memory, line: socket.socket) -> bool:
        """Read one message; return whether there was one, and not the end."""
        data = receive(line)
        if not data:
            return False
        if data[0] == Kind.OFFER:
            offer = wire.read_offer(data)
            chunk = StoredChunk(
                arena, offer.chunk, _CODECS[offer.codec], offer.tasks, offer.offset, offer.size, offer.offered_ns,
                offer.tasks, account=arena,
            )  # fmt: skip
            memory.chunks += 1
            self._unsettled += offer.tasks
            if self._backlog is None:
                self._leases.accept(chunk)
                self._count_put(memory.slot, chunk)
            else:
                self._backlog.offer(chunk, memory.slot, memory.payload(chunk))
            if not offer.wants:
                return True
        self._credit.want(arena)
        return True

    def _count_put(self, slot: int, chunk: StoredChunk) -> None:
        self._credit.offered(chunk.account, chunk.count)
        self._rows[slot].accept(chunk.count)

    def _write(self) -> None:
        """Write what producers have offered into the spool, and accept it."""
        if self._backlog is None:
            return
        for incoming in self._backlog.write():
            chunk = incoming.chunk
            slot = self._memories.by_arena[chunk.arena].slot
            self._count_put(slot, chunk)  # first: its producer may be gone but for this chunk
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
        data = receive(line)
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
            if self._harvest is not None:
                self._harvest.read(slot, report.results)
            self._settled[slot] = report.number
            if self._backlog is not None:
                self._backlog.settle(slot, report.number)
            self._relief.reported(slot)
            self._pace.learn(report.done + report.has_failed, report.took_ns)
            self._take_back(back, told, self._name(slot))

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
        self._mishaps.raised(failed, told, worker)
        if self._backlog is not None and not failed.is_final:
            self._backlog.count(self._mishaps.counted())

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
            self._memories.own.free(chunk.offset, chunk.size)
            return
        self._memories.by_arena[chunk.arena].chunks -= 1
        if chunk.arena in self._lines:
            self._credit.freed(chunk.arena, chunk.number)
        else:
            self._forget(chunk.arena)

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
        is_open = not self._is_paused and (self._harvest is None or self._harvest.has_room)
        if is_open and self._may_grant:
            for slot, lease in self._leases.grants(time.monotonic_ns()):
                self._credit.leased(lease.span.chunk.account, lease.span.tasks)
                self._send_lease(slot, lease)
        if self._credit.is_wanted and not (self._backlog is not None and self._backlog.is_stuck):
            wanted = self._pace.chunk(self._credit.share, self._unsettled)
            for answer in self._credit.answers(wanted):
                line = self._lines.get(answer.producer)
                if line is not None:
                    send(line, wire.credit(wire.Credit(answer.tasks, wanted, answer.freed)))
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
        memory = self._memories.by_arena[chunk.arena]
        message = wire.grant(
            wire.Grant(
                chunk.codec, lease.number, chunk.arena, chunk.count, span.first, span.last, chunk.offset, chunk.size,
                chunk.offered_ns, LEASE_NS, self._settled.get(slot, 0), self._leases.tries_left(span),
            )
        )  # fmt: skip
        if slot in memory.known_to:
            send(self._consumers[slot], message)
        else:
            memory.known_to.add(slot)
            send(self._consumers[slot], message, memory.descriptor)

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
        offset = self._memories.own.write([letter.payload], len(letter.payload))
        assert offset is not None
        chunk = StoredChunk(OWN_ARENA, 0, letter.codec, 1, offset, len(letter.payload), time.monotonic_ns(), 1)
        self._mishaps.revived(1)
        is_in_memory = True
        try:
            if self._backlog is None:
                self.letters.remove([letter.number])
            else:
                is_in_memory = self._backlog.adopt(chunk, letter, self._mishaps.counted())
        except OSError:
            self._mishaps.revived(-1)
            self._memories.own.free(offset, chunk.size)
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
        mishaps = self._mishaps
        unfinished = max(0, counts.put + mishaps.added - counts.processed - mishaps.dead_lettered)
        return QueueStatistics(
            name=self.kind,
            capacity=self.capacity,
            waiting=max(0, unfinished - counts.in_progress - lost_in_transit),
            in_progress=counts.in_progress,
            unfinished=unfinished,
            lost=lost_in_transit,
            redelivered=mishaps.redeliveries[RedeliveryReason.DEATH] + mishaps.redeliveries[RedeliveryReason.TIMEOUT],
            dead_lettered=mishaps.dead_lettered,
            redeliveries=dict(mishaps.redeliveries),
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
        for line in (*self._lines.values(), *self._consumers.values()):
            self._hang_up(line)
        self._memories.close()
        if self._harvest is not None:
            self._harvest.close()
        self._lines.clear()
        self._consumers.clear()
        self._news = None  # or a ring would keep the ledger open until the next collection of garbage
        del self._relief  # likewise


def _seconds_since(then_ns: int | None) -> float:
    # Not below 0: when a task of an earlier start was put is known by a clock that may have been set back since.
    return max(0.0, (time.monotonic_ns() - then_ns) / 1e9) if then_ns is not None else 0.0
