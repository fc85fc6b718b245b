"""How many files a process may have open: raised to what a run needs, as far as the system lets us, and watched.

The usual soft limit, 1024, is enough for some 200 workers; the hard one is mostly far higher. Whoever hits it in the
middle of something is left with half of that, so no worker is started with the last descriptors.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

FILES_PER_WORKER = 6  # in the supervisor: its end, its pipes, its socket, its memory
# What a run has open beside its workers, and what its clients may take: 64 of HTTP, 32 of the control socket.
FILES_OF_A_RUN = 160
LEAST_LEFT = 16  # that workers leave to all others


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
