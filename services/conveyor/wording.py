"""How times, rates, sizes and names are written, on a terminal and on the page."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Return a time as hours, minutes, seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def brief(rate: float) -> str:
    """Return a rate with as many digits as are read."""
    return f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}"


def size(number_of_bytes: int) -> str:
    """Return a size with as many digits as are read."""
    mebibytes = number_of_bytes / 2**20
    if mebibytes < 1:
        return f"{number_of_bytes / 2**10:,.0f} KiB"
    return f"{mebibytes:,.0f} MiB" if mebibytes < 10_000 else f"{mebibytes / 2**10:,.1f} GiB"


def iso(unix_seconds: float) -> str:
    """Return a time as ISO 8601 has it, in UTC: whoever reads it makes it local."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_seconds))


def encodable(text: str) -> str:
    """Write out what UTF-8 has no bytes for, lone surrogates, as the metrics do."""
    return text.encode(errors="backslashreplace").decode()


def printable(text: str) -> str:
    """Put a blank for what would move a terminal's cursor, or ring its bell."""
    return "".join(character if character.isprintable() else " " for character in encodable(text))
