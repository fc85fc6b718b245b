"""A stop that is asked for at the very start is heard, and is no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.commands import environment
from support.runs import running
from support.waiting import wait_for

BLOCKING = ["env", *(f"--block-signal={name}" for name in ("TERM", "INT", "HUP"))]  # as in the image
RUN = [sys.executable, "-m", "conveyor", "run", "kitchen", "rounds=0"]


def mask(pid: int, name: str) -> set[int]:
    """Return the signals in one of the sets that the kernel has of a process: SigBlk, SigCgt."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    word = int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")), 16)
    return {number for number in range(1, 65) if word >> (number - 1) & 1}


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@contextlib.contextmanager
def as_first_process(folder: Path, command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command as the first process of a pid namespace, as a container's; yield its parent, and its pid."""
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(folder),
    ) as parent:
        try:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            pid = int(wait_for("a first process", lambda: children.read_text().split(), 10.0)[0])
        except AssertionError:
            pytest.skip("no pid namespace can be made here")
        try:
            yield parent, pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("milliseconds", [0, 20, 100, 400])
def test_a_stop_of_a_container_is_heard_whenever_it_comes(
    tmp_path: Path, milliseconds: int, number: signal.Signals
) -> None:
    with as_first_process(tmp_path, [*BLOCKING, *RUN]) as (parent, pid):
        wait_for("the first program", lambda: not program(pid).startswith("unshare"))  # which blocks some for a moment
        wait_for("ears", lambda: number in mask(pid, "SigBlk") | mask(pid, "SigCgt"))
        time.sleep(milliseconds / 1000)  # the moment is the matter: any is as good as another
        os.kill(pid, number)
        _, errors = parent.communicate(timeout=60)
        assert parent.returncode == 0, errors.decode()
        assert b"Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_is_heard_from_the_first_line_of_ours_on(tmp_path: Path, number: signal.Signals) -> None:
    with as_first_process(tmp_path, RUN) as (parent, pid):
        wait_for("a handler", lambda: signal.SIGTERM in mask(pid, "SigCgt"))
        os.kill(pid, number)
        _, errors = parent.communicate(timeout=60)
        assert parent.returncode == 0, errors.decode()
        assert b"Traceback" not in errors


def test_next_to_nothing_is_imported_before_signals_are_heard() -> None:
    code = "import sys; before = {*sys.modules}; import conveyor.early_signals; print(*{*sys.modules} - before)"
    shown = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    imported = set(shown.stdout.split())
    assert {name for name in imported if name.startswith("conveyor")} == {"conveyor", "conveyor.early_signals"}
    assert not imported & {"typing", "logging", "importlib.metadata", "multiprocessing", "re"}


SLOW = "import pathlib, time\npathlib.Path({!r}).touch()\ntime.sleep(600)\ndef workload(): ...\n"


def test_a_stop_ends_an_import_of_a_workload_that_takes_long(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    workload = tmp_path / "takes_long.py"
    workload.write_text(SLOW.format(str(begun)))
    with running(tmp_path, str(workload)) as run:
        wait_for("the import", begun.exists)
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        assert (run.report["ending"], run.report["produced"]) == ("drained", 0)
        assert "Traceback" not in run.said()


def test_ctrl_c_while_another_command_is_imported_is_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*BLOCKING, sys.executable, "-m", "conveyor", "workloads"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
    ) as process:
        wait_for("a program", lambda: signal.SIGINT in mask(process.pid, "SigBlk") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) in ((-signal.SIGINT, b""), (130, b""))


# -- the terminal goes away --------------------------------------------------------------------------------


def test_a_hang_up_drains(tmp_path: Path) -> None:
    with running(tmp_path, "kitchen", "rounds=0", CONVEYOR_METRICS="off") as run:
        wait_for("a task to be done", lambda: run.status().total("processed"))
        run.process.send_signal(signal.SIGHUP)
        assert run.wait() == 0
        assert run.report["ending"] == "drained"


def test_a_hang_up_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    nohup = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    report = tmp_path / "report"
    with subprocess.Popen(
        [sys.executable, "-c", nohup, *RUN, "--report", str(report)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path),
    ) as process:
        try:
            wait_for("a handler", lambda: signal.SIGTERM in mask(process.pid, "SigCgt"))
            wait_for("a run", lambda: (tmp_path / "conveyor" / f"{process.pid}.sock").exists())
            assert signal.SIGHUP not in mask(process.pid, "SigCgt")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert json.loads(report.read_text())["ending"] == "drained"
        finally:
            process.kill()
