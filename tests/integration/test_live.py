"""`conveyor run` on a terminal, as a person sees it."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.commands import environment
from support.terminal import Terminal, on_terminal
from support.waiting import wait_for

TABLE_HEAD = re.compile(r"worker +state +tasks")
TITLE = re.compile(r"kitchen  leased")


def watch(
    folder: Path, *arguments: str, width: int = 100, height: int = 30, term: str = "xterm", **streams: int
) -> AbstractContextManager[Terminal]:
    command = [sys.executable, "-m", "conveyor", "run", *arguments]
    return on_terminal(command, environment(folder, TERM=term), width, height, streams)


def end(terminal: Terminal) -> int:
    """Return the exit code, once all is read."""
    wait_for("the end", terminal.ended)
    code = terminal.process.poll()
    assert code is not None
    return code


def heads(terminal: Terminal) -> list[str]:
    return [line for line in terminal.screen.everything if TABLE_HEAD.match(line)]


def test_it_shows_the_workers_while_they_work_and_their_lines_above(tmp_path: Path) -> None:
    with watch(tmp_path, "kitchen", "speed=3") as terminal:  # a dish then outlasts a picture
        wait_for("a busy diner", lambda: any(re.match("zhang-san +busy", line) for line in terminal.screen.lines))
        assert not terminal.screen.cursor_is_shown
        assert end(terminal) == 0
        seen = terminal.screen.everything
        assert sum(" ate " in line for line in seen) == len({line for line in seen if " ate " in line}) == 10
        assert all(" ate " in line for line in seen[:10]), "all lines stand above the picture"
        assert seen[10].startswith("kitchen  leased queue  ended")
        assert "10 of 10" in seen[12]
        assert [line.split()[:3] for line in seen[14:18]] == [
            ["chef-1", "finished", "5"], ["chef-2", "finished", "5"],
            ["zhang-san", "finished", seen[16].split()[2]], ["li-si", "finished", seen[17].split()[2]],
        ]  # fmt: skip
        assert "INFO run ended" in seen[18]
        assert len(heads(terminal)) == 1, "nothing of earlier pictures is left"
        assert terminal.screen.cursor_is_shown


def test_what_is_logged_stands_above_too(tmp_path: Path) -> None:
    with watch(tmp_path, "kitchen", "speed=20", "spill=1", "lang=zh") as terminal:
        assert end(terminal) == 1
        seen = terminal.screen.everything
        assert sum("WARNING task failed" in line for line in seen) == 10
        assert sum("Traceback" in line for line in seen) == 2
        assert len(heads(terminal)) == 1
        table = seen.index(heads(terminal)[0])
        assert all("WARNING" not in line for line in seen[table:])
        assert seen[table + 1].startswith("大厨_1")


def test_after_an_interrupt_the_terminal_is_usable(tmp_path: Path) -> None:
    with watch(tmp_path, "kitchen", "rounds=0", "speed=20") as terminal:
        wait_for("a dish", lambda: any(" ate " in line for line in terminal.screen.lines))
        os.killpg(terminal.process.pid, signal.SIGINT)  # as Ctrl-C does: the whole group gets it
        assert end(terminal) == 0
        assert terminal.screen.cursor_is_shown
        assert any("INFO draining" in line for line in terminal.screen.everything)
        assert "ending=drained" in "".join(terminal.screen.everything[-4:])
        assert len(heads(terminal)) == 1


@pytest.mark.parametrize(("width", "height"), [(200, 50), (80, 24), (40, 10), (20, 5)])
def test_more_workers_than_lines_never_scroll(tmp_path: Path, width: int, height: int) -> None:
    numbers = ("diners=60", "cooks=5", "rounds=0", "speed=20")
    with watch(tmp_path, "kitchen", *numbers, width=width, height=height) as terminal:
        wait_for("dishes", lambda: sum(" ate " in line for line in terminal.screen.everything) > 2 * height)
        scrolled = terminal.screen.scrolled
        assert [line for line in scrolled if TITLE.match(line) or TABLE_HEAD.match(line) or " busy " in line] == []
        last_line = re.compile("and .. more: " if height > 5 else TITLE.pattern)
        wait_for("a picture", lambda: any(last_line.match(line) for line in terminal.screen.lines))
        terminal.process.send_signal(signal.SIGTERM)
        assert end(terminal) == 0
        assert sum(bool(TITLE.match(line)) for line in terminal.screen.everything) == 1
        assert len(heads(terminal)) <= 1


def test_without_progress_it_prints_plainly(tmp_path: Path) -> None:
    with watch(tmp_path, "kitchen", "speed=50", "--no-progress") as terminal:
        assert end(terminal) == 0
        assert b"\x1b" not in terminal.raw
        assert sum(" ate " in line for line in terminal.screen.everything) == 10


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(tmp_path: Path) -> None:
    with watch(tmp_path, "kitchen", "speed=50", term="dumb") as terminal:
        assert end(terminal) == 0
        assert b"\x1b" not in terminal.raw
        assert sum(" ate " in line for line in terminal.screen.everything) == 10


def test_with_stdout_piped_it_can_draw_on_stderr(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        with watch(tmp_path, "kitchen", "speed=20", "--progress", stdout=file.fileno()) as terminal:
            wait_for("a picture", lambda: heads(terminal))
            assert end(terminal) == 0
            assert len(heads(terminal)) == 1
            assert "INFO run ended" in "".join(terminal.screen.everything)
    lines = output.read_text().splitlines()
    assert len(lines) == 10
    assert all(" ate " in line for line in lines)


def test_a_log_that_goes_to_a_file_stays_out_of_the_picture(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with errors.open("wb") as file:
        with watch(tmp_path, "kitchen", "speed=20", "spill=1", "--progress", stderr=file.fileno()) as terminal:
            assert end(terminal) == 1
            assert len(heads(terminal)) == 1
            assert "WARNING" not in "".join(terminal.screen.everything)
    assert errors.read_text().count("WARNING task failed") == 10


def test_with_no_terminal_at_all_progress_is_not_drawn(tmp_path: Path) -> None:
    output, errors = tmp_path / "output", tmp_path / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        arguments = ("kitchen", "speed=50", "--progress")
        with watch(tmp_path, *arguments, stdout=out.fileno(), stderr=err.fileno()) as terminal:
            assert end(terminal) == 0
    assert len(output.read_text().splitlines()) == 10
    assert [line[9:13] for line in errors.read_text().splitlines()] == ["INFO"]


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_what_workers_print_is_shown_as_it_is(tmp_path: Path, start: str) -> None:
    long = "x" * 250
    lines = ["[bold]:bug: \\[/]", "包子 馒头", "tab\\there", long]
    (tmp_path / "mine.py").write_text(
        "import sys\n"
        "from conveyor import Pipeline, Producer\n"
        "def show(task):\n"
        "    print(task, file=sys.stderr if len(task) > 200 else sys.stdout)\n"
        f"def lines() -> Pipeline:\n"
        f"    return Pipeline(producers=[Producer(iter_lines)], consumer=show, consumers=1)\n"
        f"def iter_lines():\n"
        f"    yield from {lines!r}\n"
    )
    with watch(tmp_path, str(tmp_path / "mine.py"), "--start-method", start) as terminal:
        assert end(terminal) == 0
        assert terminal.screen.everything[:3] == lines[:3]
        assert "".join(terminal.screen.everything[3:6]) == long
