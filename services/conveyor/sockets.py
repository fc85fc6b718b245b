"""Where the control sockets of runs are: in a folder of their user alone, each called after the pid of its run."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from conveyor.errors import ControlError

ROOT = 0


def folder(environment: Mapping[str, str] = os.environ, user: int | None = None) -> Path:
    """Return where the sockets of a user's runs are, given the environment of the runs: by default our own."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "conveyor" if runtime else Path(f"/tmp/conveyor-{os.getuid() if user is None else user}")


def check(place: Path, user: int | None = None) -> None:
    """Raise `OSError` unless the folder is this user's alone: others can make one of its name below /tmp."""
    status = place.lstat()
    owner = os.getuid() if user is None else user
    if status.st_uid != owner:
        raise PermissionError(f"{place} belongs to another user (uid {status.st_uid}): no run of uid {owner} is there")
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise PermissionError(f"{place} is not a folder of this user alone; remove it, or set its mode to 0700")


def of_run(pid: int) -> Path:
    """Return where the socket of this run is, if it is a run; root's way to the runs of others too.

    Raises `ControlError` if it is somebody else's, and `OSError` if its folder is not its user's alone.
    """
    name, place, user = f"{pid}.sock", folder(), os.getuid()
    if not os.access(place / name, os.F_OK):
        place, user = _folder_of(pid)
    check(place, user)
    return place / name


def _folder_of(pid: int) -> tuple[Path, int]:
    """Return where this process would have its socket, and whose it is. Ours, if there is no such process."""
    process = Path(f"/proc/{pid}")
    try:
        owner = process.stat().st_uid
        if owner != os.getuid() and os.getuid() != ROOT:
            raise ControlError(
                f"process {pid} is another user's (uid {owner}); only that user, or root, can steer a run of theirs"
            )
        lines = (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it is not there, or has just ended
        return folder(), os.getuid()
    environment = {os.fsdecode(name): os.fsdecode(value) for name, _, value in (line.partition(b"=") for line in lines)}
    return folder(environment, owner), owner
