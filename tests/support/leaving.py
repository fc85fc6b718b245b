"""Programs that end while they use Conveyor: in every way, at every moment. Run as `python leaving.py WAY MOMENT FILE`.

Each says "ready" once it has come to its moment; the file grows by a byte for each task that is done.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import conveyor

WAYS = (
    "end of script",
    "exception",
    "sys.exit",
    "os._exit",
    "SIGINT",
    "SIGTERM",
    "SIGKILL",
    "exit in a thread",
    "pytest",
)
MOMENTS = ("before the first task", "in the middle", "results unread", "at the end")


class Work:
    """What a consumer does: tell that it has been done, and take its time."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, task: int) -> int:
        with Path(self.file).open("ab") as done:
            done.write(b".")
        time.sleep(0.005)  # the work
        return task


def nothing_yet() -> Iterator[int]:
    threading.Event().wait()
    yield 0


def begin(moment: str, file: str) -> conveyor.Results:
    """Return a run that has come to its moment."""
    work = Work(file)
    match moment:
        case "before the first task":
            results = conveyor.imap_unordered(work, nothing_yet(), consumers=2)
        case "in the middle":
            results = conveyor.imap_unordered(work, range(100_000), consumers=2)
            for _ in range(5):
                next(results)
        case "results unread":
            results = conveyor.imap_unordered(work, range(100_000), consumers=2)
            while not Path(file).exists():
                time.sleep(0.001)
        case _:
            results = conveyor.imap_unordered(work, range(20), consumers=2)
            for _ in range(20):  # all of them; but that they are all has not been seen
                next(results)
    return results


def leave(way: str) -> None:
    """End the program, unless somebody else does, or it has come to its end anyway."""
    match way:
        case "exception":
            raise ValueError("the program's own")
        case "sys.exit":
            sys.exit(7)
        case "os._exit":
            os._exit(7)
        case "SIGINT" | "SIGTERM" | "SIGKILL":
            wait_for_the_signal()


def wait_for_the_signal() -> NoReturn:
    while True:
        time.sleep(0.05)  # in pieces: a signal that comes just before the call does not end it


def in_a_thread(moment: str, file: str) -> None:
    kept.append(begin(moment, file))
    print("ready", flush=True)
    sys.exit(7)


kept: list[conveyor.Results] = []  # by the module, as in a script

if __name__ == "__main__":
    way, moment, file = sys.argv[1:]
    if way == "exit in a thread":
        threading.Thread(target=in_a_thread, args=(moment, file)).start()
    else:
        kept.append(begin(moment, file))
        print("ready", flush=True)
        leave(way)
