"""A clock that tests move by hand, in the place of the monotonic one."""

from __future__ import annotations


class Clock:
    """Stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns
