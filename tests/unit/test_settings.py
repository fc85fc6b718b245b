"""Options from flags and environment: what is taken, what is refused, and who wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from conveyor.errors import ConfigurationError
from conveyor.scaling import Bounds
from conveyor.settings import COMMAND_LINE_DEFAULTS, MAX_WORKERS, OPTIONS, Address, Settings, read

TAKEN = [
    ("consumers", "1", (1, 1)),
    ("consumers", "2..5", (2, 5)),
    ("consumers", "1000..", (1000, 1000)),
    ("consumers", str(MAX_WORKERS), (MAX_WORKERS, MAX_WORKERS)),
    ("maxsize", "0", 0),
    ("maxsize", "+5", 5),
    ("queue", "sentinel", "sentinel"),
    ("metrics", "off", None),
    ("metrics", "0.0.0.0:0", Address("0.0.0.0", 0)),
    ("metrics", ":8000", Address("0.0.0.0", 8000)),
    ("metrics", "[::1]:65535", Address("::1", 65535)),
    ("drain_timeout_seconds", "0", 0.0),
    ("drain_timeout_seconds", "2.5", 2.5),
    ("report", "some where/report", Path("some where/report")),
    ("progress", True, True),
    ("progress", "NO", False),
]
REFUSED = {
    "consumers": [
        "",
        "0",
        "-1",
        "++1",
        "1.0",
        "1e3",
        "many",
        "..",
        "..3",
        "5..2",
        "0..3",
        "1..1001",
        "1...3",
        str(MAX_WORKERS + 1),
        "9" * 5000,
    ],
    "producers": ["0", "none"],
    "maxsize": ["-1", str(2**31)],
    "queue": ["", "Joinable", "fifo"],
    "metrics": ["", "8000", "localhost", "x:", "x:-1", "x:65536", "x:http", "x:８０", "x:80/metrics", "OFF"],
    "drain_timeout_seconds": ["", "-0.1", "nan", "inf", "8s"],
    "log_format": ["", "JSON"],
    "report": [""],
    "start_method": ["fork"],
    "progress": ["", "maybe"],
}


@pytest.mark.parametrize(("field", "text", "value"), TAKEN)
def test_a_good_value_is_taken(field: str, text: object, value: object) -> None:
    assert getattr(read({field: text}, {}), field) == value


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in REFUSED.items() for text in texts])
def test_a_bad_value_is_refused_with_its_flag_and_what_is_allowed(field: str, text: str) -> None:
    option = next(option for option in OPTIONS if option.field == field)
    with pytest.raises(ConfigurationError) as caught:
        read({field: text}, {})
    said = str(caught.value)
    assert said.startswith(f"{option.flag}: '{text[:10]}")
    assert " is not allowed; give " in said
    assert len(said) < 250


def test_every_option_is_a_setting_with_a_variable_of_its_own() -> None:
    assert {option.field for option in OPTIONS} == set(Settings.__dataclass_fields__)
    assert {option.variable for option in OPTIONS} >= {"CONVEYOR_CONSUMERS", "CONVEYOR_DRAIN_TIMEOUT"}
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)


def test_a_flag_wins_over_its_variable_and_a_variable_over_the_default() -> None:
    environment = {"CONVEYOR_CONSUMERS": "3", "CONVEYOR_METRICS": "off"}
    assert read({"consumers": "5", "metrics": None}, environment) == Settings(consumers=Bounds(5, 5), metrics=None)


def test_a_variable_that_a_flag_overrides_is_not_even_read() -> None:
    assert read({"consumers": "5"}, {"CONVEYOR_CONSUMERS": "nonsense"}).consumers == (5, 5)


def test_an_empty_variable_is_taken_as_not_set() -> None:
    assert read({}, {"CONVEYOR_CONSUMERS": "", "CONVEYOR_METRICS": ""}).metrics == COMMAND_LINE_DEFAULTS["metrics"]


def test_variables_that_others_set_are_none_of_our_business() -> None:
    assert read({}, {"CONVEYOR_PORT": "tcp://10.0.0.1:8000", "CONVEYOR_SERVICE_HOST": "10.0.0.1"}) == read({}, {})


def test_an_address_is_written_as_in_a_url() -> None:
    assert str(Address("127.0.0.1", 80)) == "127.0.0.1:80"
    assert str(Address("::1", 80)) == "[::1]:80"
