"""The control socket in a loop that the test turns."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from conveyor import asking, control
from conveyor.errors import ControlError
from conveyor.loop import Loop
from conveyor.snapshot import Ending, Phase, RunStatistics
from conveyor.supervisor import Supervisor
from support.fakes import FakeRun, make_run, make_slot
from support.waiting import wait_for

CROWD = make_run(*(make_slot(f"consumer-{number}", pid=number) for number in range(1000)))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a run of very many workers, and turn its loop in a thread until the test ends."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    loop = Loop()
    is_over = threading.Event()

    def turn() -> None:
        while not is_over.is_set():
            loop.turn()

    with control.serving(cast(Supervisor, FakeRun(CROWD)), loop):
        thread = threading.Thread(target=turn)
        thread.start()
        yield tmp_path / "conveyor" / f"{os.getpid()}.sock"
        is_over.set()
        loop.wake()
        thread.join()
    loop.close()


def test_an_answer_of_any_length_arrives_whole(path: Path) -> None:
    assert asking.status(None) == CROWD
    assert asking.status(os.getpid()) == CROWD


def test_a_client_that_does_not_read_keeps_nobody_waiting(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(path))
        lazy.send(b"status\n")
        assert asking.status(None) == CROWD


def test_a_client_that_goes_while_it_is_answered_is_forgotten(path: Path) -> None:
    for _ in range(2 * control.MAX_CLIENTS):
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(str(path))
            hasty.send(b"status\n")
            hasty.recv(1)
    assert asking.status(None) == CROWD


def test_a_request_may_arrive_in_pieces(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for piece in (b"sta", b"tu", b"s\n"):
            client.send(piece)
        client.settimeout(10)
        assert client.recv(7) == b'{"ok": '


def test_a_client_that_never_asks_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(control, "CLIENT_SECONDS", 0.05)
    path = request.getfixturevalue("path")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        assert client.recv(1) == b""


def test_statistics_survive_the_way(path: Path) -> None:
    seen: RunStatistics = asking.status(None)
    assert seen.slots[0].restarts == CROWD.slots[0].restarts
    assert type(seen.slots[0].state) is type(CROWD.slots[0].state)


# -- farewells ---------------------------------------------------------------------------------------------


def test_who_waits_for_it_is_told_how_the_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(control, "CLIENT_SECONDS", 10.0)
    with contextlib.closing(Loop()) as loop:
        run = FakeRun(CROWD)
        with control.serving(cast(Supervisor, run), loop):
            farewells = [asking.Farewell(os.getpid()) for _ in range(2)]
            for _ in range(3):  # to accept two, and to read their requests
                loop.turn()
            assert select.select(farewells, [], [], 0.0)[0] == [], "told too early"
            run.now = dataclasses.replace(CROWD, slots=(), phase=Phase.ENDED, ending=Ending.DRAINED)
        for farewell in farewells:
            with contextlib.closing(farewell):
                assert farewell.read() == run.now


def test_who_waits_outlasts_the_patience_with_those_who_never_ask(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(control, "CLIENT_SECONDS", 0.05)
    path = request.getfixturevalue("path")
    with contextlib.closing(asking.Farewell(os.getpid())) as farewell:
        with socket.socket(socket.AF_UNIX) as silent:  # came later, and is dropped: so would the other have been
            silent.connect(str(path))
            silent.settimeout(10)
            assert silent.recv(1) == b""
        assert select.select([farewell], [], [], 0.0)[0] == []


def test_too_many_who_wait_are_told_so_and_keep_nobody_else_from_asking(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(control.MAX_CLIENTS):
            stack.enter_context(contextlib.closing(asking.Farewell(os.getpid())))
            assert asking.status(None) == CROWD  # and so the farewell before it has been asked for
        with contextlib.closing(asking.Farewell(os.getpid())) as one_more:
            with pytest.raises(ControlError, match="16 others watch this run already"):
                one_more.read()
        assert asking.status(None) == CROWD
    wait_for("room", lambda: asking.status(None) == CROWD and not is_refused())


def is_refused() -> bool:
    with contextlib.closing(asking.Farewell(os.getpid())) as farewell:
        assert asking.status(None) == CROWD
        return bool(select.select([farewell], [], [], 0.0)[0])


def test_a_run_that_is_gone_says_no_farewell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ControlError, match="no run with pid 1 answers"):
        asking.Farewell(1)


def test_a_run_that_dies_before_it_has_heard_the_request_says_no_farewell_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "conveyor").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "conveyor" / "1.sock"))
        listener.listen()
        with contextlib.closing(asking.Farewell(1)) as farewell:
            listener.accept()[0].close()
            assert farewell.read() is None


def test_a_client_that_comes_a_moment_too_early_does_not_remove_the_socket_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = tmp_path / "1.sock"

    def connect(client: socket.socket, path: str) -> None:
        early.touch()  # the run makes it just now
        raise FileNotFoundError(path)

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert asking._connect(early) is None
    assert early.exists()
