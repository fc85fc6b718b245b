"""The one place where tests wait: for a fact, with a deadline, and showing what was seen when it never came."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_SECONDS = 30.0


def wait_for(what: str, look: Callable[[], T], deadline_seconds: float = DEADLINE_SECONDS) -> T:
    """Call `look` until it returns something true; return that. An exception counts as not yet."""
    until = time.monotonic() + deadline_seconds
    pause = 0.005
    seen: object = None
    while True:
        try:
            found = look()
            if found:
                return found
            seen = found
        except Exception as error:  # shown below, if it is the last thing we see
            seen = error
        if time.monotonic() > until:
            raise AssertionError(f"waited {deadline_seconds:g} s for {what}; last seen: {seen!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
