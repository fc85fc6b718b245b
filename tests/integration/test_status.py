"""`conveyor status` and the control socket of a run, from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import conveyor
from conveyor import asking, control
from conveyor.cli import main
from conveyor.errors import ControlError
from conveyor.snapshot import from_plain
from support.commands import command
from support.runs import WORKLOADS, Run, running
from support.waiting import wait_for


def held(folder: Path) -> AbstractContextManager[Run]:
    """Start a run that waits in its third task until `release`."""
    return running(
        folder, f"{WORKLOADS}:numbers", f"folder={folder}", "tasks=5", "hold=3", "--consumers", "1",
        CONVEYOR_METRICS="off",
    )  # fmt: skip


def in_task(run: Run) -> None:
    """Return once all is produced, three tasks are done and the fourth waits."""
    wait_for("the task that waits", lambda: (run.folder / "held-by").exists())
    wait_for("the producer's end", lambda: run.worker("producer-1").finished)


def release(run: Run) -> int:
    (run.folder / "release").touch()
    return run.wait()


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this process a folder of control sockets of its own, and little patience."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    folder = tmp_path / "conveyor"
    folder.mkdir(mode=0o700)
    return folder


def listen(path: Path) -> socket.socket:
    """Return what looks like a run, and never answers."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


# -- what it shows -----------------------------------------------------------------------------------------


def test_a_run_is_shown_to_people(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        shown = command(tmp_path, "status", COLUMNS="100")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "numbers  leased queue  running" in shown.stdout
        assert "3 of 5" in shown.stdout
        rows = {line.split()[0]: line.split() for line in shown.stdout.splitlines()}
        assert rows["producer-1"][1:3] == ["finished", "5"]
        assert rows["consumer-1"][1:3] == ["busy", "3"]
        assert release(run) == 0


def test_a_run_is_shown_to_programs(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        for choice in ((), ("--pid", str(run.process.pid))):
            shown = command(tmp_path, "status", "--json", *choice)
            assert (shown.returncode, shown.stderr) == (0, "")
            seen = from_plain(json.loads(shown.stdout))
            assert (seen.name, seen.total("processed"), seen.queue.in_progress) == ("numbers", 3, 1)
            assert [slot.name for slot in seen.slots] == ["producer-1", "consumer-1"]
        assert release(run) == 0


def test_without_a_run_it_says_so(tmp_path: Path) -> None:
    for choice in ((), ("--json",), ("--pid", "1")):
        shown = command(tmp_path, "status", *choice)
        assert (shown.returncode, shown.stdout) == (1, "")
        assert shown.stderr.startswith("conveyor: no run ")
        assert shown.stderr.count("\n") == 1


def test_an_ended_run_has_no_socket_any_more(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        assert release(run) == 0
        assert list((tmp_path / "conveyor").iterdir()) == []


def test_the_socket_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        assert list((tmp_path / "conveyor").iterdir()) != []
        shown = command(tmp_path, "status")
        assert shown.returncode == 1
        assert "no run answers" in shown.stderr
        assert list((tmp_path / "conveyor").iterdir()) == []


def test_of_two_runs_one_must_be_chosen(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        with listen(tmp_path / "conveyor" / "1.sock"):
            shown = command(tmp_path, "status")
        assert (shown.returncode, shown.stdout) == (1, "")
        assert "there are 2 runs; choose one with --pid 1 or " in shown.stderr
        assert f"--pid {run.process.pid}" in shown.stderr
        assert release(run) == 0


# -- what answers wrongly ----------------------------------------------------------------------------------


def test_a_run_that_never_answers_is_not_waited_for(sockets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(sockets / "1.sock"):
        assert main(["status"]) == 1
    assert capsys.readouterr().err == f"conveyor: {sockets / '1.sock'}: the run does not answer within 0.2 s\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection without an answer"),
        (b"hello\n", "Expecting value"),
        (b"[1]\n", "'[1]' is not an answer"),
        (b'{"error": "no such request"}\n', "no such request"),
        (b'{"ok": {"name": "of the next version"}}\n', "of another version"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_in_one_line(
    sockets: Path, capsys: pytest.CaptureFixture[str], answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    monkeypatch.setattr(asking, "_connect", lambda path: ours)
    with theirs:
        assert main(["status", "--pid", "1"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_another_users_folder_is_not_believed(sockets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sockets.chmod(0o755)
    with listen(sockets / "1.sock"):
        assert main(["status"]) == 1
    assert "is not a folder of this user alone" in capsys.readouterr().err


# -- what the run bears ------------------------------------------------------------------------------------


def test_nobody_else_can_reach_the_socket(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        (path,) = (tmp_path / "conveyor").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert release(run) == 0


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_without_a_safe_folder_the_run_goes_on_with_a_warning(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "conveyor"
    match kind:
        case "open to others":
            folder.mkdir(mode=0o755)
        case "a link":
            (tmp_path / "real").mkdir(mode=0o700)
            folder.symlink_to("real")
        case "a file":
            folder.touch()
    with held(tmp_path) as run:
        assert release(run) == 0
        assert "WARNING no control socket" in run.said()
        assert str(folder) in run.said()
        assert sorted(map(int, run.lines())) == [0, 1, 2, 3, 4]


def test_a_socket_of_a_dead_run_with_our_pid_is_replaced(sockets: Path) -> None:
    listen(sockets / f"{os.getpid()}.sock").close()
    listen(sockets / f"{os.getpid()}.new").close()
    listener = control._listen(sockets / f"{os.getpid()}.sock")
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(sockets / f"{os.getpid()}.sock"))
    assert len(list(sockets.iterdir())) == 1


@pytest.mark.parametrize("request_", [b"stop\n", b"\n", b"\xff\x00\n", b"x" * 5000, b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_is_refused_and_disturbs_nobody(tmp_path: Path, request_: bytes) -> None:
    with held(tmp_path) as run:
        in_task(run)
        path = tmp_path / "conveyor" / f"{run.process.pid}.sock"
        with pytest.raises(ControlError, match=r"is not a request; allowed: status|reset|Broken pipe"):
            asking._ask(path, request_)
        assert run.status().total("processed") == 3
        assert release(run) == 0
        assert sorted(map(int, run.lines())) == [0, 1, 2, 3, 4]


def test_clients_that_never_ask_disturb_nobody(tmp_path: Path) -> None:
    with held(tmp_path) as run:
        in_task(run)
        path = str(tmp_path / "conveyor" / f"{run.process.pid}.sock")
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(control.MAX_CLIENTS)]
        for number, client in enumerate(crowd):
            client.connect(path)
            client.send(b"stat"[: number % 5])
        with pytest.raises(ControlError, match=r"closed the connection without an answer|reset|Broken pipe"):
            run.status()
        for client in crowd:
            client.close()
        assert wait_for("an answer", lambda: run.status()).total("processed") == 3
        assert release(run) == 0


# -- the other commands ------------------------------------------------------------------------------------


def test_the_workloads_are_listed_with_their_arguments(tmp_path: Path) -> None:
    listed = command(tmp_path, "workloads")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    assert ["kitchen:", "Cooks make dishes, diners eat them."] in lines
    assert ["checksum:", "Hash every regular file below a folder."] in lines
    assert ["spill=0.0", "share of the dishes whose eating fails, from 0 to 1"] in lines
    assert ["root", "the folder; links in it are not followed"] in lines
    assert all(len(line) == 2 for line in lines), "an argument without a meaning"


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    shown = command(tmp_path, "--version")
    assert (shown.returncode, shown.stdout) == (0, f"conveyor {conveyor.__version__}\n")


def test_help_names_every_option_and_exit_code(tmp_path: Path) -> None:
    shown = command(tmp_path, "run", "--help", COLUMNS="200")
    assert shown.returncode == 0
    for word in (
        "--producers", "--consumers", "--queue", "--maxsize", "--metrics", "--drain-timeout", "--log-format",
        "--report", "--start-method", "--no-progress", "CONVEYOR_CONSUMERS", "4 stopped with unfinished",
    ):  # fmt: skip
        assert word in shown.stdout
