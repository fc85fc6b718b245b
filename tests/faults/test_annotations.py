"""A workload may be annotated with names that only a type checker knows, with and without `from __future__`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.commands import command

FLOW = """
from typing import TYPE_CHECKING
import conveyor
if TYPE_CHECKING:
    from decimal import Decimal
    from conveyor import Pipeline

def halve(number: int) -> Decimal:
    print(number / 2)

def flow(count: int = 2) -> Pipeline:
    return conveyor.Pipeline(producers=[conveyor.Producer(range, count)], consumer=halve, consumers=1)
"""
LATER = "from __future__ import annotations"
lazy = pytest.mark.skipif(sys.version_info < (3, 14), reason="this Python evaluates annotations at once")


@pytest.mark.parametrize("first_line", [LATER, pytest.param("", marks=lazy)], ids=["future", "lazy"])
@pytest.mark.parametrize("name", ["", ":flow"], ids=["found", "named"])
def test_names_for_type_checkers_are_no_hindrance(tmp_path: Path, first_line: str, name: str) -> None:
    (tmp_path / "mine.py").write_text(first_line + FLOW)
    done = command(tmp_path, "run", f"{tmp_path}/mine.py{name}", "count=3")
    assert (done.returncode, done.stdout.split()) == (0, ["0.0", "0.5", "1.0"]), done.stderr


@pytest.mark.parametrize("first_line", [LATER, pytest.param("", marks=lazy)], ids=["future", "lazy"])
def test_an_argument_of_an_unknown_type_is_refused_in_one_line(tmp_path: Path, first_line: str) -> None:
    (tmp_path / "mine.py").write_text(first_line + FLOW.replace("count: int", "count: Decimal"))
    done = command(tmp_path, "run", f"{tmp_path}/mine.py", "count=3")
    assert done.returncode == 2
    assert "an annotation cannot be evaluated: NameError: name 'Decimal' is not defined" in done.stderr
    assert len(done.stderr.splitlines()) == 1
