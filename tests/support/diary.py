"""What consumers have begun and done, kept so that no SIGKILL can take it away: one small append for each fact."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, defaultdict
from pathlib import Path


class Diary:
    """Written by consumers, each process into a file of its own; read by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pid = self._descriptor = -1

    def __reduce__(self) -> tuple[object, ...]:
        return Diary, (self.folder,)

    def begin(self, task: int) -> None:
        self._note(b"begun %d\n" % task)

    def end(self, task: int) -> None:
        self._note(b"done %d\n" % task)

    def fail(self, task: int) -> None:
        self._note(b"failed %d\n" % task)

    def _note(self, line: bytes) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self.folder / f"{multiprocessing.current_process().name}.{self._pid}.diary"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._descriptor, line)  # whole or not at all: it is small, and the file is the kernel's


class Account:
    """All diaries of a run."""

    def __init__(self, folder: Path) -> None:
        self.begun: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()
        self.by: defaultdict[int, list[str]] = defaultdict(list)
        """Who has begun each task: slot and pid."""
        for path in sorted(folder.glob("*.diary")):
            for line in path.read_text().splitlines():
                word, _, task = line.partition(" ")
                {"begun": self.begun, "done": self.done, "failed": self.failed}[word][int(task)] += 1
                if word == "begun":
                    self.by[int(task)].append(path.stem)

    def twice(self) -> list[int]:
        """Return the tasks that were begun more than once."""
        return sorted(task for task, number in self.begun.items() if number > 1)
