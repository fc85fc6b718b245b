"""Log records: a constant message, the changing parts as fields; one line of text or of JSON each, on stderr.

Workers do not log: they tell the supervisor, which logs for all (see `messages.py`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from conveyor.output import Output, descriptor_of
from conveyor.wording import printable, printable_json, printable_lines

FORMATS = ("text", "json")


def fields(**values: object) -> dict[str, dict[str, Any]]:
    """Return the `extra` of a log call that carries these fields."""
    return {"fields": values}


class TextFormatter(logging.Formatter):
    """`12:30:01 WARNING worker died slot=consumer-1 how=SIGKILL`, and a trace, if any, below."""

    def format(self, record: logging.LogRecord) -> str:
        found = dict(getattr(record, "fields", {}))
        trace = found.pop("trace", "")
        words = [
            time.strftime("%H:%M:%S", time.localtime(record.created)),
            record.levelname,
            printable(record.getMessage()),
            *(f"{name}={_word(value)}" for name, value in found.items()),
        ]
        return " ".join(words) + (f"\n{printable_lines(trace.rstrip())}" if trace else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (Unix seconds), `level`, `message`, then the fields.

    A field that has the name of one of these gets an underscore behind it: neither hides the other.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        found = getattr(record, "fields", {})
        entry |= {name + "_" if name in entry else name: value for name, value in found.items()}
        return printable_json(json.dumps(entry, ensure_ascii=False, default=str))


class Handler(logging.Handler):
    """Shows each record as lines: on stderr, or where `shown_by` has them go. Never waits for who reads them."""

    show: Callable[[str], None]

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.show = self._print
        self._output: Output | None = None

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # whoever read standard error has gone: the run goes on unheard
            self.show(self.format(record))

    def told(self, number: int) -> str:
        """Return the line that says how many were dropped."""
        made = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines were dropped"}
        return self.format(logging.makeLogRecord(made | fields(number=number, reason="they were not read")))

    def _print(self, lines: str) -> None:
        # In one write: the lines of workers, and of other runs, may come between two.
        descriptor = descriptor_of(sys.stderr, "stderr")
        if descriptor is None:  # a notebook's, or a test's
            sys.stderr.write(lines + "\n")
            return
        if self._output is None:
            self._output = Output(descriptor, sys.stderr.encoding, lambda number: self.told(number) + "\n")
        self._output.write(lines + "\n")

    def flush(self) -> None:
        """Wait for what is not written yet, if somebody reads it."""
        if self._output is not None:
            self._output.flush()

    def close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()
        super().close()

    @contextlib.contextmanager
    def shown_by(self, show: Callable[[str], None]) -> Iterator[None]:
        """Have another show the lines for a while."""
        self.show = show
        try:
            yield
        finally:
            self.show = self._print


@contextlib.contextmanager
def handled(log_format: str) -> Iterator[Handler]:
    """Show the package's records in this format, and nowhere else, for a while."""
    handler = Handler(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("conveyor")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        handler.close()
        level, logger.propagate = before
        logger.setLevel(level)


def _word(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain else printable_json(json.dumps(text, ensure_ascii=False))
