"""File descriptors as arguments of a worker process: sent along when it is started, by fork server or spawn."""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any


class Descriptor:
    """An open descriptor. The sender keeps its own; the receiver gets a duplicate, which it must close."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)

    def __reduce__(self) -> tuple[object, ...]:
        return _receive, (reduction.DupFd(self.number),)


def _receive(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())
