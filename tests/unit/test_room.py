"""Back-pressure of a drop-in queue."""

from __future__ import annotations

from conveyor.dropin.room import NO_BOUND, Room


def room_of(capacity: int, putters: int) -> Room:
    room = Room(capacity)
    for number in range(putters):
        room.join(number)
    return room


def test_without_a_capacity_there_is_always_room() -> None:
    room = Room(0)
    assert room.join(1) == NO_BOUND
    room.put(1, 1_000_000)
    assert room.reserved == 0


def test_a_putter_is_allowed_what_is_left() -> None:
    room = room_of(10, 1)
    assert room.give(0, size=4) == 6
    assert room.give(0, size=4) == 0
    room.put(0, 6)
    assert room.give(0, size=10) == 0
    assert room.give(0, size=9) == 7


def test_several_share_it_and_nobody_gets_more_than_there_is() -> None:
    room = room_of(10, 3)
    assert [room.give(number, 0) for number in range(3)] == [10, 0, 0]
    room.limit(0, 2)
    assert [room.give(number, 0) for number in (1, 2)] == [2, 2]
    assert room.reserved <= 10


def test_what_is_called_back_is_what_is_not_claimed() -> None:
    room = room_of(10, 2)
    room.give(0, 0)
    room.put(0, 3)
    room.limit(0, 4)
    assert room.putters[0].allowed == 4
    room.limit(0, 99)  # a claim beyond what is allowed: it is withdrawn, and gives nothing
    assert room.putters[0].allowed == 4
    assert room.give(1, size=3) == 3  # half of the six that are left


def test_a_dead_putters_room_is_the_others() -> None:
    room = room_of(10, 2)
    room.give(0, 0)
    room.put(0, 4)
    room.bury(0)
    assert room.give(1, size=4) == 6


def test_items_that_came_back_may_be_more_than_the_capacity() -> None:
    room = room_of(2, 1)
    assert room.give(0, size=5) == 0
