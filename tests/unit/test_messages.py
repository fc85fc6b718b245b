"""What workers tell, line by line, over a pipe that can be cut at any byte."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conveyor import messages
from conveyor.messages import LineReader, TaskFailed, WorkerFailed

FAILED = TaskFailed("ValueError", "bad 包子\nwith lines", "'task'", 0.5, is_final=False, trace="Traceback")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("message", [FAILED, WorkerFailed("OSError", "", "")])
def test_a_message_arrives_as_it_was_sent(pipe: tuple[int, int], message: messages.Message) -> None:
    messages.send(pipe[1], message)
    lines = LineReader(pipe[0]).read()
    assert lines is not None
    assert [messages.decode(line) for line in lines] == [message]


def test_a_reader_without_data_does_not_wait(pipe: tuple[int, int]) -> None:
    assert LineReader(pipe[0]).read() == []


def test_lines_are_put_together_from_pieces(pipe: tuple[int, int]) -> None:
    reader = LineReader(pipe[0])
    seen = []
    for piece in (b"on", b"e\ntw", b"o\n", b"rest"):
        os.write(pipe[1], piece)
        seen.append(reader.read())
    assert seen == [[], [b"one"], [b"two"], []]
    assert reader.rest == b"rest"


def test_half_a_line_of_a_killed_worker_is_dropped() -> None:
    read, write = os.pipe()
    messages.send(write, FAILED)
    os.write(write, b'{"kind": "TaskFai')
    os.close(write)
    reader = LineReader(read)
    assert [messages.decode(line) for line in reader.read_all()] == [FAILED]
    assert reader.read() is None
    os.close(read)
