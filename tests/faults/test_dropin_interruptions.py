"""A signal's handler interrupts the drop-in queues, and raises or uses them itself: every item is got, once."""

from __future__ import annotations

import contextlib
import gc
import queue
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import conveyor
from support.strikes import OURS, StrikeError, every_strike

LARGE = 300_000
KINDS = [conveyor.Queue, conveyor.JoinableQueue]


def rest_of(carrier: Any) -> list[Any]:
    """Get what is left."""
    found = []
    with contextlib.suppress(queue.Empty, conveyor.ShutDown):
        while True:
            found.append(carrier.get_nowait())
    return found


def finish(carrier: Any, items: int) -> None:
    """Mark so many items as done, and see that these were all."""
    if isinstance(carrier, conveyor.JoinableQueue):
        for _ in range(items):
            carrier.task_done()
        assert carrier.unfinished() == 0
        assert carrier.join(0)


class Slow:
    """An item in whose unpickling a handler can run."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slow) and other.number == self.number

    def __hash__(self) -> int:
        return self.number

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = list(state)
        for name in names:
            setattr(self, name, state[name])


def put_all(carrier: Any, items: list[Any]) -> None:
    for item in items:
        carrier.put(item)


GETS: list[tuple[str, list[Any], Callable[[Any], list[Any]]]] = [
    ("get", [b"one"], lambda carrier: [carrier.get()]),
    ("get_nowait", [b"one"], lambda carrier: [carrier.get_nowait()]),
    ("get with a timeout", [b"one", b"two"], lambda carrier: [carrier.get(timeout=30.0)]),
    ("get of what was sent ahead", list(range(4)), lambda carrier: [carrier.get(), carrier.get()]),
    ("get of a large one", [bytes(LARGE)], lambda carrier: [carrier.get()]),
    ("get of a slow one", [Slow(1), Slow(2)], lambda carrier: [carrier.get()]),
    ("get_many", list(range(3)), lambda carrier: carrier.get_many(3)),
    ("get_many in parts", [1, bytes(LARGE), 3], lambda carrier: carrier.get_many(5)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("items", "get"), [pytest.param(items, get, id=name) for name, items, get in GETS])
def test_a_get_that_is_interrupted_anywhere_returns_its_item_or_leaves_it(
    kind: Any, items: list[Any], get: Callable[[Any], list[Any]]
) -> None:
    carrier = kind()
    assert carrier.qsize() == 0
    code = "Slow.__setstate__" if isinstance(items[0], Slow) else OURS
    for struck in every_strike(lambda: put_all(carrier, items), lambda _: get(carrier), code=code):
        got = struck.result or []
        if len(items) == 4 and struck.is_interrupted:  # the first get may have returned
            got = items[: 4 - carrier.qsize()]
        rest = rest_of(carrier)
        assert got + rest == items, struck
        finish(carrier, len(items))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("maxsize", [0, 1])
@pytest.mark.parametrize("item", [b"one", bytes(LARGE), [b"two"]], ids=["small", "large", "list"])
def test_a_put_that_is_interrupted_anywhere_has_put_its_item_or_not_and_room_for_it_is_left(
    kind: Any, maxsize: int, item: Any
) -> None:
    carrier = kind(maxsize)
    assert carrier.qsize() == 0
    for struck in every_strike(lambda: None, lambda _: carrier.put(item)):
        found = rest_of(carrier)
        assert found in ([item], [] if struck.is_interrupted else [item]), struck
        finish(carrier, len(found))
        if maxsize:
            carrier.put_nowait("there is room for one")
            with pytest.raises(queue.Full):
                carrier.put_nowait("and not for another")
            assert carrier.get() == "there is room for one"
            finish(carrier, 1)


@pytest.mark.parametrize("maxsize", [0, 2])
def test_of_a_put_many_that_is_interrupted_anywhere_the_first_items_are_there(maxsize: int) -> None:
    carrier: Any = conveyor.JoinableQueue(maxsize)
    for struck in every_strike(lambda: None, lambda _: carrier.put_many([1, 2])):
        found = rest_of(carrier)
        assert found in ([], [1], [1, 2]), struck
        assert struck.is_interrupted or len(found) == 2
        finish(carrier, len(found))


@pytest.mark.parametrize("held", [1, 3])
def test_a_task_done_that_is_interrupted_anywhere_has_marked_one_item_or_none(held: int) -> None:
    carrier: Any = conveyor.JoinableQueue()

    def prepare() -> None:
        put_all(carrier, list(range(held)))
        carrier.get_many(held)

    for struck in every_strike(prepare, lambda _: carrier.task_done()):
        left = carrier.unfinished()
        assert left in (held - 1, held if struck.is_interrupted else held - 1), struck
        finish(carrier, left)


@pytest.mark.parametrize("deed", ["join", "qsize", "get_empty", "put_full", "shutdown", "unfinished"])
def test_whatever_is_interrupted_anywhere_the_queue_works_afterwards(deed: str) -> None:
    deeds: dict[str, Callable[[Any], object]] = {
        "join": lambda carrier: carrier.join(0.002),
        "qsize": lambda carrier: carrier.qsize(),
        "get_empty": lambda carrier: carrier.get(timeout=0.002),
        "put_full": lambda carrier: carrier.put("no room", timeout=0.002),
        "shutdown": lambda carrier: carrier.shutdown(),
        "unfinished": lambda carrier: carrier.unfinished(),
    }
    carrier: Any = conveyor.JoinableQueue(1)

    def prepare() -> Any:
        made = conveyor.JoinableQueue[Any](1) if deed == "shutdown" else carrier
        if deed != "get_empty":
            made.put("first")
        return made

    for struck in every_strike(prepare, deeds[deed]):
        used = struck.what
        assert isinstance(struck.error, StrikeError | queue.Empty | queue.Full | None), struck
        found = rest_of(used)
        assert found == ([] if deed == "get_empty" else ["first"]), struck
        finish(used, len(found))
        if deed != "shutdown":
            used.put("last")
            assert used.get(timeout=30.0) == "last"
            used.task_done()
            assert used.join(30.0)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deed", ["get_nowait", "put"])
def test_a_connection_that_is_interrupted_anywhere_is_made_at_the_next_use(deed: str) -> None:
    def use(carrier: Any) -> object:
        return carrier.get_nowait() if deed == "get_nowait" else carrier.put("first")

    for struck in every_strike(conveyor.JoinableQueue, use):
        found = rest_of(struck.what)
        assert found in ([], ["first"]), struck
        struck.what.put("last")
        assert struck.what.get(timeout=30.0) == "last"
        finish(struck.what, len(found) + 1)
    gc.collect()  # half-made sockets warn


@pytest.mark.parametrize("is_raising", [False, True])
@pytest.mark.parametrize("deed", ["get", "put", "put_large", "get_large", "task_done", "qsize"])
def test_a_handler_that_uses_the_queue_anywhere_takes_and_puts_whole_items(deed: str, is_raising: bool) -> None:
    """The handler gets, puts and asks in the middle of what it interrupts."""
    carrier: Any = conveyor.JoinableQueue()
    first = bytes(LARGE) if "large" in deed else b"first"
    deeds: dict[str, Callable[[], Any]] = {
        "get": carrier.get,
        "get_large": carrier.get,
        "put": lambda: carrier.put(b"put"),
        "put_large": lambda: carrier.put(bytes(LARGE + 1)),
        "task_done": carrier.task_done,
        "qsize": carrier.qsize,
    }
    handled: list[Any] = []

    def use(*_: object) -> None:
        carrier.put(b"from the handler")
        carrier.put(bytes(LARGE + 2))
        handled.append(carrier.get_nowait())
        assert carrier.qsize() >= 1
        if is_raising:
            raise StrikeError

    def prepare() -> None:
        handled.clear()
        put_all(carrier, [first, b"second"])
        if deed == "task_done":
            handled.append(carrier.get())

    for struck in every_strike(prepare, lambda _: deeds[deed](), use):
        got = list(handled)
        if "get" in deed and struck.error is None:
            got.append(struck.result)
        got += rest_of(carrier)
        expected = Counter([first, b"second"])
        if struck.where:
            expected.update([b"from the handler", bytes(LARGE + 2)])
        found = Counter(got)
        is_put = found - expected
        assert not expected - found, struck
        assert set(is_put) <= ({b"put", bytes(LARGE + 1)} if "put" in deed else set()), struck
        assert sum(is_put.values()) <= 1, struck
        left = carrier.unfinished()
        assert len(got) - 1 <= left <= len(got), struck
        finish(carrier, left)
