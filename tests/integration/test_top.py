"""`conveyor top` on a terminal, beside a run of its own, as a person sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from conveyor.snapshot import Ending, Phase
from support.commands import command, environment
from support.fakes import make_run, make_slot
from support.runs import WORKLOADS, Run, running
from support.terminal import Terminal, on_terminal
from support.waiting import wait_for

OFTEN = ("--interval", "0.1")
TITLE = re.compile(r"endless  leased queue  running  0:00:\d\d")
HELP = re.compile(r"q quit  s ← → sort by worker  charts: last 3 min")


def run_without_end(folder: Path) -> AbstractContextManager[Run]:
    return running(folder, f"{WORKLOADS}:endless", f"folder={folder}", CONVEYOR_METRICS="off")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that goes on for as long as it is watched."""
    with run_without_end(tmp_path) as run:
        wait_for("tasks", lambda: run.status().total("processed"))
        yield run
        run.process.send_signal(signal.SIGTERM)
        run.wait()


def watch(
    folder: Path,
    *arguments: str,
    width: int = 100,
    height: int = 30,
    variables: dict[str, str] | None = None,
) -> AbstractContextManager[Terminal]:
    top = [sys.executable, "-m", "conveyor", "top", *(arguments or OFTEN)]
    return on_terminal(top, environment(folder, **(variables or {})), width, height, is_controlling=True)


def shows(terminal: Terminal, pattern: str | re.Pattern[str]) -> list[re.Match[str]]:
    return [match for line in terminal.screen.lines if (match := re.search(pattern, line))]


def await_line(terminal: Terminal, pattern: str | re.Pattern[str]) -> re.Match[str]:
    def look() -> re.Match[str]:
        found = shows(terminal, pattern)
        assert found, terminal.screen.lines
        return found[0]

    return wait_for(f"a line like {pattern}", look)


def end(terminal: Terminal) -> int:
    """Return the exit code; the terminal must be as it was before."""
    wait_for("the end", terminal.ended)
    assert terminal.echoes()
    assert terminal.screen.cursor_is_shown
    assert not terminal.screen.is_alternate
    code = terminal.process.poll()
    assert code is not None
    return code


# -- what it shows -----------------------------------------------------------------------------------------


def test_it_fills_the_terminal_and_goes_on(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, TITLE)
        assert terminal.screen.is_alternate
        assert not terminal.screen.cursor_is_shown
        assert not terminal.echoes()
        before = await_line(terminal, r"produced ([\d,]+) ")
        await_line(terminal, rf"produced (?!{before[1]} )[\d,]+ ")
        await_line(terminal, r"^produced/s +[▁▂▃▄▅▆▇█]+ +[\d.,]+ max [\d.,]+$")
        await_line(terminal, r"^waiting +[▁▂▃▄▅▆▇█]+ +\d+ max \d+$")
        for name in ("producer-1", "consumer-1", "consumer-2"):
            row = await_line(terminal, rf"^{name} +(busy|idle|blocked) .* \d+% +\d+ MiB .* {run.worker(name).pid}$")
            assert row
        lines = terminal.screen.lines
        assert len(lines) == 30
        assert HELP.match(lines[-1])


def test_a_death_is_explained(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, TITLE)
        run.kill("consumer-1")
        await_line(terminal, r"^consumer-1 SIGKILL 0:00:\d\d ago ")
        await_line(terminal, r"lived 0:00:\d\d")
        row = await_line(terminal, r"^consumer-1 +(busy|idle) .* 1 +\d+% +(\d+)$")
        assert int(row[2]) == run.worker("consumer-1").pid


def test_what_others_do_to_the_run_is_seen(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, TITLE)
        assert command(tmp_path, "pause").returncode == 0
        await_line(terminal, r"^endless  leased queue  running  paused  ")
        assert command(tmp_path, "resume").returncode == 0
        await_line(terminal, TITLE)
        assert command(tmp_path, "scale", "consumers=1..4").returncode == 0
        await_line(terminal, r"consumers \d of 1 to 4")
        assert command(tmp_path, "scale", "consumers=3").returncode == 0
        await_line(terminal, r"^consumer-3 +(busy|idle) ")


def test_the_workers_are_sorted_by_what_is_chosen(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, HELP)
        for key, by in (("s", "tasks"), ("\x1b[C", "cpu"), ("\x1bOC", "memory"), ("\x1b[D", "cpu"), ("S", "tasks")):
            terminal.type(key)
            await_line(terminal, f"sort by {by} ")
        await_line(terminal, r"^producer-1 ")  # it has as many as both consumers together
        names = [line.split()[0] for line in terminal.screen.lines if re.match(r"(producer|consumer)-\d ", line)]
        assert names[0] == "producer-1"
        terminal.type("x\x1b[A\x1b[5~")  # no keys of ours
        terminal.type("\x1b[D")
        await_line(terminal, HELP)


@pytest.mark.parametrize(("width", "height"), [(20, 5), (1, 1), (40, 12), (300, 80)])
def test_it_keeps_to_a_terminal_of_any_size(tmp_path: Path, run: Run, width: int, height: int) -> None:
    with watch(tmp_path, width=width, height=height) as terminal:
        wait_for("a picture", lambda: terminal.screen.is_alternate and "".join(terminal.screen.lines))
        wait_for("some more", lambda: terminal.screen.lines and terminal.raw.count(b"\x1b[H") > 5)
        assert terminal.screen.lines[0].startswith("endless  running"[:width] if width < 40 else "endless  leased")
        assert len(terminal.screen.lines) == height
        assert terminal.screen.scrolled == []
        terminal.type("q")
        assert end(terminal) == 0


def test_a_new_size_is_drawn_at_once(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path, "--interval", "60", variables={"COLUMNS": "100", "LINES": "30"}) as terminal:
        await_line(terminal, HELP)
        for width, height in ((60, 10), (20, 5), (200, 60)):
            terminal.resize(width, height)
            wait_for("as many lines", lambda: len(terminal.screen.lines) == terminal.screen.height)
            assert terminal.screen.lines[0].startswith("endless ")
        await_line(terminal, HELP)


def test_a_terminal_that_has_no_size_yet_is_taken_for_one_of_80_by_24(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path, width=0, height=0) as terminal:
        terminal.screen.width, terminal.screen.height = 80, 24
        await_line(terminal, HELP)
        assert len(terminal.screen.lines) == 24


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_without_utf_8_charts_are_ascii(tmp_path: Path, run: Run, locale: dict[str, str]) -> None:
    with watch(tmp_path, variables=locale) as terminal:
        await_line(terminal, r"^produced/s +[_.:=+*#-]+ +[\d.,]+ max [\d.,]+$")
        await_line(terminal, r"^q quit  s sort by worker")
        assert terminal.raw.isascii()
        terminal.type("q")
        assert end(terminal) == 0


def test_in_a_bare_environment_it_draws(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path, variables=dict.fromkeys(("LANG", "LC_ALL", "LC_CTYPE", "LANGUAGE"), "")) as terminal:
        await_line(terminal, r"^produced/s +[▁▂▃▄▅▆▇█_.:=+*#-]+ +[\d.,]+ max [\d.,]+$")


# -- how it ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_a_key_ends_it_and_not_the_run(tmp_path: Path, run: Run, key: str) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, HELP)
        terminal.type(key)
        assert end(terminal) == 0
        assert terminal.screen.everything == [""]
        before = run.status().total("processed")
        wait_for("the run to go on", lambda: run.status().total("processed") > before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, run: Run, number: signal.Signals) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, HELP)
        terminal.process.send_signal(number)
        assert end(terminal) == 0


@pytest.mark.parametrize("is_controlling", [True, False], ids=["with SIGHUP", "without"])
def test_it_does_not_outlive_its_terminal(tmp_path: Path, run: Run, is_controlling: bool) -> None:
    top = [sys.executable, "-m", "conveyor", "top", *OFTEN]
    with on_terminal(top, environment(tmp_path), is_controlling=is_controlling) as terminal:
        await_line(terminal, HELP)
        terminal.hang_up()
        wait_for("the end", lambda: terminal.process.poll() is not None)
        assert terminal.process.returncode == 0


def test_an_error_of_its_own_gives_the_terminal_back(tmp_path: Path, run: Run) -> None:
    broken = (
        "import conveyor.cli, conveyor.top.page\n"
        "conveyor.top.page.Page.__rich_console__ = lambda *_: 1 / 0\n"
        "conveyor.cli.main()"
    )
    top = [sys.executable, "-c", broken, "top"]
    with on_terminal(top, environment(tmp_path), is_controlling=True) as terminal:
        assert end(terminal) == 1
        assert terminal.screen.lines[-2] == "ZeroDivisionError: division by zero"


def test_the_end_of_the_run_ends_it_with_the_last_counts(tmp_path: Path) -> None:
    arguments = ("numbers", f"folder={tmp_path}", "tasks=5", "hold=3", "--consumers", "1", "--metrics", "off")
    with running(tmp_path, f"{WORKLOADS}:{arguments[0]}", *arguments[1:]) as run:
        wait_for("the task that waits", lambda: (tmp_path / "held-by").exists())
        with watch(tmp_path, "--interval", "60") as terminal:  # so that it cannot know of the end by looking
            await_line(terminal, r"processed 3 ")
            (tmp_path / "release").touch()
            assert end(terminal) == 0
            await_line(terminal, r"^numbers  leased queue  ended ")
            await_line(terminal, r" 5 of 5$")
            await_line(terminal, rf"^the run with pid {run.process.pid} has ended: complete, exit code 0$")
        assert run.wait() == 0


def test_a_killed_run_ends_it_with_an_error(tmp_path: Path) -> None:
    with run_without_end(tmp_path) as run:
        wait_for("tasks", lambda: run.status().total("processed"))
        with watch(tmp_path, "--interval", "60") as terminal:
            await_line(terminal, TITLE)
            run.process.send_signal(signal.SIGKILL)
            run.wait()
            assert end(terminal) == 1
            await_line(terminal, TITLE)
            await_line(terminal, rf"^conveyor: the run with pid {run.process.pid} died without a word: killed, most ")


def test_a_run_that_has_no_room_for_one_more_watcher_is_not_taken_for_dead(tmp_path: Path) -> None:
    (tmp_path / "conveyor").mkdir(mode=0o700)
    run = make_run(make_slot("producer-1"), phase=Phase.ENDED, ending=Ending.DRAINED)
    answer = json.dumps({"ok": dataclasses.asdict(run)}).encode() + b"\n"
    farewells = iter([b"", b"", answer])

    class Reluctant(socketserver.StreamRequestHandler):
        """Looks like a run: answers, but has no farewell before the third time that it is asked for one."""

        def handle(self) -> None:
            self.wfile.write(answer if self.rfile.readline() == b"status\n" else next(farewells))

    path = str(tmp_path / "conveyor" / "1.sock")
    with socketserver.UnixStreamServer(path, Reluctant) as server, served(server):
        with watch(tmp_path, "--pid", "1") as terminal:
            assert end(terminal) == 0
            await_line(terminal, "^the run with pid 1 has ended: drained, exit code 0$")


@contextlib.contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def test_while_the_run_is_stopped_it_says_since_when_and_goes_on_after(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, TITLE)
        run.process.send_signal(signal.SIGSTOP)
        try:
            silence = await_line(terminal, r"^ no answer for (\S+): the run is stopped, or very busy$")
            terminal.type("s")
            await_line(terminal, "sort by tasks")  # keys work
            await_line(terminal, rf"^ no answer for (?!{silence[1]})")
        finally:
            run.process.send_signal(signal.SIGCONT)
        wait_for("no complaint", lambda: terminal.screen.lines and not shows(terminal, "no answer"))
        before = await_line(terminal, r"produced ([\d,]+) ")
        await_line(terminal, rf"produced (?!{before[1]} )[\d,]+ ")


# A shell with one job: what is stopped goes on when a line is typed.
SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
    os.tcsetpgrp(0, os.getpid())
    print("stopped", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_ctrl_z_gives_the_terminal_to_the_shell_for_a_while(tmp_path: Path, run: Run) -> None:
    shell = [sys.executable, "-c", SHELL, sys.executable, "-m", "conveyor", "top", *OFTEN]
    with on_terminal(shell, environment(tmp_path), is_controlling=True) as terminal:
        await_line(terminal, TITLE)
        terminal.type("\x1a")
        await_line(terminal, "^stopped$")
        assert terminal.echoes()
        assert terminal.screen.cursor_is_shown
        assert not terminal.screen.is_alternate
        terminal.type("fg\n")
        await_line(terminal, TITLE)
        assert not terminal.echoes()
        terminal.type("q")
        assert end(terminal) == 0


def test_ctrl_z_does_nothing_where_no_shell_could_bring_it_back(tmp_path: Path, run: Run) -> None:
    with watch(tmp_path) as terminal:
        await_line(terminal, TITLE)
        terminal.type("\x1a")
        terminal.type("s")
        await_line(terminal, "sort by tasks")
        terminal.type("q")
        assert end(terminal) == 0


# -- where it cannot be --------------------------------------------------------------------------------------


def test_without_a_run_it_says_so_and_touches_nothing(tmp_path: Path) -> None:
    with watch(tmp_path) as terminal:
        assert end(terminal) == 1
        await_line(terminal, "^conveyor: no run answers in ")
        assert b"\x1b" not in terminal.raw


def test_a_run_that_does_not_answer_at_all_is_not_waited_for(tmp_path: Path, run: Run) -> None:
    run.process.send_signal(signal.SIGSTOP)
    try:
        with watch(tmp_path) as terminal:
            assert end(terminal) == 1
            await_line(terminal, r"the run does not answer within 5 s$")
            assert b"\x1b" not in terminal.raw
    finally:
        run.process.send_signal(signal.SIGCONT)


def test_without_a_terminal_it_names_what_does_without(tmp_path: Path) -> None:
    shown = command(tmp_path, "top")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "`conveyor status`" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_terminal_that_cannot_move_its_cursor_is_none(tmp_path: Path) -> None:
    with watch(tmp_path, variables={"TERM": "dumb"}) as terminal:
        assert end(terminal) == 2


def test_without_keys_it_still_draws(tmp_path: Path, run: Run) -> None:
    with Path(os.devnull).open("rb") as nothing:
        with on_terminal(
            [sys.executable, "-m", "conveyor", "top"], environment(tmp_path), streams={"stdin": nothing.fileno()}
        ) as terminal:
            await_line(terminal, TITLE)
            terminal.process.send_signal(signal.SIGTERM)
            assert end(terminal) == 0


@pytest.mark.parametrize("interval", ["0", "61", "nan", "often", "-1"])
def test_a_wrong_interval_is_named(tmp_path: Path, interval: str) -> None:
    with watch(tmp_path, f"--interval={interval}") as terminal:
        assert end(terminal) == 2
        await_line(terminal, rf"^conveyor: --interval: '{interval}' is not allowed; give a number of seconds from 0.1")


def test_help_says_that_it_only_reads(tmp_path: Path) -> None:
    shown = command(tmp_path, "top", "--help", COLUMNS="200")
    assert shown.returncode == 0
    for word in ("only reads", "Ctrl-C", "--pid", "--interval", "exit codes"):
        assert word in shown.stdout
