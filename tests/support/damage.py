"""Spools that are damaged by chance in the middle of a run: what can happen to their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from support import walking
from support.walking import KilledError, Start, World

FOREIGN = {"ledger-2025.csv": b"mine", "leases-flat.pdf": b"mine too", "new-year.txt": b"cheers", "ledger-07": b"old"}
OTHER_USER = 12345


class DamagedWorld(World):
    """Tasks of which some are done again: what a torn file would have said."""

    def __init__(self, folder: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, seed, patch)
        self.is_safe = True  # no kill within a step

    def execute(self, task: int) -> None:
        self.executed[task] += 1

    def raises(self, task: int) -> bool:
        return False  # how often a task is tried again depends on what is lost


class HalfStart(Start):
    """A start that is left in the middle, or goes on to its end without a kill."""

    def leave(self, steps: int, copy: Path) -> None:
        """Do some steps; have a copy of the folder as a SIGKILL would leave it, and stop."""
        self.check = lambda: None  # type: ignore[method-assign]
        self.hire()
        for _ in range(steps):
            self._step()
        shutil.copytree(self.world.folder, copy)
        self.kill()

    def finish(self) -> None:
        self.check = lambda: None  # type: ignore[method-assign]
        try:
            self.hire()
            while not self.is_over():
                self.world.steps += 1
                assert self.world.steps < 100_000, "it never ends"
                self._step()
        finally:
            self.kill()

    def _step(self) -> None:
        with contextlib.suppress(KilledError):  # not this time
            self.step()
        self.world.is_full = False

    def revive(self) -> None: ...


def half_done(folder: Path, seed: int, patch: pytest.MonkeyPatch) -> tuple[DamagedWorld, Path]:
    """Return a spool in the middle of its second start, and a copy of it in the middle of its first."""
    patch.setattr(walking, "TASKS", 40)
    world = DamagedWorld(folder / "original", seed, patch)
    HalfStart(world).leave(world.chance.randrange(400, 900), folder / "first")
    shutil.rmtree(world.folder)
    shutil.copytree(folder / "first", world.folder)
    HalfStart(world).leave(world.chance.randrange(100, 600), folder / "spool")
    if world.chance.random() < 0.5:  # all of the database in one file
        with contextlib.closing(sqlite3.connect(folder / "spool" / "tasks.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    world.folder = folder / "spool"
    return world, folder / "first"


# -- what can happen to a file -----------------------------------------------------------------------------------


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1) & ~7)


def make_odd(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1) | 1)


def empty(path: Path, chance: random.Random) -> None:
    os.truncate(path, 0)


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def flip_bits(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 2, 8, 64])):
        if content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def flip_a_bit_that_counts(path: Path, chance: random.Random) -> None:
    """Flip some among those that are not in a byte of zeros. Not in the ledger, whose counts nothing confirms."""
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if byte]
    for _ in range(chance.choice([1, 1, 4, 16])):
        if places and not path.name.startswith("ledger"):
            content[chance.choice(places)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def overwrite(path: Path, chance: random.Random) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(chance.randrange(max(1, size)) & ~511)
        length = chance.choice([512, 4096, 65536])
        file.write(chance.choice([chance.randbytes(length), bytes(length)]))


def link(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "elsewhere")


def make_folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def give_away(path: Path, chance: random.Random) -> None:
    if os.geteuid() == 0:
        os.chown(path, OTHER_USER, -1)


def take_from_first(path: Path, chance: random.Random) -> None:
    """Have what the file was in the middle of the first start, under the name that it has now."""
    kind = path.name.partition("-")[0]
    first = path.parent.parent / "first"
    for old in first.iterdir():
        if old.name.partition("-")[0] == kind and not old.name.startswith("tasks"):
            path.write_bytes(old.read_bytes())


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    damage.__name__: damage
    for damage in (
        truncate, make_odd, empty, remove, flip_bits, flip_a_bit_that_counts, overwrite, link, make_folder, make_pipe,
        give_away, take_from_first,
    )
}  # fmt: skip
COMMON = ["flip_a_bit_that_counts"] * 12  # as often as half of all others together: it is what is least easily seen
PRIVATE = {"open to all", "another user's"}


def damage(spool: Path, chance: random.Random) -> str:
    """Damage a spool; return how."""
    told = []
    for _ in range(chance.choice([1, 1, 2])):
        kind = chance.choice([*DAMAGES, *DAMAGES, *COMMON, "foreign files", "all of the first start", *PRIVATE])
        paths = [path for path in sorted(spool.iterdir()) if path.is_file() and not path.is_symlink()]
        paths = [path for path in paths if path.name not in FOREIGN and path.stat().st_uid == os.geteuid()]
        of_interest = [path for path in paths if path.name.startswith(("tasks.db", "ledger-", "leases-"))]
        path = chance.choice(of_interest if chance.random() < 0.8 else paths)
        match kind:
            case "foreign files":
                for name, content in FOREIGN.items():
                    (spool / name).write_bytes(content)
            case "all of the first start":
                shutil.rmtree(spool)
                shutil.copytree(spool.parent / "first", spool)
            case "open to all":
                spool.chmod(0o777)
            case "another user's":
                give_away(spool, chance)
            case _:
                kind = f"{kind} {path.name}"
                DAMAGES[kind.partition(" ")[0]](path, chance)
        told.append(kind)
    return ", ".join(told)


def foreign(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the content and the time of the last change of each file that is not of a spool."""
    paths = [folder / "elsewhere", *(folder / "spool" / name for name in FOREIGN)]
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in paths
        if path.exists()
    }
