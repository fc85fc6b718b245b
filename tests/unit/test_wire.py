"""What is said about chunks arrives as it was said, at both ends of every number."""

from __future__ import annotations

import socket

import pytest

from conveyor.messages import MAX_TEXT, cut
from conveyor.queues import wire
from conveyor.queues.pace import MAX_CHUNK_TASKS, MAX_LEASE_TASKS
from conveyor.queues.wire import Credit, Done, Failed, Grant, Kind, Offer

BYTE, WORD, LONG = 0xFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
LEAST, MOST = -(2**63), 2**63 - 1  # of a moment: in a spool it may be from before the machine was started
LONGEST = cut("\0" * (MAX_TEXT + 1))  # what takes the most bytes


@pytest.mark.parametrize(
    "message", [Offer(0, 0, 0, 0, 0, LEAST, False), Offer(BYTE, WORD, WORD, LONG, LONG, MOST, True)]
)
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
    word, long, moment = top * WORD, top * LONG, (LEAST, MOST)[top]
    message = Grant(top * BYTE, long, word, word, word, word, long, long, moment, long, long, word)
    data = wire.grant(message)
    assert data[0] == Kind.LEASE
    assert wire.read_grant(data) == message


@pytest.mark.parametrize(
    "message",
    [Done(0, 0, False, 0, ()), Done(LONG, WORD, True, LONG, (0, LONG)), Done(1, 3, False, 5, tuple(range(6)))],
)
def test_a_report_arrives(message: Done) -> None:
    data = wire.done(message)
    assert data[0] == Kind.DONE
    assert wire.read_done(data) == message


@pytest.mark.parametrize(
    "message",
    [
        Failed("", "", ""),
        Failed("ValueError", "坏了 \N{PILE OF POO}", 'Traceback:\n  File "x"\tline 1\\'),
        Failed("\udc80", "a byte that is no text: \udcff", "\0\x7f\u2028"),
    ],
)
def test_how_a_task_raised_arrives_whatever_its_text(message: Failed) -> None:
    data = wire.failed(message)
    assert data[0] == Kind.FAILED
    assert wire.read_failed(data) == message


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
        wire.done(Done(LONG, WORD, True, LONG, (LONG,) * (2 * MAX_LEASE_TASKS))),
        wire.failed(Failed(LONGEST, LONGEST, LONGEST)),
    ],
    ids=["credit", "done", "failed"],
)
def test_the_longest_messages_pass_through_a_socket_whole(data: bytes) -> None:
    assert len(data) <= wire.MAX_BYTES
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        ours.send(data)
        assert theirs.recv(wire.MAX_BYTES) == data


def test_how_a_task_raised_arrives_without_its_trace_if_all_would_be_too_long() -> None:
    assert wire.read_failed(wire.failed(Failed(LONGEST, LONGEST, LONGEST))) == Failed(LONGEST, LONGEST, "")
    wide = cut("\N{PILE OF POO}" * (MAX_TEXT + 1))
    assert wire.read_failed(wire.failed(Failed(wide, wide, wide))) == Failed(wide, wide, wide)


def test_the_largest_chunk_fits_into_an_offer() -> None:
    assert MAX_CHUNK_TASKS <= WORD
