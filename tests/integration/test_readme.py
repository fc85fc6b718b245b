"""What the README shows is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conveyor.settings import OPTIONS, Option
from support.runs import running

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_its_pipeline_of_ten_lines_runs_as_it_says(tmp_path: Path) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "README.md").write_text("one\ntwo\n")
    arguments = (f"path={tmp_path / 'README.md'}", "--consumers", "4", "--metrics", "off")
    with running(tmp_path, str(tmp_path / "mine.py"), *arguments) as run:
        assert run.wait() == 0
        assert sorted(run.lines()) == ["ONE", "TWO"]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.field)
def test_every_option_is_in_its_table(option: Option) -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `--")]
    assert any(f"`{option.flag}" in row and f"`{option.variable}`" in row for row in rows)
