"""The command line, as `conveyor` and as `python -m conveyor`: hears signals first, then imports all the rest."""

import signal
import sys

from conveyor.early_signals import EarlySignals, unblock


def main() -> int:
    """Run the command that was typed; return its exit code."""
    signals = EarlySignals()
    if sys.argv[1:2] == ["run"]:
        signals.listen()
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of imports: they are not what was interrupted
    unblock()
    try:
        from conveyor import cli  # not before signals are heard

        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main(signals=signals)
    except Exception as error:  # a fault of ours, or an installation that lacks something
        from conveyor import faults

        return faults.tell(error)


if __name__ == "__main__":
    sys.exit(main())
