"""How times, rates and names are written on the page."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Return a time as the terminal's picture has it: hours, minutes, seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def brief(rate: float) -> str:
    """Return a rate with as many digits as are read."""
    return f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}"


def iso(unix_seconds: float) -> str:
    """Return a time as ISO 8601 has it, in UTC: whoever reads it makes it local."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_seconds))


def encodable(text: str) -> str:
    """Write out what UTF-8 has no bytes for, lone surrogates, as the metrics do."""
    return text.encode(errors="backslashreplace").decode()
