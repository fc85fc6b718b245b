"""What can be wrong with the folder of a spool: said in a line before a worker starts, and nothing in it is changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from conveyor import ConfigurationError, Pipeline, Producer
from conveyor.spool.store import VERSION
from support.commands import command
from support.disks import fill, read_only, small_disk
from support.runs import WORKLOADS, running
from support.waiting import wait_for

OTHER = """
from conveyor import Pipeline, Producer
def other() -> Pipeline:
    return Pipeline(name="other", producers=[Producer(range, 3)], consumer=print)
"""


def refusal(folder: Path, spool: Path, *options: str, target: tuple[str, ...] = ()) -> str:
    """Run with this spool; return what it says. It must be one line, and nothing may have begun."""
    target = target or (f"{WORKLOADS}:numbers", f"folder={folder}")
    ended = command(folder, "run", *target, "--spool", str(spool), *options)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.startswith("conveyor: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def contents(spool: Path) -> dict[str, str]:
    """Return what is in each file of a folder, but for the lock's."""
    files = (path for path in spool.rglob("*") if path.is_file() and path.name != "lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of a run that was stopped in the middle: it holds tasks."""
    folder = tmp_path / "spool"
    arguments = (f"{WORKLOADS}:numbers", f"folder={tmp_path}", "tasks=100", "hold=3", "--consumers", "1")
    with running(tmp_path, *arguments, "--spool", str(folder), CONVEYOR_METRICS="off") as run:
        wait_for("the task", (tmp_path / "held-by").exists)
        wait_for("all to be accepted", lambda: run.status().total("produced") == 100)
        run.process.kill()
        run.process.wait()
    return folder


@contextlib.contextmanager
def unchanged(spool: Path) -> Iterator[None]:
    before = contents(spool)
    yield
    assert contents(spool) == before


def assert_it_goes_on(folder: Path, spool: Path) -> None:
    """Run what is in a spool to its end: nothing of it has gone."""
    (folder / "release").touch()
    ended = command(folder, "run", f"{WORKLOADS}:numbers", f"folder={folder}", "hold=3", "--spool", str(spool))
    assert ended.returncode == 0, ended.stderr
    assert set(map(int, ended.stdout.split())) >= set(range(3, 100))


def test_a_spool_in_use_is_refused_and_its_run_named(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    arguments = (f"{WORKLOADS}:numbers", f"folder={tmp_path}", "hold=0", "--spool", str(folder))
    with running(tmp_path, *arguments, CONVEYOR_METRICS="off") as run:
        wait_for("the task", (tmp_path / "held-by").exists)
        said = refusal(tmp_path, folder)
        assert f"the spool {folder} is in use by the run with pid {run.process.pid}; " in said
        assert "wait for its end, or give another folder" in said
        (tmp_path / "release").touch()
        assert run.wait() == 0  # it did not notice


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("mine")
    said = refusal(tmp_path, tmp_path / "spool")
    assert f"the spool {tmp_path / 'spool'} cannot be used: File exists; give a folder" in said
    assert (tmp_path / "spool").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(tmp_path, tmp_path / "file" / "spool")
    assert f"the spool {tmp_path / 'file' / 'spool'} cannot be used: Not a directory; give a folder" in said


def test_a_read_only_folder_is_refused_and_goes_on_later(tmp_path: Path, spool: Path) -> None:
    with read_only(spool), unchanged(spool):
        said = refusal(tmp_path, spool)
        assert f"the spool {spool} cannot be used: Read-only file system; give a folder that can be written to" in said
    assert_it_goes_on(tmp_path, spool)


def test_a_disk_without_room_for_a_spool_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        fill(disk / "filler", 4 << 20)
        said = refusal(tmp_path, disk / "spool")
        assert f"the spool {disk / 'spool'} cannot be used: No space left on device" in said


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path, spool: Path) -> None:
    at_rest(spool, f"PRAGMA user_version = {VERSION + 1}")
    with unchanged(spool):
        said = refusal(tmp_path, spool)
        assert f"the spool {spool} cannot be used: tasks.db: it was written by a newer version" in said
        assert f"(format {VERSION + 1}, this one knows {VERSION})" in said
        assert "or give another folder" in said
    at_rest(spool, f"PRAGMA user_version = {VERSION}")
    assert_it_goes_on(tmp_path, spool)


def at_rest(spool: Path, statement: str) -> None:
    """Change something, and leave the database as its last user would."""
    with contextlib.closing(sqlite3.connect(spool / "tasks.db", isolation_level=None)) as db:
        db.execute(statement)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "tasks.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    with unchanged(folder):
        assert "tasks.db: it is a database of another program" in refusal(tmp_path, folder)


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "tasks.db").write_text("a list of what I have to do" * 100)
    with unchanged(folder):
        assert "tasks.db: file is not a database" in refusal(tmp_path, folder)


def test_a_damaged_database_is_never_a_start_from_nothing(tmp_path: Path, spool: Path) -> None:
    at_rest(spool, "PRAGMA user_version")  # all of it is in one file now
    path = spool / "tasks.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with unchanged(spool):
        said = refusal(tmp_path, spool)
        assert f"the spool {spool} cannot be used: tasks.db: " in said
        assert "Nothing in it was changed; mend it, or give another folder" in said


def test_tasks_of_another_pipeline_are_left_alone(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    said = refusal(tmp_path, spool, target=(f"{tmp_path / 'other.py'}",))
    assert f"the spool {spool} holds tasks of the pipeline 'numbers', not of 'other'" in said
    assert "run it to its end, or give another folder" in said
    assert_it_goes_on(tmp_path, spool)


@pytest.mark.parametrize("kind", ["joinable", "sentinel"])
@pytest.mark.parametrize(("option", "value"), [("spool", "FOLDER"), ("retries", "3")])
def test_queues_that_can_do_neither_say_so(tmp_path: Path, kind: str, option: str, value: str) -> None:
    given = value.replace("FOLDER", str(tmp_path / "spool"))
    ended = command(
        tmp_path, "run", f"{WORKLOADS}:numbers", f"folder={tmp_path}", "--queue", kind, f"--{option}", given
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"conveyor: {option}: not with the queue {kind!r}; give 'leased'\n"
    assert not (tmp_path / "spool").exists()


def test_results_cannot_be_spooled(tmp_path: Path) -> None:
    pipeline = Pipeline(producers=[Producer(range, 3)], consumer=str)
    with pipeline.results(spool=tmp_path / "spool") as results:
        with pytest.raises(ConfigurationError, match="spool: not with results"):
            list(results)
    assert not (tmp_path / "spool").exists()


def test_a_spool_is_its_owners_alone(spool: Path) -> None:
    assert spool.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in spool.iterdir()} == {0}
