"""The errors a user of Conveyor can meet: one root, a subclass for each situation.

A message says what happened, to which thing, and what is allowed instead. The command line prints the
message without a traceback and leaves with `exit_code`.
"""

from __future__ import annotations


class ConveyorError(Exception):
    """The root of every error that Conveyor raises on purpose."""

    exit_code = 1


class ConfigurationError(ConveyorError):
    """A setting, an argument or an address is not usable; nothing has been started."""

    exit_code = 2


class WorkloadError(ConfigurationError):
    """A target cannot be loaded, is not a workload, or refuses its arguments."""


class TaskNotPicklableError(ConveyorError):
    """A producer yielded a value that cannot travel to another process."""


class ControlError(ConveyorError):
    """No run answers on the control socket, or it answers nonsense."""


class QueueLostError(ConveyorError, EOFError, OSError):
    """The process that made a drop-in queue, or its broker, has ended, and the queue with it.

    Also an `EOFError` and an `OSError`: what programs for `multiprocessing` catch.
    """
