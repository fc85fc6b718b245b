"""The results as people read them on a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conveyor.bench import figures
from conveyor.bench.machine import Machine
from conveyor.bench.results import RowResult, Side, Verdict
from conveyor.bench.row import Figure
from conveyor.bench.watching import Status

_WIDTH = 118  # where the output is no terminal


def show_machine(console: Console, machine: Machine) -> None:
    """Begin with the machine."""
    for line in machine.lines():
        console.print(line, highlight=False)
    if machine.is_busy:
        console.print("others use this machine now: do not trust the figures", style="yellow", highlight=False)


def show_row(console: Console, result: RowResult, rounds: int) -> None:
    """Print one row: a line for each contestant, a line for each goal."""
    row = result.row
    main, *others = row.figures
    console.print()
    console.print(Text(f"{row.name}: ", style="bold").append(row.title, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column(_heading(main), justify="right", no_wrap=True)
    if rounds > 1 and not row.once:
        table.add_column("from – to", justify="right", no_wrap=True)
    if len(result.sides) > 1 and row.compared:
        table.add_column("conveyor is", justify="right", no_wrap=True)
    for figure in others:
        table.add_column(_heading(figure), justify="right", no_wrap=True)
    table.add_column("", style="dim", overflow="fold")
    for side in result.sides:
        cells = [side.contestant, _value(side.median(main.key), main)]
        if rounds > 1 and not row.once:
            cells.append(_spread(side, main))
        if len(result.sides) > 1 and row.compared:
            cells.append(_comparison(result, side, main))
        cells += [_value(side.median(figure.key), figure) for figure in others]
        table.add_row(*cells, _remark(side))
    console.print(table)
    for verdict in result.verdicts():
        console.print(_goal(verdict, row.figures))
    if row.note:
        console.print(row.note, style="dim", highlight=False)


def new_console(to_stderr: bool) -> Console:
    """Return a console that is wide enough where there is no terminal to be as wide as."""
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=_WIDTH)


def _heading(figure: Figure) -> str:
    return f"{figure.label}, {figure.unit}" if figure.unit else figure.label


def number(value: float) -> str:
    """Return a number with three digits that matter."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "never"
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def _value(value: float, figure: Figure) -> str:
    return number(value * figure.scale)


def _spread(side: Side, figure: Figure) -> str:
    values = side.values(figure.key)
    return f"{_value(min(values), figure)} – {_value(max(values), figure)}" if values else ""


def _comparison(result: RowResult, side: Side, figure: Figure) -> str:
    ours = result.ours
    if ours is None or side is ours:
        return ""
    share = figures.ratio(ours.median(figure.key), side.median(figure.key))
    return "" if math.isnan(share) else f"{number(share)} ×"


def _remark(side: Side) -> str:
    if side.status is Status.DONE:
        return side.how
    if side.status is Status.MISSING:
        return side.note
    return f"{side.status.value.upper()}: {side.note}"


def _goal(verdict: Verdict, shown: tuple[Figure, ...]) -> Text:
    goal = verdict.goal
    figure = next((each for each in shown if each.key == goal.figure), Figure(goal.figure, goal.figure, ""))
    limit = goal.at_least if goal.at_least is not None else goal.at_most
    assert limit is not None
    sign = "≥" if goal.at_least is not None else "≤"
    if goal.against is not None:
        wanted, measured = f"{sign} {number(limit)} × {goal.against}", f"{number(verdict.measured)} ×"
    else:
        wanted = f"{sign} {_value(limit, figure)} {figure.unit}".strip()
        unit = figure.unit if math.isfinite(verdict.measured) else ""
        measured = f"{_value(verdict.measured, figure)} {unit}".strip()
    words, style = {
        True: ("met", "green"),
        False: ("not met", "red"),
        None: ("not measured", "yellow"),
    }[verdict.met]
    text = Text(f"goal: {figure.label} {wanted}: ")
    text.append(words, style=style)
    return text if verdict.met is None else text.append(f" ({measured})")
