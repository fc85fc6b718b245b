"""Threads that get in each other's way as often as they can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence


def run_at_once(works: Sequence[Callable[[], object]]) -> None:
    """Run each in a thread of its own, with the interpreter switching all the time; return when all have ended."""
    threads = [threading.Thread(target=work) for work in works]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
