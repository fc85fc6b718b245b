"""What the system gives a run at most: open files, whose number is raised as far as it lets us; processes; memory.

The usual soft limit, 1024, is enough for some 200 workers; the hard one is mostly far higher. Whoever hits it in the
middle of something is left with half of that, so no worker is started with the last descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from conveyor.errors import RunBrokenError

FILES_PER_WORKER = 6  # in the supervisor: its end, its pipes, its socket, its memory
# What a run has open beside its workers, and what its clients may take: some 330 of HTTP, 32 of the control socket.
FILES_OF_A_RUN = 400
LEAST_LEFT = 16  # that workers leave to all others
_SCARCE = {
    errno.EAGAIN: "processes or threads",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOMEM: "memory",
}


@contextlib.contextmanager
def raised(workers: int) -> Iterator[None]:
    """Have room for a run of so many workers, or for as many as the hard limit allows; have the old limit afterwards.

    What is started meanwhile inherits it: the fork server has a file open for each worker as well.
    """
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_OF_A_RUN + FILES_PER_WORKER * workers
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if before == resource.RLIM_INFINITY or limit <= before:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    try:
        yield
    finally:
        if resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, most):  # else somebody has changed it meanwhile
            with contextlib.suppress(ValueError, OSError):  # more are open than that
                resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def has_room() -> bool:
    """Return whether there are descriptors for one more worker, and some left for everything else."""
    limit = soft_limit()
    if limit is None:
        return True
    try:
        taken = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are counted, no paths are made)
    except OSError:  # for lack of descriptors, mostly
        return False
    return taken + FILES_PER_WORKER + LEAST_LEFT <= limit


def soft_limit() -> int | None:
    """Return how many files this process may have open, or None for no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Raise `RunBrokenError` that says of what there was too little, where a run could not even begin for that."""
    try:
        yield
    except OSError as error:
        if error.errno not in _SCARCE:
            raise
        raise RunBrokenError(f"{_TOO_FEW} {_SCARCE[error.errno]}: {error.strerror}") from error
    except MemoryError as error:
        raise RunBrokenError(f"{_TOO_FEW} {_SCARCE[errno.ENOMEM]}") from error
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise RunBrokenError(f"{_TOO_FEW} {_SCARCE[errno.EAGAIN]}: {error}") from error


_TOO_FEW = "the run cannot go on, as the system gives it no more"
