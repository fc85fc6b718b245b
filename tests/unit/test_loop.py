"""The one loop: what is due runs, in its order, and nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from conveyor.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop


def test_timers_run_in_the_order_of_their_time(loop: Loop) -> None:
    seen: list[str] = []
    loop.after(0.02, lambda: seen.append("second"))
    loop.after(0.01, lambda: seen.append("first"))
    while len(seen) < 2:
        loop.turn()
    assert seen == ["first", "second"]


def test_every_runs_again_and_again(loop: Loop) -> None:
    seen: list[int] = []
    loop.every(0.001, lambda: seen.append(1))
    while len(seen) < 5:
        loop.turn()


def test_a_readable_descriptor_calls_its_action(loop: Loop) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    loop.watch(read, lambda: seen.append(os.read(read, 10)))
    os.write(write, b"x")
    loop.turn()
    assert seen == [b"x"]
    loop.unwatch(read)
    loop.unwatch(read)  # twice is harmless
    os.close(read)
    os.close(write)


def test_an_action_can_unwatch_what_is_ready_beside_it(loop: Loop) -> None:
    pipes = [os.pipe(), os.pipe()]
    seen: list[int] = []

    def first_come(number: int) -> None:
        seen.append(number)
        for read, _ in pipes:
            loop.unwatch(read)

    for number, (read, write) in enumerate(pipes):
        loop.watch(read, lambda number=number: first_come(number))  # type: ignore[misc]
        os.write(write, b"x")
    loop.turn()
    assert len(seen) == 1
    for read, write in pipes:
        os.close(read)
        os.close(write)


def test_another_thread_can_wake_it(loop: Loop) -> None:
    before = loop.last_turn
    threading.Thread(target=loop.wake).start()
    loop.turn()
    assert loop.last_turn > before


def test_waking_a_closed_loop_is_harmless() -> None:
    loop = Loop()
    loop.close()
    loop.wake()


def test_a_full_pipe_of_wake_ups_is_harmless(loop: Loop) -> None:
    for _ in range(100_000):
        loop.wake()
    loop.turn()
