"""Checksums of a real folder, verified by `sha256sum` itself, which shares no code with us."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support.runs import Run, running
from support.waiting import wait_for

NAMES = [
    b"plain",
    b"with space",
    b" spaces around ",
    b"two\nlines",
    b"carriage\rreturn",
    b"back\\slash",
    b"back\\nslash-n",
    b"all\\of\nthem\r",
    "包子".encode(),
    b"latin-\xe9",
    b"\xff\xfe",
    b"-rf",
    b"#comment",
    b"*star",
    b"tab\there",
    b"quote'\"",
]


def make_files(root: Path) -> int:
    """Make a folder with what is hard about names and sizes; return the number of regular files."""
    start = os.fsencode(root)
    folders = [b"", b"nested", b"nested/deeper \n still", b"nested/deeper \n still/\xff", b"empty folder"]
    for folder in folders:
        os.makedirs(os.path.join(start, folder), exist_ok=True)  # noqa: PTH103, PTH118 - paths of bytes
    for folder in folders[:-1]:
        for number, name in enumerate(NAMES):
            Path(os.fsdecode(os.path.join(start, folder, name))).write_bytes(bytes([number]) * number)  # noqa: PTH118
    (root / "large").write_bytes(os.urandom(9_000_000))
    (root / "link to file").symlink_to("plain")
    (root / "link to folder").symlink_to("nested")
    (root / "link to nothing").symlink_to("nowhere")
    (root / "link to itself").symlink_to(".")
    os.mkfifo(root / "pipe")
    return (len(folders) - 1) * len(NAMES) + 1


def checksum(folder: Path, root: Path, output: Path, *arguments: str) -> AbstractContextManager[Run]:
    return running(
        folder,
        "checksum",
        f"root={root}",
        f"output={output}",
        *arguments,
        "--consumers",
        "4",
        CONVEYOR_METRICS="off",
    )


def verify(output: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", output], check=True)


@pytest.mark.parametrize("queue", ["sentinel", "joinable"])
@pytest.mark.parametrize("producers", [1, 3])
def test_sha256sum_agrees_about_every_file(tmp_path: Path, queue: str, producers: int) -> None:
    files = make_files(tmp_path / "root")
    output = tmp_path / "sums"
    with checksum(tmp_path, tmp_path / "root", output, f"producers={producers}", "--queue", queue) as run:
        assert run.wait() == 0
        assert run.lines() == []
        assert run.report["failed"] == 0
    assert output.read_bytes().count(b"\n") == files
    verify(output)


def test_its_lines_are_those_of_sha256sum(tmp_path: Path) -> None:
    make_files(tmp_path / "root")
    output = tmp_path / "sums"
    with checksum(tmp_path, tmp_path / "root", output) as run:
        assert run.wait() == 0
    command = ["find", str(tmp_path / "root"), "-type", "f", "-exec", "sha256sum", "{}", "+"]
    theirs = subprocess.run(command, check=True, capture_output=True).stdout
    assert sorted(output.read_bytes().splitlines()) == sorted(theirs.splitlines())


def test_an_output_inside_the_root_is_replaced_and_not_hashed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = make_files(root)
    output = root / "nested" / "sums"
    output.write_text("what was there before")
    with checksum(tmp_path, root, output, "--producers", "2") as run:
        assert run.wait() == 0
    assert output.read_bytes().count(b"\n") == files
    verify(output)


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path / "root")
    with checksum(tmp_path, Path("root"), Path("sums")) as run:
        assert run.wait() == 0
    assert b"  root/plain\n" in Path("sums").read_bytes()
    verify(Path("sums"))


def test_an_empty_folder_gives_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with checksum(tmp_path, tmp_path / "root", tmp_path / "sums") as run:
        assert run.wait() == 0
    assert (tmp_path / "sums").read_bytes() == b""


def test_what_cannot_be_read_is_a_failed_task_with_its_path_and_the_others_have_lines(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = make_files(root)
    hidden = hide_a_folder(root)
    output = tmp_path / "sums"
    with checksum(tmp_path, root, output, "producers=3") as run:
        assert run.wait() == 1
        assert run.report["failures"] == {"FilesNotReadError": 1}
        assert re.search(rf"{re.escape(str(hidden))}: File name too long", run.said())
    assert output.read_bytes().count(b"\n") == files
    verify(output)


def hide_a_folder(root: Path) -> Path:
    """Make folders in folders until the path of the last is longer than the kernel takes; return its path.

    Nobody can open it by that path, not even root, for whom permissions do not count.
    """
    name = "x" * 250
    path = root
    descriptor = os.open(root, os.O_RDONLY)
    while len(os.fsencode(path)) < 4096:
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, path = inner, path / name
    os.close(descriptor)
    return path


def test_a_run_that_is_killed_goes_on_from_its_spool_and_keeps_its_lines(tmp_path: Path) -> None:
    root, output, spool = tmp_path / "root", tmp_path / "SUMS", ("--spool", str(tmp_path / "spool"))
    for number in range(3000):
        path = root / str(number % 30) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with checksum(tmp_path / "first", root, output, *spool) as run:
        wait_for("some lines", lambda: output.exists() and output.stat().st_size)
        run.process.kill()
        run.process.wait()
    with checksum(tmp_path / "second", root, output, "append=yes", *spool) as run:
        assert run.wait() == 0, run.said()
    lines = set(output.read_text().splitlines())  # a batch that was in hand at the kill may be there twice
    assert len(lines) == 3000
    subprocess.run(["sha256sum", "--check", "--quiet", str(output)], check=True)
