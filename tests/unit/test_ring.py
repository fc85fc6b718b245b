"""The ring between a process that puts and the broker."""

from __future__ import annotations

import random

import pytest

from conveyor.dropin.page import ALL_BYTES, PAGE_BYTES, RING_BYTES
from conveyor.dropin.ring import FRAME_BYTES, RingReader, RingWriter
from conveyor.dropin.runs import Parcel, Run, runs_of


def ends() -> tuple[RingWriter, RingReader]:
    memory = memoryview(bytearray(ALL_BYTES))
    words, ring = memory[:PAGE_BYTES].cast("Q"), memory[PAGE_BYTES:]
    return RingWriter(words, ring), RingReader(words, ring)


def items(data: bytes, count: int) -> list[bytes]:
    run = Run(data, 0, len(data), count)
    return [bytes(run.first(1, RING_BYTES).view()[FRAME_BYTES:]) for _ in range(count)]


def test_what_is_written_is_read_once() -> None:
    writer, reader = ends()
    assert reader.read() == (b"", 0, 0)
    assert writer.write(b"one")
    assert writer.write(b"")
    data, count, larges = reader.read()
    assert (items(data, count), larges) == ([b"one", b""], 0)
    assert reader.read() == (b"", 0, 0)


def test_a_full_ring_takes_no_more_until_it_is_read() -> None:
    writer, reader = ends()
    written = 0
    while writer.write(bytes(1000)):
        written += 1
    assert written == RING_BYTES // (1000 + FRAME_BYTES)
    assert writer.is_half_full()
    assert not writer.write(bytes(1000))
    assert reader.read()[1] == written
    assert not writer.is_half_full()
    assert writer.write(bytes(1000))


def test_a_large_item_leaves_a_mark_in_its_place() -> None:
    writer, reader = ends()
    writer.write(b"before")
    assert writer.has_room()
    assert writer.write_large(7)
    writer.write(b"after")
    data, count, larges = reader.read()
    assert (count, larges) == (3, 1)
    parcel = Parcel(-1, 1 << 30)
    runs = runs_of(data, {7: parcel}.__getitem__)
    assert [(run.count, run.parcel) for run in runs] == [(1, None), (1, parcel), (1, None)]
    Parcel.open_count -= 1


@pytest.mark.parametrize("seed", range(5))
def test_any_sizes_arrive_whole_and_in_order_over_many_laps(seed: int) -> None:
    chance = random.Random(seed)
    writer, reader = ends()
    sent: list[bytes] = []
    received: list[bytes] = []
    for number in range(3000):
        item = bytes([number % 256]) * chance.choice((0, 1, 50, 3000, 60_000, RING_BYTES // 4 - FRAME_BYTES))
        while not writer.write(item):
            data, count, _ = reader.read()
            received += items(data, count)
        sent.append(item)
        if chance.random() < 0.05:
            data, count, _ = reader.read()
            received += items(data, count)
    data, count, _ = reader.read()
    assert received + items(data, count) == sent
