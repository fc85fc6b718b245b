"""What a command says on standard error when it cannot do what was asked: a sentence, never a wait for its reader.

A fault of Conveyor's own, an exception that no module expects, gets its sentence before the traceback, and an exit code
of its own.
"""

from __future__ import annotations

import sys
import traceback

from conveyor.errors import FAULT_EXIT_CODE
from conveyor.output import Output, descriptor_of
from conveyor.wording import printable_lines


def complain(text: str) -> None:
    """Write what is wrong on standard error; drop it if nobody reads that."""
    told = f"conveyor: {printable_lines(text)}\n"
    descriptor = descriptor_of(sys.stderr, "stderr")
    if descriptor is None:
        sys.stderr.write(told)
        return
    output = Output(descriptor, sys.stderr.encoding)
    output.write(told)
    output.close()


def tell(error: Exception) -> int:
    """Say that the error is a fault of ours, and which; return the exit code."""
    kind = type(error).__qualname__
    trace = "".join(traceback.format_exception(error)).rstrip()
    complain(f"this is a fault of Conveyor's own, please report it with what follows: {kind}: {error}\n{trace}")
    return FAULT_EXIT_CODE
