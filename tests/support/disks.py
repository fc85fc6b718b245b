"""Disks of a test's own: small ones, and such that nobody may write to. Where mounting is not allowed, tests skip."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Have a disk of this size in a new folder."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(folder))
    with _unmounting(folder):
        yield folder


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Have nobody, root included, write into a folder."""
    _mount("--bind", str(folder), str(folder))
    with _unmounting(folder):
        _mount("-o", "remount,bind,ro", str(folder))
        yield


def fill(path: Path, size_bytes: int) -> None:
    """Take so much of the disk; remove the file to give it back."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    finally:
        os.close(descriptor)


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@contextlib.contextmanager
def _unmounting(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
