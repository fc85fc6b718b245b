"""A spool that is not over goes on with the same producers alone: others would pass over tasks that were never put."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import command
from support.diary import Account
from support.runs import Run, running
from support.waiting import wait_for

TESTS = Path(__file__).parents[1]
FORMAT_1 = TESTS / "data" / "spool-format-1"
TASKS = 300  # of each of two producers
NAMED = """
from pathlib import Path
from conveyor import Pipeline, Producer
from support.doom import Noting, numbered, untrapped
def workload(folder: Path, names: str = "a,b") -> Pipeline:
    none = untrapped(folder)
    producers = [
        Producer(numbered, 1_000_000 * n, 60, none, 30 if name == "b" else -1, folder / "gate", False, name=name)
        for n, name in enumerate(names.split(","))
    ]
    return Pipeline(name="named", producers=producers, consumer=Noting(folder, none, 0, -1, "", False, False, -1))
"""


def doomed(folder: Path, *more: str) -> tuple[str, ...]:
    return ("support.doom:doomed", f"folder={folder}", f"tasks={TASKS}", "gate_at=100", *more)


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Run]:
    own = folder / f"start-{len(list(folder.glob('start-*')))}"
    own.mkdir()
    options = ("--spool", str(folder / "spool"), "--metrics", "off", "--consumers", "2")
    with running(own, *arguments, *options, PYTHONPATH=str(TESTS)) as run:
        yield run


def kill(run: Run) -> None:
    run.process.kill()
    run.process.wait()


def refused(folder: Path, *arguments: str) -> str:
    ended = command(folder, "run", *arguments, "--spool", str(folder / "spool"), PYTHONPATH=str(TESTS))
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.startswith(f"conveyor: the spool {folder / 'spool'} holds a run that is not over, of other ")
    assert ended.stderr.endswith("; run it to its end as it was started, or give another folder\n")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_other_arguments_and_another_division_are_refused_and_the_same_again_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, *doomed(tmp_path)) as run:
        wait_for("all that there is", lambda: run.status().total("processed") == 200)
        kill(run)
    said = refused(tmp_path, *doomed(tmp_path, "tasks=200"))
    assert "the argument 2 of producer-1 was 300, and is 200;" in said
    said = refused(tmp_path, *doomed(tmp_path), "--producers", "3")
    assert "the producers were producer-1, producer-2 (2), and are producer-1, producer-2, producer-3 (3);" in said
    (tmp_path / "gate").touch()
    ended = command(
        tmp_path, "run", *doomed(tmp_path), "--spool", str(tmp_path / "spool"), "--consumers", "3",
        PYTHONPATH=str(TESTS), PYTHONHASHSEED="7",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    account = Account(tmp_path)
    assert set(account.done) == {1_000_000 * share + number for share in range(2) for number in range(TASKS)}
    assert account.twice() == []


def test_a_producer_under_another_name_is_refused_until_the_spool_is_over(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(NAMED)
    target = (str(tmp_path / "named.py"), f"folder={tmp_path}")
    with started(tmp_path, *target) as run:
        wait_for("all that there is", lambda: run.status().total("processed") == 90)
        kill(run)
    assert "the producers were a, b (2), and are a (1);" in refused(tmp_path, *target, "names=a")
    assert "the producers were a, b (2), and are a, c (2);" in refused(tmp_path, *target, "names=a,c")
    (tmp_path / "gate").touch()
    for names, total in (("a,b", 120), ("c,a", 120), ("a", 60)):  # to its end, and then whatever else
        with started(tmp_path, *target, f"names={names}") as run:
            assert run.wait() == 0, run.said()
            assert (run.report["produced"], run.report["processed"]) == (total, total)


def test_what_has_put_nothing_may_be_corrected(tmp_path: Path) -> None:
    """As after a first start with a misprint."""
    with started(tmp_path, *doomed(tmp_path, "gate_at=0")) as run:
        wait_for("the workers", lambda: all(slot.up for slot in run.status().slots))
        kill(run)
    with started(tmp_path, *doomed(tmp_path, "tasks=20", "gate_at=-1")) as run:
        assert run.wait() == 0, run.said()
        assert (run.report["produced"], run.report["processed"]) == (40, 40)


# -- a spool of format 1 ---------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a spool of format 1, in the middle of its run; see the README beside it."""
    with tarfile.open(FORMAT_1 / "half-done.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "spool").chmod(0o700)
    for gate in ("gate", "go-10", "go-110"):
        (tmp_path / gate).touch()
    return tmp_path


def old_run(folder: Path) -> tuple[str, ...]:
    return (str(FORMAT_1 / "half_done.py"), f"folder={folder}", "--spool", str(folder / "spool"))


def done(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "done.txt").read_text().split()]


def test_a_spool_of_format_1_goes_on_to_the_task(old: Path) -> None:
    before = done(old)
    ended = command(old, "run", *old_run(old), "--report", str(old / "report"))
    assert ended.returncode == 1, ended.stderr  # the one that had failed
    assert sorted(done(old)) == sorted({*range(40), *range(100, 160)} - {5})
    assert 0 < len(before) < 99
    assert "an earlier version wrote the spool: it cannot tell whether the arguments are the same" in ended.stderr
    (line,) = command(old, "dead", "list", "--spool", str(old / "spool")).stdout.splitlines()
    assert "ValueError: a task that fails" in line
    # From now on it is one of the present format.
    with contextlib.closing(sqlite3.connect(old / "spool" / "tasks.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_spool_of_format_1_tells_other_names_too(old: Path) -> None:
    renamed = old / "half_done.py"
    renamed.write_text((FORMAT_1 / "half_done.py").read_text().replace('"high"', '"higher"'))
    ended = command(old, "run", str(renamed), f"folder={old}", "--spool", str(old / "spool"))
    assert ended.returncode == 2
    assert "the producers were low, high (2), and are low, higher (2);" in ended.stderr
    with contextlib.closing(sqlite3.connect(old / "spool" / "tasks.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_letters_of_a_spool_of_format_1_are_tried_again(old: Path) -> None:
    where = ("--spool", str(old / "spool"))
    assert command(old, "dead", "retry", "all", *where).stdout == "1 tried again at the next start\n"
    ended = command(old, "run", *old_run(old))
    assert ended.returncode == 1, ended.stderr
    assert sorted(done(old)) == sorted({*range(40), *range(100, 160)} - {5})


def test_a_producer_that_format_1_went_on_without_does_not_keep_a_spool_from_being_over(old: Path) -> None:
    """As it was left where a producer had been removed after a kill: each later start did nothing."""
    with contextlib.closing(sqlite3.connect(old / "spool" / "tasks.db", isolation_level=None)) as db:
        db.execute("DELETE FROM chunks")
        db.execute("DELETE FROM progress")
        db.execute("UPDATE slots SET is_finished = 1 WHERE role = 'producer'")
        db.execute("INSERT INTO slots VALUES ('removed', 'producer', 1001, 50, 0, 0, x'')")
    (old / "done.txt").unlink()
    ended = command(old, "run", *old_run(old))
    assert ended.returncode == 1, ended.stderr
    assert sorted(done(old)) == sorted({*range(40), *range(100, 160)} - {5})


def test_a_spool_of_an_odd_version_is_refused(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old / "spool" / "tasks.db", isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 0")
    ended = command(old, "run", *old_run(old))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"the spool {old / 'spool'} cannot be used: tasks.db: it is damaged" in ended.stderr
    assert os.listdir(old / "spool")  # noqa: PTH208 - and left as it is
