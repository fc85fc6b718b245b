"""The user's terminal while it is ours: the alternate screen without a cursor, and keys as they are pressed.

Whoever enters it leaves it, by way of `finally`: nothing but a SIGKILL can keep the terminal from being given back.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import sys
import termios
from types import TracebackType

from rich.console import Console, RenderableType
from rich.control import Control
from rich.screen import Screen as Shape
from rich.segment import ControlType

from conveyor.errors import ConfigurationError

_FALLBACK_SIZE = 80, 24  # of a terminal that has not been told its size yet, as that of `docker exec` at first
_READ_BYTES = 1024


class Key(enum.Enum):
    """What a user can ask for."""

    QUIT = enum.auto()
    NEXT = enum.auto()
    BEFORE = enum.auto()


# Arrows come in two spellings; whatever else a terminal sends is matched too, so that its letters are no keys.
_SEQUENCE = re.compile(rb"\x1b[\[O][0-9;]*([~A-Za-z])|\x1b.?|(.)", re.DOTALL)
_ARROWS = {b"C": Key.NEXT, b"D": Key.BEFORE}
_LETTERS = {b"q": Key.QUIT, b"Q": Key.QUIT, b"\x03": Key.QUIT, b"s": Key.NEXT, b"S": Key.BEFORE}


def keys(data: bytes) -> list[Key]:
    """Return the keys that stand for something in what a terminal sent."""
    found = [_ARROWS.get(arrow) or _LETTERS.get(letter) for arrow, letter in _SEQUENCE.findall(data)]
    return [key for key in found if key is not None]


class Screen:
    """Standard output, which must be a terminal, and standard input if that is one."""

    def __init__(self) -> None:
        """Raises `ConfigurationError` if there is nothing to draw on."""
        self.console = Console(highlight=False, force_terminal=True)
        if not sys.stdout.isatty() or self.console.is_dumb_terminal:
            raise ConfigurationError(
                "conveyor top draws on a terminal, and standard output is none that it can draw on; "
                "`conveyor status` prints the same once"
            )
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a name in letters that it has not
        self.input = sys.stdin.fileno() if sys.stdin.isatty() else None
        """The descriptor that keys come from, if any do."""
        self._attributes_before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Screen:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        if self.input is not None:
            self._attributes_before = termios.tcgetattr(self.input)
            termios.tcsetattr(self.input, termios.TCSADRAIN, _unechoed(termios.tcgetattr(self.input)))
        self.console.set_alt_screen(True)
        self.console.show_cursor(False)

    def leave(self) -> None:
        """Give the terminal back as it was. One that has gone needs nothing."""
        try:
            self.console.show_cursor(True)
            self.console.set_alt_screen(False)
        except OSError:
            # What could not be written stays in the buffer. Since Python 3.14 the interpreter fails over it at its end.
            _discard_output()
        with contextlib.suppress(OSError, termios.error):
            if self.input is not None and self._attributes_before is not None:
                termios.tcsetattr(self.input, termios.TCSADRAIN, self._attributes_before)

    def draw(self, picture: RenderableType) -> None:
        """Show a picture, as large as the terminal is now, in one write: every cell is drawn over, none cleared."""
        self.console.size = _size()  # rich itself would go by COLUMNS and LINES, which do not follow the terminal
        with self.console:
            self.console.control(Control(ControlType.HOME))
            self.console.print(Shape(picture), end="")

    def read(self) -> list[Key]:
        """Return the keys that were pressed; that nobody is there any more to press one is a wish to quit."""
        assert self.input is not None
        try:
            data = os.read(self.input, _READ_BYTES)
        except OSError:
            data = b""
        return keys(data) if data else [Key.QUIT]


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _size() -> tuple[int, int]:
    width, height = os.get_terminal_size(sys.stdout.fileno())
    return width or _FALLBACK_SIZE[0], height or _FALLBACK_SIZE[1]


def _unechoed(attributes: list[int | list[bytes | int]]) -> list[int | list[bytes | int]]:
    """Return a terminal's attributes so that keys come one by one and unseen, and none stops its output.

    Ctrl-C and Ctrl-Z remain signals.
    """
    input_flags, _, _, local_flags, *_ = attributes
    assert isinstance(input_flags, int)
    assert isinstance(local_flags, int)
    attributes[0] = input_flags & ~termios.IXON
    attributes[3] = local_flags & ~(termios.ICANON | termios.ECHO)
    return attributes
