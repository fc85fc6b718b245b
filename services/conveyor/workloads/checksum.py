"""`checksum`: SHA-256 of every file below a folder, in the format that `sha256sum --check` reads.

A task is a batch of files: one small file is hashed faster than a task travels.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conveyor.errors import ConveyorError, WorkloadError
from conveyor.pipeline import Pipeline, Producer
from conveyor.settings import MAX_WORKERS

# A batch ends with the file that fills either. Arbitrary between "travels as fast as it is hashed" (16 files do)
# and "keeps all consumers busy to the end".
BATCH_FILES = 64
BATCH_BYTES = 4 << 20
BLOCK_BYTES = 1 << 20  # read at once; arbitrary, large enough that reading costs nothing beside hashing
# sha256sum writes these with a backslash, and one more in front of such a line. The backslash itself comes first.
ESCAPES = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"))


class FilesNotReadError(ConveyorError):
    """Some files of a batch could not be read; the others have their lines."""


@dataclass(slots=True)
class Batch:
    """Files to hash, and what could not even be listed: told with them, as the failure of a task."""

    paths: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    size: int = 0

    def is_full(self) -> bool:
        return len(self.paths) + len(self.problems) >= BATCH_FILES or self.size >= BATCH_BYTES


def checksum(root: Path, output: Path, producers: int = 1, append: bool = False) -> Pipeline:
    """Hash every regular file below a folder.

    root: the folder; links in it are not followed
    output: the file to write, replaced if there is one; check it with `sha256sum --check`
    producers: number of processes that list the folder, each the files of its share
    append: keep what is in the output, for a run that goes on where a spool says
    """
    if not root.is_dir():
        raise WorkloadError(f"checksum: root={root} is not a folder")
    if not 1 <= producers <= MAX_WORKERS:
        raise WorkloadError(f"checksum: producers={producers} is not allowed; give a number from 1 to {MAX_WORKERS}")
    try:
        output.open("ab" if append else "wb").close()
    except OSError as error:
        raise WorkloadError(f"checksum: output={output} cannot be written: {error.strerror}") from error
    return Pipeline(
        name="checksum",
        producers=[
            Producer(find_batches, os.fsencode(root), os.fsencode(output), share, producers)
            for share in range(producers)
        ],
        consumer=Hasher(os.fsencode(output.absolute())),
    )


def find_batches(root: bytes, output: bytes, share: int, shares: int) -> Iterator[Batch]:
    """Yield this share's regular files, some at a time, without the output file itself."""
    own = os.stat(output)  # noqa: PTH116 - a path of bytes
    batch = Batch()
    for path, found in find(root):
        if shares > 1 and zlib.crc32(path) % shares != share:
            continue
        if isinstance(found, OSError):
            batch.problems.append(_problem(path, found))
        elif not os.path.samestat(found, own):
            batch.paths.append(path)
            batch.size += found.st_size
        if batch.is_full():
            yield batch
            batch = Batch()
    if batch.paths or batch.problems:
        yield batch


def find(root: bytes) -> Iterator[tuple[bytes, os.stat_result | OSError]]:
    """Yield every regular file below with its status; what cannot be looked at, with the reason."""
    folders = [root]  # not by recursion: a path can have more folders than Python has room for calls
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, error
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:  # it vanished since
                yield entry.path, error
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                yield entry.path, status


@dataclass(frozen=True, slots=True)
class Hasher:
    """Appends a line for each file to the output, whole batches in one write, so that lines never mix."""

    output: bytes

    def __call__(self, batch: Batch) -> None:
        lines: list[bytes] = []
        problems = list(batch.problems)
        for path in batch.paths:
            try:
                lines.append(line(sha256(path), path))
            except OSError as error:
                problems.append(_problem(path, error))
        self._append(b"".join(lines))
        if problems:
            raise FilesNotReadError(f"{len(problems)} not read: {'; '.join(problems)}")

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self.output, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(descriptor, lines) < len(lines):
                raise OSError(f"{os.fsdecode(self.output)}: no space for all lines")
        finally:
            os.close(descriptor)


def sha256(path: bytes) -> str:
    """Return the digest of a regular file. Raises `OSError`, also for what has become something else by now."""
    # Without O_NONBLOCK, a pipe put in the file's place would have us wait for whoever writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "no regular file any more")
        digest = hashlib.sha256()
        # Not `hashlib.file_digest`: its buffer of 256 KiB costs more than a small file.
        while block := os.read(descriptor, min(status.st_size + 1, BLOCK_BYTES)):
            digest.update(block)
        return digest.hexdigest()
    finally:
        os.close(descriptor)


def line(digest: str, path: bytes) -> bytes:
    """Return the line that `sha256sum` writes for the file."""
    name = path
    for character, escape in ESCAPES:
        name = name.replace(character, escape)
    return b"%s%s  %s\n" % (b"\\" if name != path else b"", digest.encode(), name)


def _problem(path: bytes, error: OSError) -> str:
    return f"{os.fsdecode(path)}: {error.strerror}"
