"""How times, rates, sizes and names are written, on a terminal and on the page."""

from __future__ import annotations

import time
import unicodedata


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
    """Return a text that a terminal shows as one line and does nothing else with.

    Everything that comes from a task, an exception or another process passes through here, or through the two below,
    before it reaches a terminal or a log line. A blank stands for each character that is not printable: control
    characters (C0, C1, DEL), whose sequences move the cursor or do worse, ends of lines, and those that turn the
    direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in encodable(text))


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of which a terminal only shows."""
    return "\n".join(map(printable, text.expandtabs().split("\n")))


def printable_json(json_text: str) -> str:
    """Return JSON that means the same, with escapes for all that is not printable, for JSON without ends of lines."""
    if json_text.isprintable():
        return json_text
    return "".join(character if character.isprintable() else _escaped(character) for character in json_text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # a blank of some kind
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
