"""No request of a client ends a run, and no answer of another process more than a command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from conveyor import asking, control, steering
from conveyor.cli import main
from conveyor.errors import ConfigurationError, ControlError, FaultError
from conveyor.loop import Loop
from conveyor.supervisor import Supervisor
from support.commands import command
from support.fakes import FakeRun, make_run, make_slot
from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for

RUN = make_run(make_slot("producer-1", pid=1), make_slot("consumer-1", pid=2))
HUGE = "99999999999999999999"


# -- what is asked ------------------------------------------------------------------------------------------


def tell(run: Run, line: bytes) -> bytes:
    """Send a request; return all that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(run.folder / "conveyor" / f"{run.process.pid}.sock"))
        client.sendall(line + b"\n")
        received = b""
        while data := client.recv(1 << 16):
            received += data
        return received


@pytest.fixture(params=["memory", "spool"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """A run that is in the middle of its work, with dead letters in memory or in a spool."""
    spool = ("--spool", str(tmp_path / "spool")) if request.param == "spool" else ()
    with running(tmp_path, f"{WORKLOADS}:endless", f"folder={tmp_path}", *spool, CONVEYOR_METRICS="off") as run:
        wait_for("a task", lambda: run.status().total("processed"))
        yield run


def test_a_run_answers_whatever_it_is_asked_and_goes_on(held: Run) -> None:
    for number in (HUGE, "9" * 900, "9223372036854775808", "9223372036854775807", "0", "-1", "1e9", "\u0663"):
        for verb in ("show", "retry", "purge", "list"):
            answer = json.loads(tell(held, f"dead {verb} {number}".encode()))
            assert "error" in answer or verb == "list", answer
    for line in (b"", b"\0", b"\xff\xfe", b"[" * 1000, b"scale consumers=" + b"9" * 900, b"dead show \xed\xa0\x80"):
        assert b"error" in tell(held, line)
    shown = command(held.folder, "dead", "show", HUGE)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"conveyor: dead: '{HUGE}' is not allowed; give the numbers")
    before = held.status().total("processed")
    wait_for("more tasks", lambda: held.status().total("processed") > before)
    held.process.terminate()
    assert held.wait() == 0
    assert "Traceback" not in held.said()


class Faulty(FakeRun):
    """Looks like a supervisor in which each request raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(RUN)
        self._error = error

    def pause(self) -> str:
        raise self._error


@contextlib.contextmanager
def turning(run: FakeRun) -> Iterator[None]:
    """Serve a run, and turn its loop in a thread."""
    is_over = threading.Event()
    errors: list[Exception] = []
    with contextlib.closing(Loop()) as loop:

        def turn() -> None:
            try:
                while not is_over.is_set():
                    loop.turn()
            except Exception as error:
                errors.append(error)

        with control.serving(cast(Supervisor, run), loop):
            thread = threading.Thread(target=turn)
            thread.start()
            try:
                yield
            finally:
                is_over.set()
                loop.wake()
                thread.join()
    assert errors == []


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("too large to convert"),
        RecursionError(),
        UnicodeError(),
        MemoryError(),
        OSError(5, "I/O"),
        KeyError(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_request_raises_is_its_answer_and_is_logged_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with turning(Faulty(error)):
        with pytest.raises(FaultError, match="pause: a fault of Conveyor's own, the run's log has its traceback"):
            asking.steer("pause", os.getpid())
        assert asking.status(os.getpid()) == RUN
    [record] = [record for record in caplog.records if record.message == "request failed"]
    assert "in pause" in record.__dict__["fields"]["trace"]


def test_an_answer_that_cannot_be_written_costs_its_client_the_connection_and_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run = FakeRun(RUN)
    with turning(run):
        monkeypatch.setitem(
            cast(dict[str, object], steering.REQUESTS), "pause", lambda supervisor, words: {"x": {1, 2}}
        )
        with pytest.raises(ControlError, match="without an answer"):
            asking.steer("pause", os.getpid())
        assert asking.status(os.getpid()) == RUN
    assert "client failed" in caplog.messages


# -- what is answered --------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, write: Callable[[socket.socket], object]) -> Iterator[None]:
    """Have each command ask a process that answers so."""
    threads: list[threading.Thread] = []

    def connect(path: Path) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(5)

        def answer() -> None:
            with theirs, contextlib.suppress(OSError):
                write(theirs)

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return ours

    monkeypatch.setattr(asking, "_find", lambda pid: Path(f"{pid}.sock"))
    monkeypatch.setattr(asking, "_connect", connect)
    yield
    for thread in threads:
        thread.join()


def endless(client: socket.socket) -> None:
    client.settimeout(10)
    while True:
        client.sendall(b"[" * 65536)


def test_an_answer_without_end_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 1 << 20)
    with answering(monkeypatch, endless), pytest.raises(ControlError, match="has no end within 1 MiB"):
        asking.status(1)


def test_an_answer_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    over = threading.Event()

    def trickle(client: socket.socket) -> None:
        while not over.wait(0.02):
            client.sendall(b" ")

    with answering(monkeypatch, trickle):
        with pytest.raises(ControlError, match="does not answer within"):
            asking.status(1)
        over.set()


def wrong(**changes: object) -> bytes:
    return json.dumps({"ok": dataclasses.asdict(RUN) | changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"ok": ' + b"[" * 200_000 + b"\n",
        b'{"ok": ' + b'{"a":' * 200_000 + b"\n",
        wrong(name=5),
        wrong(elapsed_seconds=float("nan")),
        wrong(elapsed_seconds=float("inf")),
        wrong(elapsed_seconds=10**400),
        wrong(started_at=1e300),
        wrong(slots=[{}]),
        wrong(deaths=7),
        wrong(failures={"a": "b"}),
        wrong(queue=None),
        b"\xff\xff\n",
    ],
    ids=range(12),
)
def test_an_answer_that_is_none_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    with answering(monkeypatch, lambda client: client.sendall(answer)):
        assert main(["status", "--pid", "1"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("conveyor: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("letters", [5, [5], [{"number": 1}], [{"number": "\x1b[2J"}]])
def test_dead_letters_that_are_none_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], letters: object
) -> None:
    answer = json.dumps({"ok": {"letters": letters}}).encode() + b"\n"
    for words in (["list"], ["show", "1"]):
        with answering(monkeypatch, lambda client: client.sendall(answer)):
            assert main(["dead", *words, "--pid", "1"]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_word_that_is_no_number_is_not_sent() -> None:
    for word in ("\ud800", "1\n2", HUGE, "9" * 5000):
        with pytest.raises(ConfigurationError, match="is not allowed"):
            asking.dead("show", [word], 1)
