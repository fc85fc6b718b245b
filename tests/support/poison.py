"""Good tasks, and four that are not, for a container with a limit of memory. Imports nothing of the tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from conveyor import Pipeline, Producer

VILLAINS = ("kills", "hangs", "raises", "eats memory")
NAP_SECONDS = 0.001


def course(tasks: int, poison: bool) -> Iterator[str]:
    """Yield so many good tasks, with the villains at even distances among them."""
    for number in range(tasks):
        if poison and number % (tasks // len(VILLAINS)) == 0 and number // (tasks // len(VILLAINS)) < len(VILLAINS):
            yield VILLAINS[number // (tasks // len(VILLAINS))]
        yield f"good {number}"


def taste(task: str) -> None:
    match task:
        case "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(3600)
        case "raises":
            raise ValueError("bad to the bone")
        case "eats memory":
            eaten = []
            while True:
                eaten.append(bytearray(b"x" * (1 << 20)))
        case _:
            time.sleep(NAP_SECONDS)


def poisoned(tasks: int = 10_000, poison: bool = True) -> Pipeline:
    """Good tasks and four villains.

    tasks: number of the good ones
    poison: whether the villains are among them
    """
    return Pipeline(name="poisoned", producers=[Producer(course, tasks, poison)], consumer=taste, consumers=4)
