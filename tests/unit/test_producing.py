"""A producer's loop, with a queue that keeps what it is offered: what arrives is what was yielded, when it was."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conveyor import producing
from conveyor.errors import TaskNotPicklableError
from conveyor.interruptions import Interruptions, StopRequestedError
from conveyor.ledger import NANOSECONDS, Ledger, Order, Row
from conveyor.producing import CHUNK_BYTES, PLAIN_AFTER, Production
from conveyor.queues.codec import LARGE_BYTES, Chunk, Codec, tasks_of
from support.clock import Clock

MANY = 1000
DEADLINE_SECONDS = 20.0


class Accepted:
    """A chunk as the queue keeps it: bytes, copied when it was offered."""

    def __init__(self, chunk: Chunk) -> None:
        self.codec, self.count = chunk.codec, chunk.count
        self.payload = b"".join(chunk.pieces)
        assert len(self.payload) == chunk.size

    def tasks(self) -> list[Any]:
        return list(tasks_of(self.codec, memoryview(self.payload), self.count, 0, self.count))


class FakeOutlet:
    """A queue's end that accepts everything, or is full for a number of offers."""

    def __init__(self, wanted: int = MANY, *, counts_puts: bool = True) -> None:
        self.counts_puts = counts_puts
        self.max_bytes: int | None = None
        self.want = wanted
        self.refusals = 0
        self.accepted: list[Accepted] = []
        self.offers: list[tuple[Chunk, float]] = []
        self.on_offer: Callable[[FakeOutlet], None] = lambda outlet: None

    def wanted(self) -> int:
        return self.want

    def offer(self, chunk: Chunk, timeout_seconds: float) -> bool:
        self.offers.append((chunk, timeout_seconds))
        if self.refusals:
            self.refusals -= 1
            return False
        self.accepted.append(Accepted(chunk))
        self.on_offer(self)
        return True

    def close(self) -> None: ...

    def tasks(self) -> list[Any]:
        return [task for chunk in self.accepted for task in chunk.tasks()]

    def sizes(self) -> list[int]:
        return [chunk.count for chunk in self.accepted]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which tasks come at once: so batches grow."""
    clock = Clock()
    monkeypatch.setattr(producing, "_now_ns", clock)
    return clock


@pytest.fixture
def unhurried(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The same, and nobody ships a batch before it is whole."""
    monkeypatch.setattr(Production, "_flush_late", lambda self: None)
    return clock


def new_row() -> tuple[Ledger, Row]:
    ledger = Ledger(1)
    return ledger, ledger.rows[0]


def produce(outlet: FakeOutlet, iterator: Iterator[object]) -> Row:
    ledger, row = new_row()
    Production(outlet, row, Interruptions(ledger, row, Order.STOP_PRODUCING)).run(iterator)
    return row


class Point:
    """Has a hash, and can be changed all the same."""

    def __init__(self, x: int) -> None:
        self.x = x


class Reluctant:
    """Cannot be pickled; has a hash."""

    def __reduce__(self) -> Any:
        raise ValueError("not me")

    def __repr__(self) -> str:
        return "Reluctant()"


# -- what is yielded arrives -------------------------------------------------------------------------------

STREAMS: dict[str, list[object]] = {
    "nothing": [],
    "one": [1],
    "numbers": list(range(5000)),
    "texts": [f"包子 {number}" for number in range(3000)],
    "tuples": [(number, "a", (None, 2.5)) for number in range(3000)],
    "lists": [[number] for number in range(1000)],
    "bytes": [bytes([number % 256]) * 1024 for number in range(1000)],
    "large": [bytes([number]) * (LARGE_BYTES + number) for number in range(20)],
    "small and large": [bytes(size) for size in [1, 10, 500_000, 3, 100_000, *([2] * 300), 200_000, 1]],
    "growing": [bytes(1 << power) for power in range(21)],
    "a list among numbers": [*range(1000), [1], *range(1000)],
    "lists among numbers": [[n] if n % 97 == 0 else n for n in range(3000)],
    "frozen sets among numbers": [frozenset([n]) if n % 7 == 0 else n for n in range(500)],
}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(name, wanted) for name, wanted in itertools.product(STREAMS, [2, 7, MANY])],
)
def test_everything_arrives_once_and_in_order(clock: Clock, name: str, wanted: int) -> None:
    outlet = FakeOutlet(wanted)
    produce(outlet, iter(STREAMS[name]))
    assert outlet.tasks() == STREAMS[name]


def test_a_stream_of_plain_tasks_is_pickled_at_once(unhurried: Clock) -> None:
    outlet = FakeOutlet()
    produce(outlet, iter(range(5000)))
    assert {chunk.codec for chunk in outlet.accepted[-3:]} == {Codec.PLAIN}


def test_large_tasks_that_can_change_are_put_one_by_one_before_they_do(unhurried: Clock) -> None:
    outlet = FakeOutlet()
    produce(outlet, iter([bytearray(LARGE_BYTES) for _ in range(20)]))
    assert outlet.accepted[-1].codec is Codec.BUFFERS
    assert outlet.sizes()[-10:] == [1] * 10


def test_large_tasks_that_cannot_change_travel_several_at_a_time(unhurried: Clock) -> None:
    outlet = FakeOutlet()
    produce(outlet, iter([bytes(LARGE_BYTES) for _ in range(20)]))
    assert outlet.accepted[-1].codec is Codec.BUFFERS
    assert max(outlet.sizes()) > 1


def test_a_chunk_is_not_much_larger_than_it_should_be(unhurried: Clock) -> None:
    outlet = FakeOutlet()
    produce(outlet, iter([*([b"a" * 10] * 600), *([b"b" * 5000] * 600)]))
    assert max(len(chunk.payload) for chunk in outlet.accepted) < 1.1 * CHUNK_BYTES


# -- as it was when it was yielded -------------------------------------------------------------------------


def reuse_dict() -> Iterator[object]:
    task: dict[str, int] = {}
    for number in range(300):
        task["number"] = number
        yield task


def reuse_list_in_tuple() -> Iterator[object]:
    inner = [0]
    for number in range(300):
        inner[0] = number
        yield (inner,)


def reuse_buffer() -> Iterator[object]:
    buffer = bytearray(LARGE_BYTES)
    for number in range(20):
        buffer[0] = number
        yield buffer


def reuse_object() -> Iterator[object]:
    point = Point(0)
    for number in range(300):
        point.x = number
        yield point


def numbers_then(make: Callable[[], tuple[object, Callable[[int], None]]]) -> Iterator[object]:
    yield from range(3 * PLAIN_AFTER)
    task, change = make()
    for number in range(200):
        change(number)
        yield task


def list_in_tuple() -> tuple[object, Callable[[int], None]]:
    inner = [0]
    return (1, (inner,)), lambda number: inner.__setitem__(0, number)


def point_in_tuple() -> tuple[object, Callable[[int], None]]:
    point = Point(0)
    return (1, point), lambda number: setattr(point, "x", number)


def point_alone() -> tuple[object, Callable[[int], None]]:
    point = Point(0)
    return point, lambda number: setattr(point, "x", number)


def shown(task: Any) -> object:
    """Return what changes about a task from one to the next."""
    match task:
        case int():
            return None
        case {"number": number}:
            return number
        case (1, (list() as inner,)):
            return inner[0]
        case (1, Point(x=x)) | Point(x=x):
            return x
        case (list() as inner,):
            return inner[0]
        case _:
            return task[0]


@pytest.mark.parametrize("wanted", [1, MANY])
@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(reuse_dict, id="a dict"),
        pytest.param(reuse_list_in_tuple, id="a list in a tuple"),
        pytest.param(reuse_buffer, id="a large buffer"),
        pytest.param(reuse_object, id="an object"),
        pytest.param(lambda: numbers_then(list_in_tuple), id="a list in a tuple after numbers"),
    ],
)
def test_nobody_sees_what_happens_to_a_task_after_it_was_yielded(
    unhurried: Clock, stream: Callable[[], Iterator[object]], wanted: int
) -> None:
    outlet = FakeOutlet(wanted)
    produce(outlet, stream())
    seen = [number for number in map(shown, outlet.tasks()) if number is not None]
    assert seen == list(range(len(seen)))
    assert seen


@pytest.mark.xfail(strict=True, reason="among plain tasks an object that has a hash is pickled with its whole batch")
@pytest.mark.parametrize("make", [point_in_tuple, point_alone])
def test_an_object_among_plain_tasks_is_seen_as_it_was_when_it_was_yielded(
    unhurried: Clock, make: Callable[[], tuple[object, Callable[[int], None]]]
) -> None:
    outlet = FakeOutlet()
    produce(outlet, numbers_then(make))
    seen = [number for number in map(shown, outlet.tasks()) if number is not None]
    assert seen == list(range(200))


# -- how much at once --------------------------------------------------------------------------------------


def test_batches_grow_while_tasks_come_fast_up_to_what_the_queue_wants(unhurried: Clock) -> None:
    outlet = FakeOutlet(wanted=50)
    produce(outlet, iter(range(500)))
    assert outlet.sizes()[:8] == [1, 2, 4, 8, 16, 32, 50, 50]
    assert sum(outlet.sizes()) == 500


def test_tasks_that_come_slowly_are_put_one_by_one(unhurried: Clock) -> None:
    def slowly() -> Iterator[int]:
        for number in range(20):
            unhurried.now_ns += 2_000_000
            yield number

    outlet = FakeOutlet()
    produce(outlet, slowly())
    assert outlet.sizes() == [1] * 20


def test_after_a_pause_the_next_task_is_put_at_once(unhurried: Clock) -> None:
    def in_waves() -> Iterator[int]:
        for number in range(64):
            if number == 31:
                unhurried.now_ns += 1_000_000_000
            yield number

    outlet = FakeOutlet()
    produce(outlet, in_waves())
    assert outlet.sizes() == [1, 2, 4, 8, 16, 32, 1]


def test_what_a_sleeping_producer_has_yielded_is_put_meanwhile(clock: Clock) -> None:
    arrived = threading.Event()

    def sleeper() -> Iterator[int]:
        yield from range(10)  # 1, 2, 4: three of the next eight are gathered
        assert arrived.wait(DEADLINE_SECONDS), "nobody has put what was yielded"
        yield from range(10, 20)

    outlet = FakeOutlet()
    outlet.on_offer = lambda outlet: arrived.set() if 9 in outlet.tasks() else None
    produce(outlet, sleeper())
    assert outlet.tasks() == list(range(20))


@pytest.mark.parametrize("tasks", [[Point(1)], [(1, Point(1))], [b"raw", Point(1)]])
def test_a_batch_that_is_put_in_two_parts_is_written_in_one_way_whatever_was_in_the_first(
    clock: Clock, tasks: list[object]
) -> None:
    """The first part shows that the tasks are not plain; the second was gathered as if they were."""
    arrived = threading.Event()

    def sleeper() -> Iterator[object]:
        yield from range(3 * PLAIN_AFTER)
        yield from tasks
        assert arrived.wait(DEADLINE_SECONDS)
        yield from [b"x", "y", 3]

    outlet = FakeOutlet()
    outlet.on_offer = lambda outlet: arrived.set() if len(outlet.tasks()) == 3 * PLAIN_AFTER + len(tasks) else None
    produce(outlet, sleeper())
    assert outlet.tasks()[-3:] == [b"x", "y", 3]


# -- without room ------------------------------------------------------------------------------------------


def test_a_full_queue_is_asked_again_with_the_same_chunk(unhurried: Clock) -> None:
    outlet = FakeOutlet()
    outlet.refusals = 3
    row = produce(outlet, iter([7]))
    assert outlet.tasks() == [7]
    assert len({id(chunk) for chunk, _ in outlet.offers}) == 1
    assert [timeout for _, timeout in outlet.offers] == [0.0, *[producing.BEAT_SECONDS] * 3]
    assert not row.read(unhurried.now_ns).is_blocked


def test_the_time_without_room_is_counted_as_blocked_and_shows_life(unhurried: Clock) -> None:
    ledger, row = new_row()
    outlet = FakeOutlet()
    outlet.refusals = 2
    beats = []

    def offer(chunk: Chunk, timeout_seconds: float) -> bool:
        beats.append((row.read(unhurried.now_ns).heartbeat_ns, row.read(unhurried.now_ns).is_blocked))
        unhurried.now_ns += int(timeout_seconds * NANOSECONDS)
        return FakeOutlet.offer(outlet, chunk, timeout_seconds)

    outlet.offer = offer  # type: ignore[method-assign]
    began_ns = unhurried.now_ns
    Production(outlet, row, Interruptions(ledger, row, Order.STOP_PRODUCING)).run(iter([1]))
    tally = row.read(unhurried.now_ns)
    assert (tally.blocked_ns, tally.busy_ns) == (2 * NANOSECONDS, 0)
    assert beats == [(0, False), (0, True), (began_ns + NANOSECONDS, True)]


def test_the_time_in_the_users_code_is_counted_as_busy(unhurried: Clock) -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            unhurried.now_ns += NANOSECONDS
            yield number

    row = produce(FakeOutlet(), slow())
    assert row.read(unhurried.now_ns).busy_ns == 3 * NANOSECONDS


def test_who_is_blocked_when_the_run_stops_now_leaves(unhurried: Clock) -> None:
    ledger, row = new_row()
    outlet = FakeOutlet()
    outlet.refusals = 10**9

    def offer(chunk: Chunk, timeout_seconds: float) -> bool:
        if timeout_seconds:
            ledger.order = Order.STOP
        return False

    outlet.offer = offer  # type: ignore[method-assign]
    with pytest.raises(StopRequestedError):
        Production(outlet, row, Interruptions(ledger, row, Order.STOP_PRODUCING)).run(iter([1]))
    assert not row.read(unhurried.now_ns).is_blocked


@pytest.mark.parametrize("queue_counts", [True, False])
def test_puts_are_counted_here_only_if_the_queue_does_not(unhurried: Clock, queue_counts: bool) -> None:
    outlet = FakeOutlet(wanted=1, counts_puts=queue_counts)
    tally = produce(outlet, iter([1, 2, 3])).read(0)
    assert (tally.put, tally.offered) == ((0, 0) if queue_counts else (3, 3))


# -- endings -----------------------------------------------------------------------------------------------


class OwnError(Exception):
    """The user's."""


@pytest.mark.parametrize("error", [OwnError("enough"), StopRequestedError(), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("before", [0, 1, 6, 3 * PLAIN_AFTER + 1])
def test_what_was_yielded_before_an_exception_is_put(unhurried: Clock, error: BaseException, before: int) -> None:
    def raising() -> Iterator[int]:
        yield from range(before)
        raise error

    outlet = FakeOutlet()
    with pytest.raises(type(error)) as raised:
        produce(outlet, raising())
    assert raised.value is error
    assert outlet.tasks() == list(range(before))


def test_a_drain_ends_the_production_before_the_next_batch(unhurried: Clock) -> None:
    ledger, row = new_row()
    outlet = FakeOutlet(wanted=1)

    def counting() -> Iterator[int]:
        for number in itertools.count():
            if number == 5:
                ledger.order = Order.STOP_PRODUCING
            yield number

    with pytest.raises(StopRequestedError):
        Production(outlet, row, Interruptions(ledger, row, Order.STOP_PRODUCING)).run(counting())
    assert outlet.tasks() == list(range(6))


class Once:
    """An iterator that goes on after it has raised, as a queue or a socket may."""

    def __init__(self) -> None:
        self.calls = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.calls += 1
        if self.calls == 6:
            raise OwnError
        return self.calls


def test_an_iterator_that_raised_is_not_called_again(unhurried: Clock) -> None:
    once, outlet = Once(), FakeOutlet()
    with pytest.raises(OwnError):
        produce(outlet, once)
    assert (once.calls, outlet.tasks()) == (6, [1, 2, 3, 4, 5])


UNPICKLABLE: list[object] = [lambda: None, Reluctant(), (1, Reluctant()), [Reluctant()]]


@pytest.mark.parametrize(
    ("task", "before"),
    [(task, before) for task, before in itertools.product(UNPICKLABLE, [0, 1, 6, 3 * PLAIN_AFTER + 1])],
)
def test_a_task_that_cannot_be_pickled_is_named_and_those_before_it_are_put(
    unhurried: Clock, task: object, before: int
) -> None:
    outlet = FakeOutlet()
    with pytest.raises(TaskNotPicklableError, match=r"Reluctant|lambda"):
        produce(outlet, iter([*range(before), task, "never"]))
    assert outlet.tasks() == list(range(before))


def test_a_task_that_cannot_be_pickled_is_named_also_if_it_was_found_while_the_producer_slept(clock: Clock) -> None:
    seen = threading.Event()

    class Telling(Reluctant):
        def __reduce__(self) -> Any:
            seen.set()
            raise ValueError("not me")

    def sleeper() -> Iterator[object]:
        yield from range(3 * PLAIN_AFTER)
        yield Telling()
        assert seen.wait(DEADLINE_SECONDS)

    outlet = FakeOutlet()
    with pytest.raises(TaskNotPicklableError):
        produce(outlet, sleeper())
    assert outlet.tasks() == list(range(3 * PLAIN_AFTER))


class Exhausted:
    """Its pickling raises what looks like the end of an iterator."""

    def __reduce__(self) -> Any:
        return next(iter([]))


def test_a_task_whose_pickling_raises_stop_iteration_does_not_pass_for_the_end(unhurried: Clock) -> None:
    with pytest.raises(TaskNotPicklableError):
        produce(FakeOutlet(), iter([1, Exhausted(), 2]))


def test_trouble_of_the_queue_while_the_producer_sleeps_ends_the_production(clock: Clock) -> None:
    gone = threading.Event()

    def offer(chunk: Chunk, timeout_seconds: float) -> bool:
        if threading.current_thread().name == "flusher":
            gone.set()
            raise ConnectionError("gone")
        return True

    def sleeper() -> Iterator[int]:
        yield from range(10)
        assert gone.wait(DEADLINE_SECONDS)

    outlet = FakeOutlet()
    outlet.offer = offer  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        produce(outlet, sleeper())


def test_no_thread_is_left(clock: Clock) -> None:
    produce(FakeOutlet(), iter(range(1000)))
    for thread in threading.enumerate():
        if thread.name == "flusher":
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()


# -- forks -------------------------------------------------------------------------------------------------


def be_a_child(deed: str) -> None:
    match deed:
        case "exit":
            raise SystemExit(3)
        case "raise":
            raise OwnError
        case "_exit":
            os._exit(5)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(("deed", "code"), [("go on", 0), ("return", 0), ("exit", 3), ("raise", 1), ("_exit", 5)])
def test_a_child_that_the_generator_has_forked_leaves_without_touching_the_queue(
    unhurried: Clock, deed: str, code: int
) -> None:
    pid, codes = os.getpid(), list[int]()
    touched_read, touched_write = os.pipe()

    def forking() -> Iterator[int]:
        yield from range(5)
        child = os.fork()
        if child == 0:
            be_a_child(deed)
            if deed == "return":
                return
        else:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        yield from range(5, 10)

    def tell(outlet: FakeOutlet) -> None:
        if os.getpid() != pid:
            os.write(touched_write, b"!")

    outlet = FakeOutlet()
    outlet.on_offer = tell
    try:
        produce(outlet, forking())
    finally:
        os.close(touched_write)
        touched = os.read(touched_read, 1)
        os.close(touched_read)
    assert (codes, outlet.tasks(), touched) == ([code], list(range(10)), b"")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_go_on_with_its_parents_generator(unhurried: Clock) -> None:
    read, write = os.pipe()
    pid = os.getpid()

    def forking() -> Iterator[int]:
        yield from range(15)  # 1, 2, 4, 8: sixteen in the next batch
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        yield 15
        if os.getpid() != pid:
            os.write(write, b"!")
        yield from range(16, 31)

    produce(FakeOutlet(), forking())
    os.close(write)
    went_on = os.read(read, 1)
    os.close(read)
    assert went_on == b""
