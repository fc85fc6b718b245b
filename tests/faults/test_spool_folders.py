"""Folders that are no spool, or not ours alone: refused in one sentence, and nothing in them is touched."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conveyor import ConfigurationError
from conveyor.spool.folder import Spool
from conveyor.spool.rest import RestingSpool
from conveyor.spool.store import Changes
from support.commands import command, environment
from support.runs import WORKLOADS, running
from support.spools import chunk_row, slot_row
from support.waiting import wait_for

THEIRS = (
    "ledger-2025.csv",
    "leases-flat.pdf",
    "new-year.txt",
    "ledger-007",
    "leases-1.bak",
    "reserve.txt",
    "tasks.db.old",
)
OURS = ("tasks.db", "tasks.db-wal", "lock", "reserve", "ledger-1", "leases-1")
OTHER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return what each file holds, when it was changed, and its mode; and the same of the folder."""
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in folder.iterdir()}
    return files | {".": (b"", folder.stat().st_mtime_ns, folder.stat().st_mode)}


def begin(folder: Path) -> None:
    with contextlib.closing(Spool(folder, "normal")) as spool:
        spool.begin("numbers", {"producer-1": 0}, 2)


def rest(folder: Path) -> None:
    with RestingSpool(folder):
        pass


def refusal(folder: Path, act: Callable[[Path], None] = begin) -> str:
    with pytest.raises(ConfigurationError) as refused:
        act(folder)
    said = str(refused.value)
    assert said.startswith(f"the spool {folder} cannot be used: ")
    assert "\n" not in said
    return said


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool in the middle of its first start, as a SIGKILL leaves it."""
    with contextlib.closing(Spool(tmp_path / "first", "normal")) as spool:
        spool.begin("numbers", {"producer-1": 0}, 2)
        spool.store.write(Changes(slots=[slot_row("producer-1", 0)], chunks=[chunk_row(1)]))
        spool.store.write(Changes(puts={0: 10}))
        shutil.copytree(tmp_path / "first", tmp_path / "spool")
    return tmp_path / "spool"


# -- what is not a spool --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "dead"])
def test_a_folder_of_other_files_is_refused_and_nothing_in_it_is_touched(tmp_path: Path, verb: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in (*THEIRS, "lock", "ledger-2025", "tasks.db"):
        (folder / name).write_text(f"{name}, which is mine")
    if verb == "run":
        (folder / "tasks.db").unlink()
    before = state(folder)
    given = ("run", "kitchen") if verb == "run" else ("dead", "list")
    ended = command(tmp_path, *given, "--spool", str(folder))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    said = "it holds other files (" if verb == "run" else "tasks.db: file is not a database"
    assert ended.stderr.startswith(f"conveyor: the spool {folder} cannot be used: {said}")
    assert state(folder) == before


@pytest.mark.parametrize("name", [*THEIRS, "ledger-1", "reserve", "notes"])
def test_one_other_file_is_enough(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    before = state(tmp_path)
    assert repr(name) in refusal(tmp_path)
    assert state(tmp_path) == before


def test_a_lock_that_is_no_spools_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("hands off")
    before = state(tmp_path)
    refusal(tmp_path)
    assert state(tmp_path) == before


@pytest.mark.parametrize("left", [(), ("lock",), ("lock", "tasks.db")])
def test_what_a_start_that_was_killed_at_once_leaves_is_no_matter(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).write_text("123\n" if name == "lock" else "")
    (tmp_path / "lost+found").mkdir()  # at the top of a volume
    tmp_path.chmod(0o755)
    begin(tmp_path)


def test_other_files_beside_a_spool_are_left_alone(spool: Path) -> None:
    for name in (*THEIRS, "ledger-2025", "new-ledger.txt"):
        (spool / name).write_text(f"{name}, which is mine")
    before = {path.name: path.stat() for path in spool.iterdir() if path.name not in OURS}
    for _ in range(2):
        begin(spool)
    for name, status in before.items():
        after = (spool / name).stat()
        assert (spool / name).read_text() == f"{name}, which is mine"
        assert (after.st_mtime_ns, after.st_ino) == (status.st_mtime_ns, status.st_ino)
    assert {path.name for path in spool.iterdir()} == {
        *before, "tasks.db", "lock", "reserve", "ledger-3", "leases-3",
    }  # fmt: skip


def test_a_spool_whose_database_is_missing_is_not_begun_anew(spool: Path) -> None:
    for name in ("tasks.db", "tasks.db-wal"):
        (spool / name).unlink()
    before = state(spool)
    assert "its tasks.db is missing, but it holds 'leases-1', 'ledger-1', 'reserve'; put it back" in refusal(spool)
    assert state(spool) == before


# -- what is not ours alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
@pytest.mark.parametrize("act", [begin, rest])
def test_what_is_no_file_is_refused(spool: Path, name: str, kind: str, act: Callable[[Path], None]) -> None:
    target = spool.parent / "target"
    target.write_text("mine")
    (spool / name).unlink()
    match kind:
        case "link":
            (spool / name).symlink_to(target)
        case "folder":
            (spool / name).mkdir()
        case _:
            os.mkfifo(spool / name)
    before = target.stat()
    assert f"{name} in it is not a regular file of yours; move it away" in refusal(spool, act)
    assert (target.read_text(), target.stat().st_mtime_ns) == ("mine", before.st_mtime_ns)


@as_root
@pytest.mark.parametrize("act", [begin, rest])
def test_a_folder_or_a_file_of_another_user_is_refused(spool: Path, act: Callable[[Path], None]) -> None:
    os.chown(spool / "tasks.db", OTHER, -1)
    assert "tasks.db in it is not a regular file of yours" in refusal(spool, act)
    os.chown(spool, OTHER, -1)
    assert f"it belongs to another user (uid {OTHER}), and its tasks would run as you" in refusal(spool, act)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o707, 0o775])
@pytest.mark.parametrize("act", [begin, rest])
def test_a_folder_into_which_others_may_write_is_refused(spool: Path, mode: int, act: Callable[[Path], None]) -> None:
    spool.chmod(mode)
    assert f"others may write into it (mode {mode:04o})" in refusal(spool, act)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o711])
def test_a_folder_that_others_may_read_is_no_matter(spool: Path, mode: int) -> None:
    spool.chmod(mode)
    begin(spool)
    rest(spool)


def test_a_link_to_a_folder_is_no_matter(spool: Path) -> None:
    """As to another disk: the folder itself is looked at."""
    (spool.parent / "link").symlink_to(spool)
    begin(spool.parent / "link")


# -- what the system says no to -----------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [0, 10_000, 1 << 20, 10 << 20])
def test_a_limit_of_the_size_of_files_is_told(tmp_path: Path, most: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it
    with file_size(most):
        said = refusal(tmp_path / "spool")
    assert "File too large" in said or "disk" in said


def test_a_limit_that_is_reached_later_is_as_a_full_disk(tmp_path: Path) -> None:
    tasks, said, printed = 12_000, tmp_path / "said", tmp_path / "printed"
    typed = ("run", f"{WORKLOADS}:bulky", f"folder={tmp_path}", f"tasks={tasks}", "size=2000")
    with printed.open("wb") as output, said.open("wb") as errors:
        with file_size(20 << 20):
            process = subprocess.Popen(
                [sys.executable, "-m", "conveyor", *typed, "--spool", str(tmp_path / "spool")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment(tmp_path),
            )  # fmt: skip
        try:
            wait_for("the limit", lambda: b"the spool cannot be written: producers wait" in said.read_bytes())
            (tmp_path / "release").touch()
            assert process.wait(60) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()
    assert sorted(map(int, printed.read_text().split())) == list(range(tasks))
    assert "Traceback" not in said.read_text()


def test_a_removed_working_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = subprocess.run(
        ["sh", "-c", f"rmdir ../gone && exec {sys.executable} -m conveyor run kitchen --spool s"],
        cwd=tmp_path / "gone", env=environment(tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (
        2,
        "conveyor: --spool: 's' is not allowed; give an absolute path, because the working directory was removed\n",
    )


def test_a_spool_that_is_removed_during_a_run_is_told_and_what_is_left_is_not_said_to_be_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    arguments = (f"{WORKLOADS}:numbers", f"folder={tmp_path}", "tasks=10", "hold=5", "--consumers", "2")
    with running(tmp_path, *arguments, "--spool", str(folder), CONVEYOR_METRICS="off") as run:
        wait_for("all but one", lambda: run.status().total("processed") == 9)
        shutil.rmtree(folder)
        run.kill("consumer-1")  # so that there is something to write
        run.kill("consumer-2")
        wait_for("it to be noticed", lambda: "the spool was removed" in run.said())
        for _ in range(2):
            run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 4
        assert run.report["unfinished"] == 1
        assert "Traceback" not in run.said()
