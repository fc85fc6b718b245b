"""A terminal: runs a command on a pseudo-terminal and draws what it writes, as a person would see it.

It knows what `rich` uses and no more; anything else on it is an error, because it would be garbage.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len

PART = re.compile(r"\x1b\[(\??\d*(?:;\d+)*)([A-Za-z])|\r|\n|[^\x1b\r\n]")
CUT = re.compile(r"\x1b(\[[?\d;]*)?$")  # the rest of the sequence is still to come


class Screen:
    """Lines of cells, a cursor, and what has scrolled off the top. A wide character takes two cells."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.scrolled: list[str] = []
        self.cursor_is_shown = True
        self.is_alternate = False
        self._main: list[list[str]] = []  # what the alternate screen hides
        self._lines: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unread = ""

    @property
    def lines(self) -> list[str]:
        """What is on the screen now, without the blanks at the ends of lines."""
        return ["".join(line).rstrip() for line in self._lines]

    @property
    def everything(self) -> list[str]:
        """What a person sees who scrolls back to the top."""
        return self.scrolled + self.lines

    def feed(self, data: bytes) -> None:
        """Draw."""
        text = self._unread + self._decoder.decode(data)
        cut = CUT.search(text)
        text, self._unread = (text[: cut.start()], cut.group()) if cut else (text, "")
        position = 0
        while position < len(text):
            part = PART.match(text, position)
            assert part, f"no terminal sequence: {text[position : position + 20]!r}"
            position = part.end()
            self._do(part)

    def _do(self, part: re.Match[str]) -> None:
        match part.group(2), part.group(1), part.group():
            case "m", _, _:
                pass
            case "A", count, _:
                self._row -= int(count or 1)
                assert self._row >= 0, "the cursor left the top: what stands there would be drawn over"
            case "K", "2", _:
                self._lines[self._row] = []
            case ("h" | "l") as switch, "?25", _:
                self.cursor_is_shown = switch == "h"
            case ("h" | "l") as switch, "?1049", _:
                self._switch(to_alternate=switch == "h")
            case "H", "", _:
                self._row = self._column = 0
            case None, _, "\r":
                self._column = 0
            case None, _, "\n":
                self._new_line()
            case None, _, character:
                self._put(character)
            case _:
                raise AssertionError(f"no sequence of ours: {part.group()!r}")

    def _switch(self, *, to_alternate: bool) -> None:
        assert to_alternate is not self.is_alternate
        self.is_alternate = to_alternate
        if to_alternate:
            self._main, self._lines = self._lines, [[]]
            self._row = self._column = 0
        else:
            self._lines = self._main
            self._row, self._column = len(self._lines) - 1, 0

    def resize(self, width: int, height: int) -> None:
        """Have another size; what is shown is lost, as all may be garbled until it is drawn again."""
        self.width, self.height = width, height
        self._lines, self._row, self._column = [[]], 0, 0

    def _put(self, character: str) -> None:
        cells = cell_len(character)
        if self._column + cells > self.width:
            self._new_line()
        line = self._lines[self._row]
        line += " " * (self._column - len(line))
        line[self._column : self._column + cells] = [character, ""][:cells]
        self._column += cells

    def _new_line(self) -> None:
        self._row += 1
        self._column = 0  # the terminal's own driver sends a return before it
        if self._row == len(self._lines):
            self._lines.append([])
        if len(self._lines) > self.height:
            assert not self.is_alternate, "a line too many: the screen scrolls"
            self.scrolled.append("".join(self._lines.pop(0)).rstrip())
            self._row -= 1


class Terminal:
    """A process on a terminal; reading the screen is what moves it on."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, screen: Screen) -> None:
        self.process = process
        self.raw = b""
        self._descriptor = descriptor
        self._screen = screen

    @property
    def screen(self) -> Screen:
        """The screen, with all that was written until now."""
        while data := self._read():
            self.raw += data
            self._screen.feed(data)
        return self._screen

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has the other end open any more
                raise
            return b""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._descriptor, text.encode())

    def resize(self, width: int, height: int) -> None:
        """Change the size, as a person who pulls at the window's corner."""
        self._screen.resize(width, height)
        _set_size(self._descriptor, width, height)

    def echoes(self) -> bool:
        """Return whether the terminal shows what is typed, as it does between two commands."""
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ECHO)

    def hang_up(self) -> None:
        """Be gone, as a window that is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def ended(self) -> bool:
        """Return whether the process has ended; its output is read while it has not."""
        return self.screen is not None and self.process.poll() is not None


def _set_size(descriptor: int, width: int, height: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


# Makes standard input the terminal of the session, so that keys become signals, and a new size does.
CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str],
    environment: Mapping[str, str],
    width: int = 100,
    height: int = 30,
    streams: Mapping[str, int] | None = None,
    *,
    is_controlling: bool = False,
) -> Iterator[Terminal]:
    """Run a command whose three streams are a terminal, but for those that are given."""
    if is_controlling:
        command = [sys.executable, "-c", CONTROLLED, *command]
    ours, theirs = os.openpty()
    _set_size(theirs, width, height)
    os.set_blocking(ours, False)
    every = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | dict(streams or {})
    size_is_the_terminals = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command,
        env={"TERM": "xterm"} | size_is_the_terminals,
        start_new_session=True,
        **every,  # type: ignore[call-overload]
    ) as process:
        os.close(theirs)
        terminal = Terminal(process, ours, Screen(width, height))
        try:
            yield terminal
        finally:
            process.kill()
            terminal.hang_up()
