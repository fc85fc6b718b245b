"""The errors a user of Conveyor can meet: one root, a subclass for each situation.

A message says what happened, to which thing, and what is allowed instead. The command line prints the
message without a traceback and leaves with `exit_code`.
"""

from __future__ import annotations

FAULT_EXIT_CODE = 70
"""Of a fault of Conveyor's own, as sysexits.h has it: EX_SOFTWARE."""


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


class TaskTooLargeError(ConveyorError):
    """A producer yielded a value that is larger than the queue can keep."""


class ControlError(ConveyorError):
    """No run answers on the control socket, or it answers nonsense."""


class LetterUnkeptError(ControlError):
    """A dead letter cannot be tried again, because its task could not be kept; others can."""


class FaultError(ConveyorError):
    """A run could not answer because of a fault of Conveyor's own, which its log explains."""

    exit_code = FAULT_EXIT_CODE


class TaskFailedError(ConveyorError):
    """A task raised an exception that cannot travel, or returned before it was done; the text tells of it."""


class TaskDiedError(ConveyorError):
    """A task was given up, because each worker that had it in hand died."""


class RunBrokenError(ConveyorError):
    """A run ended before all of its work was done."""

    exit_code = 3


class RemoteTraceback(Exception):  # noqa: N818 (it is shown as the cause of an error, and is none)
    """The traceback of an exception in another process, as text."""

    def __init__(self, trace: str) -> None:
        super().__init__(trace)
        self.trace = trace

    def __str__(self) -> str:
        return f"\n\n{self.trace}"


class QueueLostError(ConveyorError, EOFError, OSError):
    """The process that made a drop-in queue, or its broker, has ended, and the queue with it.

    Also an `EOFError` and an `OSError`: what programs for `multiprocessing` catch.
    """
