"""What came out: measurements by row and contestant, their medians, and which goals are met. Pure data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from conveyor.bench import figures
from conveyor.bench.contestants import OURS, is_ours
from conveyor.bench.row import Goal, Row
from conveyor.bench.watching import Measurement, Status


@dataclass(frozen=True, slots=True)
class Side:
    """All measurements of one contestant in one row."""

    contestant: str
    how: str
    measurements: Sequence[Measurement]

    @property
    def status(self) -> Status:
        """Done, or the first other ending there was."""
        others = [each.status for each in self.measurements if each.status is not Status.DONE]
        return others[0] if others else Status.DONE

    @property
    def note(self) -> str:
        """What was said about it."""
        return "; ".join(dict.fromkeys(each.note for each in self.measurements if each.note))

    def values(self, figure: str) -> list[float]:
        """Return one figure of each measurement that has it."""
        return [each.figures[figure] for each in self.measurements if figure in each.figures]

    def median(self, figure: str) -> float:
        """Return the median of a figure; not a number if there is none."""
        return figures.median(self.values(figure))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, and what was measured. `met` is None where nothing could be."""

    goal: Goal
    measured: float
    met: bool | None


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row with all its sides."""

    row: Row
    sides: Sequence[Side]

    def side(self, contestant: str) -> Side | None:
        return next((side for side in self.sides if side.contestant == contestant), None)

    @property
    def ours(self) -> Side | None:
        return self.side(OURS)

    def verdicts(self) -> list[Verdict]:
        """Return each goal with what was measured."""
        return [judged(goal, self._measured(goal)) for goal in self.row.goals]

    def _measured(self, goal: Goal) -> float:
        judged_side = self.side(goal.of)
        if judged_side is None:
            return math.nan
        value = judged_side.median(goal.figure)
        if goal.against is None:
            return value
        other = self.side(goal.against)
        return figures.ratio(value, other.median(goal.figure)) if other else math.nan

    @property
    def is_sound(self) -> bool:
        """Whether nothing of ours failed. A peer's failure is a result; one of ours is a fault."""
        return all(side.status in (Status.DONE, Status.MISSING) for side in self.sides if is_ours(side.contestant))

    def plain(self) -> dict[str, object]:
        """Return it as what JSON can hold; a figure that is no number is null."""
        return {
            "name": self.row.name,
            "title": self.row.title,
            "note": self.row.note,
            "figures": [{"key": figure.key, "more_is_better": figure.more_is_better} for figure in self.row.figures],
            "sides": [
                {
                    "contestant": side.contestant,
                    "how": side.how,
                    "status": side.status.value,
                    "note": side.note,
                    "medians": {key: _number(side.median(key)) for key in _keys(side)},
                    "rounds": [
                        {"status": each.status.value, **{k: _number(v) for k, v in each.figures.items()}}
                        for each in side.measurements
                    ],
                }
                for side in self.sides
            ],
            "goals": [
                {
                    "figure": verdict.goal.figure,
                    "of": verdict.goal.of,
                    "against": verdict.goal.against,
                    "at_least": verdict.goal.at_least,
                    "at_most": verdict.goal.at_most,
                    "measured": _number(verdict.measured),
                    "met": verdict.met,
                }
                for verdict in self.verdicts()
            ],
        }


def judged(goal: Goal, measured: float) -> Verdict:
    """Return whether a measured value is within the goal."""
    if math.isnan(measured):
        return Verdict(goal, measured, None)
    enough = goal.at_least is None or measured >= goal.at_least
    little = goal.at_most is None or measured <= goal.at_most
    return Verdict(goal, measured, enough and little)


def _keys(side: Side) -> list[str]:
    return list(dict.fromkeys(key for each in side.measurements for key in each.figures))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
