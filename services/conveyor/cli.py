"""The command line: `conveyor run`, `status`, `workloads`. Parses, checks, and calls; decides nothing itself.

Every worker process imports this module too (it is the main module of the `conveyor` script), so whatever takes
long to import is imported by the command that uses it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import conveyor
from conveyor import logs, settings, targets
from conveyor.errors import ConfigurationError, ConveyorError
from conveyor.logs import fields
from conveyor.loop import Loop
from conveyor.pipeline import Attachment
from conveyor.report import Report
from conveyor.settings import OPTIONS, Settings
from conveyor.supervisor import Supervisor
from conveyor.workloads import SHIPPED

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and (given.command != "run" or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if given.command == "run":
            return _run(given, [*given.arguments, *rest])
        if given.command == "status":
            return _status(given)
        return _workloads()
    except ConveyorError as error:
        print(f"conveyor: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush does not fail too
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conveyor", description=conveyor.__doc__.partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"conveyor {conveyor.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run a workload to its end",
        description="Run a workload to its end. Each option can also be set by an environment variable, "
        "CONVEYOR_CONSUMERS and so on; the option wins.",
        epilog="exit codes: 0 done, or stopped and drained; 1 done, but tasks failed; 2 usage; "
        "3 a producer died or tasks were lost; 4 stopped with unfinished tasks",
    )
    run.add_argument("target", metavar="TARGET", help=f"{', '.join(SHIPPED)}, file.py[:name] or package.module:name")
    run.add_argument("arguments", metavar="KEY=VALUE", nargs="*", help="arguments of the workload")
    for option in OPTIONS:
        if option.placeholder:
            run.add_argument(option.flag, dest=option.field, metavar=option.placeholder, help=option.help)
        else:
            run.add_argument(option.flag, dest=option.field, action=argparse.BooleanOptionalAction, help=option.help)

    status = commands.add_parser("status", help="show a run that is going on")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--pid", type=int, help="of which run, if there are several")
    commands.add_parser("workloads", help="list the workloads that ship, with their arguments")
    return parser


def _run(given: argparse.Namespace, arguments: list[str]) -> int:
    chosen = settings.read(vars(given), os.environ)
    handler = logs.set_up(chosen.log_format)
    try:
        return _run_with(given.target, arguments, chosen)
    finally:
        logs.tear_down(handler)


def _run_with(target: str, arguments: list[str], chosen: Settings) -> int:
    workload = targets.load(target)
    _check_report(chosen)
    pipeline = targets.build(target, workload, arguments, chosen.producers).adapted(chosen)
    from conveyor import control  # here, as all that is only for a run: see above

    urls: list[str] = []
    attachments: list[Attachment] = [control.serving]
    if chosen.metrics is not None:
        from conveyor.exporter import serving

        serve = serving(chosen.metrics)

        @contextlib.contextmanager
        def exporting(supervisor: Supervisor, loop: Loop) -> Iterator[None]:
            with serve(supervisor, loop) as url:
                urls.append(str(url))
                yield

        attachments.insert(0, exporting)
    show_output = None
    terminal = sys.stdout.isatty()
    if chosen.progress or (chosen.progress is None and terminal):
        from rich.console import Console

        from conveyor.live import View

        view = View(Console(stderr=not terminal))
        attachments.append(view.attach)
        show_output = view.print if terminal else None
    report = pipeline.run_with(chosen, attachments, show_output)
    if chosen.report is not None:
        report.write(chosen.report)
    _sum_up(report, urls)
    return int(report.exit_code)


def _sum_up(report: Report, urls: list[str]) -> None:
    counts = {
        "failed": report.failed,
        "lost": report.lost,
        "unfinished": report.unfinished,
        "restarts": report.restarts,
    }
    about: dict[str, object] = {name: number for name, number in counts.items() if number}
    if report.trouble:
        about["trouble"] = report.trouble
    if urls:
        about["metrics"] = urls[0]
    log.info(
        "run ended",
        extra=fields(
            ending=str(report.ending),
            exit_code=int(report.exit_code),
            seconds=round(report.elapsed_seconds, 2),
            produced=report.produced,
            processed=report.processed,
            **about,
        ),
    )


def _check_report(chosen: Settings) -> None:
    """Fail now rather than after the work, if the report cannot be written."""
    if chosen.report is not None:
        try:
            chosen.report.touch()
        except OSError as error:
            raise ConfigurationError(f"--report: {chosen.report} cannot be written: {error.strerror}") from error


def _status(given: argparse.Namespace) -> int:
    from conveyor import control

    run = control.status(given.pid)
    if given.json:
        print(json.dumps(dataclasses.asdict(run), ensure_ascii=False))
        return 0
    from rich.console import Console

    from conveyor.live import picture

    Console().print(picture(run))
    return 0


def _workloads() -> int:
    for name in SHIPPED:
        documentation, arguments = targets.describe(targets.load(name))
        print(f"{name:10} {documentation}\n{'':10} {' '.join(arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
