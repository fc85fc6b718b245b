"""`checksum`: SHA-256 of every file below a folder, in the format that `sha256sum --check` reads.

A task is a batch of files: one small file is hashed faster than a task travels.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conveyor.errors import ConveyorError, WorkloadError
from conveyor.pipeline import Pipeline, Producer

# A batch ends with the file that fills either. Arbitrary between "travels as fast as it is hashed" (16 files do)
# and "keeps all consumers busy to the end".
BATCH_FILES = 64
BATCH_BYTES = 4 << 20
# sha256sum writes these with a backslash, and one more in front of such a line.
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


class FilesNotReadError(ConveyorError):
    """Some files of a batch could not be read; the others have their lines."""


def checksum(root: Path, output: Path, producers: int = 1) -> Pipeline:
    """Hash every regular file below a folder.

    root: the folder; links in it are not followed
    output: the file to write, replaced if there is one; check it with `sha256sum --check`
    producers: number of processes that list the folder, each the files of its share
    """
    if not root.is_dir():
        raise WorkloadError(f"checksum: root={root} is not a folder")
    if producers < 1:
        raise WorkloadError(f"checksum: producers={producers} is not allowed; give a number of at least 1")
    try:
        output.write_bytes(b"")
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


def find_batches(root: bytes, output: bytes, share: int, shares: int) -> Iterator[list[bytes]]:
    """Yield the paths of this share's regular files, some at a time, without the output file itself."""
    own = Path(os.fsdecode(output)).stat()
    batch: list[bytes] = []
    size = 0
    for path, status in _find(root):
        if zlib.crc32(path) % shares != share or (status and os.path.samestat(status, own)):
            continue
        batch.append(path)
        size += status.st_size if status else 0
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _find(folder: bytes) -> Iterator[tuple[bytes, os.stat_result | None]]:
    """Yield every file below; a folder that cannot be listed is yielded itself, to fail as a task."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder, None
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _find(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path, entry.stat(follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Hasher:
    """Appends a line for each file to the output, whole batches in one write, so that lines never mix."""

    output: bytes

    def __call__(self, batch: list[bytes]) -> None:
        lines: list[bytes] = []
        problems: list[str] = []
        for path in batch:
            try:
                with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a path of bytes
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                problems.append(f"{os.fsdecode(path)}: {error.strerror}")
            else:
                lines.append(_line(digest, path))
        descriptor = os.open(self.output, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b"".join(lines))
        finally:
            os.close(descriptor)
        if problems:
            raise FilesNotReadError(f"{len(problems)} of {len(batch)} files: {'; '.join(problems[:5])}")


def _line(digest: str, path: bytes) -> bytes:
    name = os.fsencode(os.fsdecode(path).translate(ESCAPES))
    return b"%s%s  %s\n" % (b"\\" if name != path else b"", digest.encode(), name)
