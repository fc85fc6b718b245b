"""Log records: a constant message, the changing parts as fields; one line of text or of JSON each, on stderr.

Workers do not log: they tell the supervisor, which logs for all (see `messages.py`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

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
            record.getMessage(),
            *(f"{name}={_word(value)}" for name, value in found.items()),
        ]
        return " ".join(words) + (f"\n{trace.rstrip()}" if trace else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (Unix seconds), `level`, `message`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up(log_format: str) -> logging.Handler:
    """Send the package's records to stderr in this format; return the handler, for `tear_down`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("conveyor")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def tear_down(handler: logging.Handler) -> None:
    """Undo `set_up`."""
    logger = logging.getLogger("conveyor")
    logger.removeHandler(handler)
    logger.propagate = True


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text
