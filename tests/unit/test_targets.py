"""How KEY=VALUE becomes what a workload's annotations ask for. How targets are found: see test_bad_input.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from conveyor import Pipeline, Producer
from conveyor.errors import ConfigurationError, WorkloadError
from conveyor.targets import build, describe, load
from conveyor.workloads import SHIPPED, ProducerCount

GIVEN: dict[str, object] = {}


def record(**values: object) -> Pipeline:
    """Keep what a workload was called with."""
    GIVEN.clear()
    GIVEN.update(values)
    return Pipeline(producers=[Producer(range, 3)], consumer=print, consumers=1)


def every_kind(  # type: ignore[no-untyped-def] # plain has no annotation
    number: int = 0,
    share: float = 0.0,
    wanted: bool = False,
    text: str = "",
    path: Path = Path(),
    choice: Literal["en", "zh", 3] = "en",
    maybe: int | None = None,
    noted: Annotated[float, "a note"] = 0.0,
    anything: Any = None,
    plain=None,
) -> Pipeline:
    """Take one of each."""
    return record(**locals())


def counted(cooks: ProducerCount = 2, *rest: int, size: int, **more: int) -> Pipeline:
    """Count its producers under another name.

    cooks: how many
    size: how large
    """
    return record(cooks=cooks, size=size)


TAKEN = [
    ("number=-3", -3),
    ("share=1e-3", 0.001),
    ("share=3", 3.0),
    ("wanted=Yes", True),
    ("wanted=0", False),
    ("text=a=b c", "a=b c"),
    ("text=", ""),
    ("path=/a b", Path("/a b")),
    ("choice=zh", "zh"),
    ("choice=3", 3),
    ("maybe=4", 4),
    ("noted=2.5", 2.5),
    ("anything=5", "5"),
    ("plain=5", "5"),
]
REFUSED = [
    ("number=1.5", "number='1.5' is not allowed; give a whole number"),
    ("number=", "number='' is not allowed; give a whole number"),
    ("number=" + "9" * 5000, "is not allowed; give a whole number"),
    ("share=much", "share='much' is not allowed; give a number"),
    ("wanted=2", "wanted='2' is not allowed; give yes or no"),
    ("choice=fr", "choice='fr' is not allowed; give one of en, zh, 3"),
    ("maybe=None", "maybe='None' is not allowed; give a whole number"),
    ("shares=1", "no argument 'shares' (did you mean share?); allowed: number, share"),
    ("=1", "no argument ''; allowed: number"),
    ("number", "'number' is not KEY=VALUE"),
]


@pytest.mark.parametrize(("argument", "value"), TAKEN)
def test_a_text_becomes_what_the_annotation_asks_for(argument: str, value: object) -> None:
    build("it", every_kind, [argument], None)
    given = GIVEN[argument.partition("=")[0]]
    assert (given, type(given)) == (value, type(value))


@pytest.mark.parametrize(("argument", "said"), REFUSED)
def test_a_text_that_cannot_is_refused(argument: str, said: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        build("it", every_kind, [argument], None)
    assert str(caught.value).startswith("it: ")
    assert said in str(caught.value)


def test_the_option_for_producers_reaches_the_argument_that_counts_them() -> None:
    build("it", counted, ["size=1"], 7)
    assert GIVEN == {"cooks": 7, "size": 1}


def test_the_option_for_producers_is_refused_where_nothing_counts_them() -> None:
    with pytest.raises(WorkloadError, match="number of producers is fixed"):
        build("it", every_kind, [], 7)


def test_only_named_parameters_are_arguments() -> None:
    assert list(describe(counted).arguments) == ["cooks=2", "size"]
    for argument in ("rest=1", "more=1"):
        with pytest.raises(WorkloadError, match=r"allowed: cooks, size$"):
            build("it", counted, ["size=1", argument], None)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"it: needs size=\.\.\."):
        build("it", counted, [], None)


def test_an_error_of_the_workload_says_where_it_was_raised() -> None:
    def dividing() -> Pipeline:
        raise ZeroDivisionError("no\nway")

    with pytest.raises(WorkloadError, match=rf"it: ZeroDivisionError: no way \({__file__}, line \d+\)"):
        build("it", dividing, [], None)


def test_an_error_of_ours_is_passed_on_as_it_is() -> None:
    def wrong() -> Pipeline:
        return Pipeline(producers=[Producer(range, 3)], consumer=print, consumers=0)

    with pytest.raises(ConfigurationError, match=r"^consumers: 0 is not allowed"):
        build("it", wrong, [], None)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_documented_to_the_last_argument(name: str) -> None:
    about = describe(load(name))
    assert about.summary
    assert all(about.arguments.values())
