"""The user's functions on their way to worker processes: pickled once, when a run starts.

So every process of a slot gets the same, whatever the program does to an object meanwhile, and one that can no longer
be pickled ends no run at the next restart. The exception are objects that hold descriptors, such as
`multiprocessing.Queue`: these are sent anew to each process.

They are unpickled by the worker, when it can already tell its supervisor what went wrong.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, TypeVar

from conveyor.errors import ConfigurationError

T = TypeVar("T")


class Sealed(Generic[T]):
    """A value for worker processes, which `open` it."""

    def __init__(self, what: str, value: T) -> None:
        """Pickle the value; `what` names it. Raises `ConfigurationError` if it cannot be sent to another process."""
        rehearsal = _Rehearsal()
        set_spawning_popen(rehearsal)  # type: ignore[arg-type]
        try:
            file = io.BytesIO()
            _Pickler(file, what).dump(value)
        except ConfigurationError:
            raise
        except Exception as error:  # whatever a user's __reduce__ raises
            raise ConfigurationError(
                f"{what} cannot be sent to a worker process ({error}); give functions of a module's top level, "
                "and arguments that pickle can store"
            ) from error
        finally:
            set_spawning_popen(None)
        self._value = value  # kept too: a lock in it exists for as long as its owner
        self._pickle = None if rehearsal.has_sent else file.getvalue()

    def open(self) -> T:
        """Return the value. In a worker it is unpickled, which raises whatever that raises."""
        value: T = self._value if self._pickle is None else pickle.loads(self._pickle)
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {"_value": self._value if self._pickle is None else None, "_pickle": self._pickle}


class _Rehearsal:
    """Stands for a process that is being started: locks, pipes and the like let themselves be pickled only then."""

    def __init__(self) -> None:
        self.has_sent = False
        """Whether a descriptor was to be sent, whose number is good for one process alone."""

    def DupFd(self, number: int) -> int:  # noqa: N802  (as the fork server's has it)
        return self.duplicate_for_child(number)

    def duplicate_for_child(self, number: int) -> int:
        self.has_sent = True
        return number


class _Pickler(ForkingPickler):
    """Refuses what a worker could not find: what was typed in, and is in no file that could be imported."""

    def __init__(self, file: io.BytesIO, what: str) -> None:
        super().__init__(file)
        self._what = what

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__" and not _can_be_imported(value):
            raise ConfigurationError(
                f"{self._what}: {value.__qualname__} was defined in an interactive session, a notebook or "
                "`python -c`, where no worker process can import it; put it into a file, and import it from there"
            )
        return NotImplemented


def _can_be_imported(value: FunctionType | type) -> bool:
    """Return whether another process can find what is defined in the main module."""
    if isinstance(value, FunctionType) and value.__code__.co_filename.startswith("<"):
        return False  # typed in after a script has ended (`python -i`)
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return True  # python -m
    # Python forgets the name at the script's end, which threads may outlive; its loader does not.
    file = getattr(main, "__file__", None) or getattr(getattr(main, "__loader__", None), "path", None)
    return file is not None and Path(os.fsdecode(file)).exists()
