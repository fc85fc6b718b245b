"""What is said about chunks arrives as it was said, at both ends of every number."""

from __future__ import annotations

import socket

import pytest

from conveyor.queues import wire
from conveyor.queues.pace import MAX_CHUNK_TASKS, MAX_LEASE_TASKS
from conveyor.queues.wire import Credit, Done, Grant, Kind, Offer

BYTE, WORD, LONG = 0xFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


@pytest.mark.parametrize("message", [Offer(0, 0, 0, 0, 0, 0, False), Offer(BYTE, WORD, WORD, LONG, LONG, LONG, True)])
def test_an_offer_arrives(message: Offer) -> None:
    data = wire.offer(message)
    assert data[0] == Kind.OFFER
    assert wire.read_offer(data) == message


@pytest.mark.parametrize("message", [Credit(0, 0, ()), Credit(LONG, WORD, (0, WORD)), Credit(1, 1, tuple(range(5)))])
def test_credit_arrives(message: Credit) -> None:
    data = wire.credit(message)
    assert data[0] == Kind.CREDIT
    assert wire.read_credit(data) == message


@pytest.mark.parametrize("top", [0, 1])
def test_a_lease_arrives(top: int) -> None:
    word, long = top * WORD, top * LONG
    message = Grant(top * BYTE, word, word, word, word, word, long, long, long, long, word)
    data = wire.grant(message)
    assert data[0] == Kind.LEASE
    assert wire.read_grant(data) == message


@pytest.mark.parametrize(
    "message", [Done(0, 0, 0, ()), Done(WORD, WORD, LONG, (0, LONG)), Done(1, 3, 5, tuple(range(6)))]
)
def test_a_report_arrives(message: Done) -> None:
    data = wire.done(message)
    assert data[0] == Kind.DONE
    assert wire.read_done(data) == message


@pytest.mark.parametrize("arena", [0, WORD])
def test_an_arena_is_forgotten_by_its_number(arena: int) -> None:
    data = wire.forget(arena)
    assert data[0] == Kind.FORGET
    assert wire.read_forget(data) == arena


def test_each_kind_has_a_first_byte_of_its_own() -> None:
    assert [wire.READY[0], wire.WANT[0]] == [Kind.READY, Kind.WANT]
    assert len({int(kind) for kind in Kind}) == len(Kind)
    assert 0 not in list(Kind)  # nothing is the end


@pytest.mark.parametrize(
    "data",
    [
        wire.credit(Credit(LONG, WORD, (WORD,) * wire.MAX_FREED)),
        wire.done(Done(WORD, WORD, LONG, (LONG,) * (2 * MAX_LEASE_TASKS))),
    ],
    ids=["credit", "done"],
)
def test_the_longest_messages_pass_through_a_socket_whole(data: bytes) -> None:
    assert len(data) <= wire.MAX_BYTES
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        ours.send(data)
        assert theirs.recv(wire.MAX_BYTES) == data


def test_the_largest_chunk_fits_into_an_offer() -> None:
    assert MAX_CHUNK_TASKS <= WORD
