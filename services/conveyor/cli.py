"""The command line: `conveyor run`, `status`, `scale` and so on. Parses, checks, and calls; decides nothing itself.

Every worker process imports this module too (it is the main module of the `conveyor` script), so whatever takes
long to import is imported by the command that uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import select
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import conveyor
from conveyor import faults, logs, settings, system_limits, targets
from conveyor.early_signals import EarlySignals, StoppedEarlyError
from conveyor.errors import ConfigurationError, ConveyorError
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.pipeline import Attachment, Pipeline, StopRequests
from conveyor.report import Report
from conveyor.settings import OPTIONS, Settings
from conveyor.supervisor import Supervisor
from conveyor.wording import printable, printable_json, printable_lines
from conveyor.workloads import SHIPPED

if TYPE_CHECKING:
    from conveyor.live import View

log = logging.getLogger(__name__)

PID_HELP = "of which run, if there are several; for root also one of another user"
STEERING = {
    "scale": "Change the number of consumers of a run. Those that are too many leave after the task that they are in. "
    "With MIN..MAX their number follows the backlog from now on, with N it stays.",
    "pause": "Have a run begin no more tasks. Those in hand are finished; producers go on while there is room.",
    "resume": "Have a paused run go on. So does draining, and a SIGTERM.",
    "drain": "Have a run stop producing, finish what is unfinished, and end. Waits for the end of its process, however "
    "long that takes; to interrupt the waiting changes nothing for the run. (A SIGTERM to the run drains too, within "
    "its --drain-timeout.)",
}
DEAD = {
    "list": "show each in a line",
    "show": "show one with its traceback",
    "retry": "put some back into the queue, as new tasks",
    "purge": "forget some",
}
INTERRUPTED = 130  # as shells call the end by SIGINT, where no run was there to drain


def main(arguments: Sequence[str] | None = None, signals: EarlySignals | None = None) -> int:
    """Run one command; return its exit code. `signals` are those that may have come already.

    Raises only what no module expects, a fault of ours; `__main__` tells of it.
    """
    _hold_standard_streams()
    try:
        given = _parse(arguments)
        if given.command == "run":
            return _run(given, signals or EarlySignals())
        return COMMANDS[given.command](given)
    except ConveyorError as error:
        faults.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush does not fail too
        return 1


def _hold_standard_streams() -> None:
    """Have all three of them, if our parent closed some: else another file would get what workers print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # which dup2 leaves alone where both are the same
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


# -- parsing -----------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error here."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; see {self.prog} --help")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    given, rest = _parser().parse_known_args(arguments)
    unknown = [word for word in rest if word.startswith("-") or given.command != "run"]
    if unknown:
        meant = targets.meant(unknown[0].partition("=")[0], [option.flag for option in OPTIONS])
        raise ConfigurationError(f"unknown argument {unknown[0]}{meant}; see conveyor {given.command} --help")
    if given.command == "run":
        given.arguments = [*given.arguments, *rest]  # argparse stops collecting KEY=VALUE at the first option
    return given


def _parser() -> Parser:
    parser = Parser(prog="conveyor", description=conveyor.__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"conveyor {conveyor.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(("run", *COMMANDS)))

    run = commands.add_parser(
        "run",
        help="run a workload to its end",
        description="Run a workload to its end. Each option can also be set by an environment variable, "
        "CONVEYOR_CONSUMERS and so on; the option wins.",
        epilog="exit codes: 0 done, or stopped and drained, or the rest is in the spool; 1 done, but tasks failed or "
        "were given up; 2 usage; "
        "3 a producer died or tasks were lost; 4 stopped with unfinished tasks; 70 a fault of Conveyor's own",
        allow_abbrev=False,
    )
    run.add_argument("target", metavar="TARGET", help=f"{', '.join(SHIPPED)}, file.py[:name] or package.module:name")
    run.add_argument("arguments", metavar="KEY=VALUE", nargs="*", default=[], help="arguments of the workload")
    for option in OPTIONS:
        if option.placeholder:
            run.add_argument(option.flag, dest=option.field, metavar=option.placeholder, help=option.help)
        else:
            run.add_argument(option.flag, dest=option.field, action=argparse.BooleanOptionalAction, help=option.help)

    status = commands.add_parser("status", help="show a run that is going on", allow_abbrev=False)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--pid", type=int, metavar="N", help=PID_HELP)
    _add_top(commands)
    _add_steering(commands)
    _add_dead(commands)
    commands.add_parser("workloads", help="list the workloads that ship, with their arguments", allow_abbrev=False)

    bench = commands.add_parser(
        "bench",
        help="measure how fast it is, against others",
        description="Measure how fast it is: against the standard library's queue in the same run, and with --peers "
        "against its pools and other libraries.",
        epilog="exit codes: 0 measured, whatever the figures; 1 something of Conveyor's own failed; 2 usage",
        allow_abbrev=False,
    )
    bench.add_argument("--peers", action="store_true", help="measure pools and other libraries too (some 10 minutes)")
    bench.add_argument("--rows", metavar="A,B,...", help="only these rows (all)")
    bench.add_argument("--rounds", metavar="N", help="of how many measurements the medians are (5, quick 2)")
    bench.add_argument("--quick", action="store_true", help="fewer and shorter measurements (under a minute)")
    bench.add_argument("--json", metavar="FILE", help="write all figures to this file, or to standard output with -")
    bench.add_argument("--picture", metavar="FILE", help="draw the rates as an SVG")
    return parser


def _add_top(commands: argparse._SubParsersAction[Parser]) -> None:
    top = commands.add_parser(
        "top",
        help="watch a run that is going on, on the whole terminal",
        description="Watch a run that is going on, on the whole terminal: charts of its rates and its backlog, each "
        "worker with its CPU and memory, the last deaths. It only reads: nothing here changes the run.",
        epilog="keys: q or Ctrl-C quits; s and the arrows left and right choose what workers are sorted by. "
        "exit codes: 0 you or the run ended it; 1 there is no run, or it was killed; 2 usage, or no terminal",
        allow_abbrev=False,
    )
    top.add_argument("--pid", type=int, metavar="N", help=PID_HELP)
    top.add_argument("--interval", metavar="S", default="1", help="seconds from one look to the next (1)")


def _add_dead(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add what is done with tasks that were given up."""
    meaning = "Tasks that were given up: list them, show why, try them again or forget them"
    dead = commands.add_parser("dead", help=meaning[0].lower() + meaning[1:], description=meaning, allow_abbrev=False)
    verbs = dead.add_subparsers(dest="verb", required=True, metavar="list|show|retry|purge")
    for verb, about in DEAD.items():
        command = verbs.add_parser(verb, help=about, description=about, allow_abbrev=False)
        if verb == "show":
            command.add_argument("numbers", metavar="NUMBER", nargs=1, help="as `list` shows it")
        elif verb != "list":
            command.add_argument("numbers", metavar="NUMBER", nargs="+", help="as `list` shows them, or `all`")
        command.add_argument("--pid", type=int, metavar="N", help=PID_HELP)
        command.add_argument("--spool", metavar="DIR", help="of a run that has ended, in its spool")
        command.add_argument("--json", action="store_true", help="print letters as a JSON list")
        command.set_defaults(numbers=[])


def _add_steering(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add what changes a run that is going on."""
    for word, meaning in STEERING.items():
        summary, _, _ = meaning.partition(".")
        command = commands.add_parser(
            word,
            help=summary[0].lower() + summary[1:],
            description=meaning,
            epilog="exit codes: 0 done; 1 no run, or it does not answer, or cannot do it now; 2 usage",
            allow_abbrev=False,
        )
        command.add_argument("--pid", type=int, metavar="N", help=PID_HELP)
        if word == "scale":
            command.add_argument("change", metavar="consumers=N|MIN..MAX", help="their number, or bounds for it")
        if word == "drain":
            command.add_argument("--no-wait", action="store_true", help="return as soon as the run has begun to drain")


# -- run ---------------------------------------------------------------------------------------------------


def _run(given: argparse.Namespace, signals: EarlySignals) -> int:
    chosen = settings.read(vars(given), os.environ)
    with logs.handled(chosen.log_format) as handler:
        urls: list[str] = []
        try:
            with signals:
                workload = targets.load(given.target)
                if chosen.report is not None:
                    _check_writable(chosen.report)
                pipeline = targets.build(given.target, workload, given.arguments, chosen.producers).adapted(chosen)
        except StoppedEarlyError:
            report = Report.of_nothing(given.target)
        else:
            report = _see_through(pipeline, chosen, handler, signals, urls)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run is over: what it came to is still to be told
        _sum_up(report, urls)
        if chosen.report is not None:
            _write(report, chosen.report)
    return int(report.exit_code)


def _see_through(
    pipeline: Pipeline, chosen: Settings, handler: logs.Handler, signals: EarlySignals, urls: list[str]
) -> Report:
    view = _view(chosen, handler)
    show_output = view.print if view is not None and sys.stdout.isatty() else None
    stops = StopRequests()
    signals.pass_on(stops.on_signal)
    # For as many workers as `conveyor scale` may want.
    with system_limits.told(), system_limits.raised(2 * settings.MAX_WORKERS):
        return pipeline.run_with(chosen, _attachments(chosen, view, urls), show_output, stops=stops)


def _attachments(chosen: Settings, view: View | None, urls: list[str]) -> list[Attachment]:
    """Return what goes with the run; `urls` will hold where its metrics are."""
    from conveyor import control  # here, as all that is only for a run: see above

    attachments: list[Attachment] = [control.serving, _stopping_when_unread]
    if chosen.metrics is not None:
        from conveyor.exporter import serving

        serve = serving(chosen.metrics, allowed_hosts=chosen.allowed_hosts)

        @contextlib.contextmanager
        def exporting(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
            with serve(supervisor, loop) as url:
                urls.append(url)
                yield

        attachments.insert(0, exporting)
    if view is not None:
        attachments.append(view.attach)
    return attachments


def _view(chosen: Settings, handler: logs.Handler) -> View | None:
    """Return a live view if one is wanted and there is a terminal to draw it on."""
    on_stdout, on_stderr = sys.stdout.isatty(), sys.stderr.isatty()
    wanted = on_stdout and on_stderr if chosen.progress is None else chosen.progress
    if not wanted or not (on_stdout or on_stderr):
        return None
    from conveyor import live

    return live.on_stream("stdout" if on_stdout else "stderr", handler if on_stderr else None)


@contextlib.contextmanager
def _stopping_when_unread(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
    """Stop once nobody reads our output any more, as other commands do: `conveyor run ... | head` has an end."""
    number = 1
    is_pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
    if not is_pipe or fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
        yield
        return

    def stop() -> None:
        loop.unwatch(number)
        log.warning("nobody reads standard output any more")
        supervisor.request_stop()

    loop.watch(number, stop)  # a pipe's writing end is never readable, but an error on it counts as that
    try:
        yield
    finally:
        loop.unwatch(number)


def _sum_up(report: Report, urls: list[str]) -> None:
    others = {  # said only where there is something to say
        "failed": report.failed,
        "redelivered": report.redelivered,
        "dead_lettered": report.dead_lettered,
        "lost": report.lost,
        "unfinished": report.unfinished,
        "restarts": report.restarts,
        "trouble": report.trouble,
        "metrics": urls[0] if urls else None,
    }
    log.info(
        "run ended",
        extra=fields(
            ending=str(report.ending),
            exit_code=int(report.exit_code),
            seconds=round(report.elapsed_seconds, 2),
            produced=report.produced,
            processed=report.processed,
            **{name: value for name, value in others.items() if value},
        ),
    )


def _check_writable(path: Path) -> None:
    """Fail now rather than after the work, and leave no trace."""
    existed = path.exists()
    try:
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise ConfigurationError(f"the report {path} cannot be written: {error.strerror}") from error


def _write(report: Report, path: Path) -> None:
    try:
        report.write(path)
    except OSError as error:
        raise ConveyorError(f"the report {path} cannot be written: {error.strerror}") from error


# -- the other commands ------------------------------------------------------------------------------------


def _status(given: argparse.Namespace) -> int:
    from conveyor import asking

    run = asking.status(given.pid)
    if given.json:
        print(printable_json(json.dumps(dataclasses.asdict(run))))
        return 0
    from rich.console import Console

    from conveyor.picture import Picture

    Console().print(Picture(run))
    return 0


def _top(given: argparse.Namespace) -> int:
    from conveyor.top import watcher

    return watcher.watch(given.pid, watcher.interval(given.interval))


def _scale(given: argparse.Namespace) -> int:
    from conveyor import asking, steering

    bounds = steering.bounds_of([given.change])
    print(printable(asking.steer(f"scale consumers={bounds}", given.pid)))
    return 0


def _steer(given: argparse.Namespace) -> int:
    from conveyor import asking

    print(printable(asking.steer(given.command, given.pid)))
    return 0


def _drain(given: argparse.Namespace) -> int:
    from conveyor import asking

    did, ending = asking.drain(given.pid)
    print(printable(did), flush=True)
    if not given.no_wait:
        select.select([ending], [], [])
    os.close(ending)
    return 0


def _workloads(given: argparse.Namespace) -> int:
    for name in SHIPPED:
        about = targets.describe(targets.load(name))
        print(f"{name}: {about.summary}")
        for argument, meaning in about.arguments.items():
            print(f"    {argument:14} {meaning}")
    return 0


def _bench(given: argparse.Namespace) -> int:
    from conveyor.bench import command

    asked = {name: value for name, value in vars(given).items() if name != "command"}
    return command.run(command.options(**asked))


def _dead(given: argparse.Namespace) -> int:
    from conveyor import asking, deadletters

    words = given.numbers
    if given.spool is not None:
        if given.pid is not None:
            raise ConfigurationError("dead: give --pid for a run that goes on, or --spool for one that has ended")
        told = deadletters.of_spool(Path(given.spool), given.verb, words)
    else:
        told = asking.dead(given.verb, words, given.pid)
    if isinstance(told, str):
        print(printable_lines(told))
    elif given.json:
        print(printable_lines(json.dumps(list(told), indent=2)))
    else:
        show = deadletters.page_of if given.verb == "show" else deadletters.line_of
        for letter in told:
            print(printable_lines(show(letter)))
    return 0


COMMANDS = {
    "status": _status,
    "top": _top,
    "scale": _scale,
    "pause": _steer,
    "resume": _steer,
    "drain": _drain,
    "dead": _dead,
    "workloads": _workloads,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())
