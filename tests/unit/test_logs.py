"""Log lines, in both formats."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from conveyor import logs
from conveyor.logs import fields

log = logging.getLogger("conveyor.tests")


def logged(capsys: pytest.CaptureFixture[str], log_format: str, text: str, /, **values: object) -> str:
    with logs.handled(log_format):
        log.warning(text, extra=fields(**values))
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (1.5, "1.5"),
        ("/a/path-1", "/a/path-1"),
        ("包子", "包子"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('a "quote"', r'"a \"quote\""'),
        ("two\nlines", r'"two\nlines"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("no-break\xa0space", '"no-break\xa0space"'),
    ],
)
def test_a_field_stands_on_the_line_so_that_it_can_be_told_apart(
    capsys: pytest.CaptureFixture[str], value: object, shown: str
) -> None:
    line = logged(capsys, "text", "it happened", field=value, last=1)
    assert line[8:] == f" WARNING it happened field={shown} last=1\n"


def test_a_trace_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = logged(capsys, "text", "it failed", slot="a", trace="Traceback:\n  here\n")
    assert text.splitlines()[0].endswith("it failed slot=a")
    assert text.splitlines()[1:] == ["Traceback:", "  here"]


def test_json_is_one_object_a_line_whatever_the_fields_hold(capsys: pytest.CaptureFixture[str]) -> None:
    text = logged(capsys, "json", "it failed", food="包子", trace="two\nlines", path=sys, number=1.5)
    assert text.count("\n") == 1
    record = json.loads(text)
    assert record["message"] == "it failed"
    assert record["level"] == "warning"
    assert isinstance(record["time"], float)
    assert (record["food"], record["trace"], record["number"]) == ("包子", "two\nlines", 1.5)
    assert "包子" in text


def test_a_field_never_hides_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(logged(capsys, "json", "it failed", message="why", level="high"))
    assert (record["message"], record["message_"]) == ("it failed", "why")
    assert (record["level"], record["level_"]) == ("warning", "high")


def test_a_name_that_is_no_utf8_can_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace"))
    with logs.handled("json"):
        log.info("not read", extra=fields(path="latin-\udce9"))
    sys.stderr.flush()
    assert json.loads(raw.getvalue())["path"] == "latin-\udce9"


def test_a_reader_that_has_gone_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Unread())
    with logs.handled("text"):
        log.info("unheard")


def test_another_can_show_the_lines_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    with logs.handled("text") as handler:
        with handler.shown_by(shown.append):
            log.info("above the picture")
        log.info("after it")
    assert [line.endswith("above the picture") for line in shown] == [True]
    assert capsys.readouterr().err.endswith("INFO after it\n")


def test_nothing_stays_behind() -> None:
    logger = logging.getLogger("conveyor")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with logs.handled("json"):
        assert not logger.propagate
    assert (list(logger.handlers), logger.level, logger.propagate) == before
