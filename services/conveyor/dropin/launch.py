"""Where a process that makes queues finds its broker: started with the first queue, and again if it has ended.

Called by `queue.py`. Nothing of it is inherited: a forked child that makes a queue starts a broker of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from multiprocessing import spawn
from pathlib import Path

import conveyor
from conveyor.dropin import talk
from conveyor.dropin.talk import CONTROL
from conveyor.errors import QueueLostError

# The process that we start forks at once and is gone: the broker is no child of ours.
_PROGRAM = """\
import os
if os.fork():
    os._exit(0)
import sys
sys.path.insert(0, {root!r})
from conveyor.dropin.broker import main
main()
"""

_lock = threading.RLock()  # a signal's handler may make a queue as well
# A number and no socket object: it is open until the process has ended, for children that outlive our last line.
_control = -1


def register(door: socket.socket, capacity: int) -> None:
    """Give the broker a new queue's door to keep."""
    global _control
    with _lock:
        for _ in range(3):
            if _control < 0:
                _control = _start()
            control = socket.socket(fileno=_control)
            try:
                talk.send_with(control, talk.REGISTER.pack(capacity), door.fileno())
                return
            except (BrokenPipeError, ConnectionResetError):  # it has ended, having nothing to do
                os.close(_control)
                _control = -1
            finally:
                control.detach()
    raise QueueLostError("the process that carries queues cannot be started; its standard error says why")


def forget() -> None:
    """Forget a parent's broker. Called in a forked child."""
    global _control, _lock
    _lock = threading.RLock()
    if _control >= 0:
        os.close(_control)
        _control = -1


def _start() -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = str(Path(conveyor.__file__).parents[1])
    executable = os.fsdecode(spawn.get_executable())
    arguments = [executable, "-I", "-S", "-c", _PROGRAM.format(root=root)]
    with theirs:
        pid = os.posix_spawn(
            executable, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL)]
        )
    _reap(pid)
    return ours.detach()


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the user has SIGCHLD ignored
        pass
    except BaseException:  # a signal's handler has raised
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        raise
