"""A producer's memory: no two chunks in one place, what was freed is used again, and readers see what was written."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from conveyor.queues.arena import FIRST_BYTES, Arena, Gaps, Window, new_memory
from conveyor.queues.codec import Piece

LINE = 64  # bytes; chunks begin at such edges


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = new_memory()
    yield descriptor
    os.close(descriptor)


def grown(end: int) -> Gaps:
    gaps = Gaps()
    gaps.grow(end)
    return gaps


def rounded(size: int) -> int:
    return -(-size // LINE) * LINE


def held(arena: Arena, *sizes: int) -> list[int | None]:
    return [arena.write([bytes(size)], size) for size in sizes]


# -- places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_places_never_overlap_and_nothing_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    reserved = chance.choice([0, 10 * LINE])
    gaps, taken = Gaps(reserved), dict[int, int]()
    for _ in range(500):
        deed = chance.random()
        if deed < 0.02 or not gaps.end:
            gaps.grow(gaps.end + LINE * chance.randint(1, 100))
        elif deed < 0.52 or not taken:
            size = chance.choice([1, 63, 64, 65, chance.randint(1, 3000)])
            free = sorted(free_between(taken, reserved, gaps.end))
            offset = gaps.take(size)
            fitting = [start for start, end in free if end - start >= rounded(size)]
            assert offset == (fitting[0] if fitting else None), f"seed {seed}: not the lowest that has room"
            if offset is not None:
                taken[offset] = size
        else:
            offset = chance.choice(list(taken))
            gaps.give(offset, taken.pop(offset))
        seen = [(start, start + room) for start, room in gaps._gaps]
        assert seen == sorted(free_between(taken, reserved, gaps.end)), f"seed {seed}"
        assert all(start % LINE == 0 for start, _ in seen), f"seed {seed}"


def free_between(taken: dict[int, int], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of all that is not taken, whole."""
    for offset, size in [*sorted(taken.items()), (end, 0)]:
        if offset > begin:
            yield begin, offset
        begin = offset + rounded(size)


def test_neighbours_that_are_free_become_one_place() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2]):
        gaps = grown(3 * LINE)
        offsets = [gaps.take(LINE) for _ in range(3)]
        assert (offsets, gaps.take(1)) == ([0, LINE, 2 * LINE], None)
        for place in order:
            gaps.give(place * LINE, LINE)
        assert gaps.take(3 * LINE) == 0


# -- the producer's side -----------------------------------------------------------------------------------


def test_a_place_that_was_freed_is_used_again(memory: int) -> None:
    arena = Arena(memory, 10 * FIRST_BYTES)
    for _ in range(100):
        offset = arena.write([bytes(FIRST_BYTES // 2)], FIRST_BYTES // 2)
        assert offset == 0
        arena.free(offset, FIRST_BYTES // 2)
    assert os.fstat(memory).st_size == FIRST_BYTES


def test_beyond_the_limit_there_is_no_room_until_a_chunk_is_freed(memory: int) -> None:
    arena = Arena(memory, 3 * FIRST_BYTES)
    offsets = held(arena, *[FIRST_BYTES] * 4)
    assert [offset is None for offset in offsets] == [False, False, False, True]
    assert offsets[1] is not None
    arena.free(offsets[1], FIRST_BYTES)
    assert held(arena, FIRST_BYTES) == [offsets[1]]


def test_one_chunk_may_be_larger_than_the_limit_if_it_is_alone(memory: int) -> None:
    arena = Arena(memory, 1000)
    [small] = held(arena, 10)
    assert small is not None
    assert held(arena, 5000) == [None]
    arena.free(small, 10)
    [large] = held(arena, 5000)
    assert large is not None
    assert held(arena, 10) == [None]
    arena.free(large, 5000)
    assert held(arena, 10) != [None]


def test_the_limit_holds_also_in_memory_that_a_larger_chunk_has_left(memory: int) -> None:
    arena = Arena(memory, FIRST_BYTES)
    [large] = held(arena, 20 * FIRST_BYTES)
    assert large is not None
    arena.free(large, 20 * FIRST_BYTES)
    assert [offset is None for offset in held(arena, *[FIRST_BYTES // 2] * 3)] == [False, False, True]


def test_a_small_limit_holds_from_the_first_byte(memory: int) -> None:
    arena = Arena(memory, 1000)
    assert [offset is None for offset in held(arena, 400, 400, 400)] == [False, False, True]


def test_what_is_reserved_is_left_alone(memory: int) -> None:
    arena = Arena(memory, 1 << 30, reserved_bytes=FIRST_BYTES)
    os.truncate(memory, FIRST_BYTES)
    assert held(arena, 10, FIRST_BYTES) == [FIRST_BYTES, FIRST_BYTES + LINE]


def test_gaps_between_chunks_do_not_stop_a_producer_that_is_below_its_limit(memory: int) -> None:
    arena = Arena(memory, 4 * FIRST_BYTES)
    offsets = held(arena, *[FIRST_BYTES // 16] * 32)
    for offset in offsets[::2]:
        assert offset is not None
        arena.free(offset, FIRST_BYTES // 16)
    assert held(arena, FIRST_BYTES) != [None]


# -- both sides --------------------------------------------------------------------------------------------


def test_the_pieces_of_a_chunk_are_read_as_one(memory: int) -> None:
    arena, window = Arena(memory, 1 << 30), Window(os.dup(memory))
    pieces: list[Piece] = [b"a", bytearray(b"bc"), memoryview(b"def"), b""]
    offset = arena.write(pieces, 6)
    assert offset is not None
    assert bytes(window.view(offset, 6)) == b"abcdef"
    window.close()


@pytest.mark.parametrize("seed", range(5))
def test_readers_see_what_was_written_however_the_memory_grew(memory: int, seed: int) -> None:
    chance = random.Random(seed)
    arena, window = Arena(memory, 40 * FIRST_BYTES), Window(os.dup(memory))
    chunks = dict[int, bytes]()
    for _ in range(300):
        if chunks and chance.random() < 0.45:
            offset = chance.choice(list(chunks))
            arena.free(offset, len(chunks.pop(offset)))
        else:
            data = chance.randbytes(8) * chance.choice([1, 10, 10_000, 100_000])
            written = arena.write([data], len(data))
            if written is not None:
                chunks[written] = data
        for offset in chance.sample(list(chunks), min(3, len(chunks))):
            assert window.view(offset, len(chunks[offset])) == chunks[offset], f"seed {seed}"
    window.close()


def test_what_a_reader_has_taken_it_can_read_while_the_memory_grows(memory: int) -> None:
    arena, window = Arena(memory, 1 << 30), Window(os.dup(memory))
    assert arena.write([b"early"], 5) == 0
    view = window.view(0, 5)
    late = arena.write([bytes(5 * FIRST_BYTES - 1), b"!"], 5 * FIRST_BYTES)
    assert late is not None
    assert window.view(late, 5 * FIRST_BYTES)[-1] == ord("!")
    window.close()
    assert bytes(view) == b"early"


def test_a_reader_cannot_write(memory: int) -> None:
    arena, window = Arena(memory, 1 << 30), Window(os.dup(memory))
    assert arena.write([b"abc"], 3) == 0
    with pytest.raises(TypeError, match="read-only"):
        window.view(0, 3)[0] = 0
    window.close()


def test_a_window_that_is_closed_leaves_no_descriptor(memory: int) -> None:
    descriptor = os.dup(memory)
    Window(descriptor).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
