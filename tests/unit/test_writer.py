"""What the writer writes is what the client library writes, to the byte, whatever the names and the numbers."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as ClientFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from conveyor.exporter import families
from conveyor.exporter.catalogue import Family, Kind, Metric
from conveyor.exporter.vitals import Vitals
from conveyor.exporter.writer import Writer, _number, as_client_family
from conveyor.snapshot import RedeliveryReason, RunStatistics, Scaling, WorkerState
from support.fakes import make_run, make_slot, make_spool, with_queue
from support.threads import run_at_once

NAMES = (
    "plain",
    "",
    " ",
    'quote"',
    "back\\slash",
    "\\",
    '\\"\\n',
    "line\nbreak",
    "carriage\rreturn",
    "\u2028 a line to Python",
    "大厨_1",
    "🥟",
    "a b c",
    "# EOF",
    '{},="',
)
NUMBERS = (
    0, 1, -1, True, False, 7, 999_999, 1_000_000, 12_345_678, 2**53, 2**63, 10**22, 10**300,
    0.0, 0.1, 1e-7, 5e-324, 0.30000000000000004, 123456.789, 999999.9999999999, 1e6, 1e6 + 0.5, 1.7e9,
    1700000000.125, 1e16, 1e22, 1.7976931348623157e308, -2.5, -1e6, -1e7, math.inf, -math.inf, math.nan,
)  # fmt: skip
ACCEPTED = (
    "",
    "text/plain;version=0.0.4",
    *(f"{kind};version=1.0.0{escaping}" for kind in ("text/plain", "application/openmetrics-text") for escaping in (
        "", ";escaping=allow-utf-8", ";escaping=underscores", ";escaping=dots", ";escaping=values"
    )),
    "application/openmetrics-text",
    "application/openmetrics-text;version=0.0.1",
    "application/openmetrics-text;version=2.0.0",
)  # fmt: skip
NOTHING = CollectorRegistry()


class Collected(Collector):
    """What the client library is given to write."""

    def __init__(self, collected: Sequence[Family]) -> None:
        self._collected = collected

    def collect(self) -> Iterator[ClientFamily]:
        yield from map(as_client_family, self._collected)


def by_the_client(accept: str, shown: Sequence[Family]) -> bytes:
    encode, _ = choose_encoder(accept)
    return encode(Collected(shown))


def live(run: RunStatistics) -> list[Family]:
    """Return the families of a run whose processes are what its statistics say."""
    workers = [(slot, Vitals(slot.pid is not None, 1.25, 12_345_678, 7)) for slot in run.slots]

    def as_is(watch: str, worker: str, seconds: float) -> float:
        return seconds

    return [
        *families.queue_families(run.queue),
        *families.task_families(run, as_is),
        *families.worker_families(workers, as_is),
        *families.run_families(run),
    ]


def kitchen(*dead: str, names: Sequence[str] = NAMES, seed: int = 1) -> RunStatistics:
    """Return a run with such names, a producer and a consumer of each, all different and most alive."""
    chance = random.Random(seed)
    slots = [
        make_slot(
            f"{role}{name}",
            pid=None if name in dead else chance.randrange(1, 1 << 22),
            state=None if name in dead else chance.choice(list(WorkerState)),
            processed=chance.randrange(10**7),
            busy_seconds=chance.random() * 1e7,
            last_exit_code=chance.choice([None, -9, 1]),
        )
        for name in names
        for role in ("producer", "consumer")
    ]
    run = make_run(*slots, consumers_most=chance.randrange(1, 1000), scalings=dict.fromkeys(Scaling, seed))
    return with_queue(
        run,
        redeliveries={reason: chance.randrange(10**7) for reason in RedeliveryReason},
        oldest_waiting_seconds=chance.random() * 1e7,
        is_paused=chance.choice([False, True]),
        spool=chance.choice([None, make_spool(size_bytes=chance.randrange(10**12), trouble="disk full")]),
    )


@pytest.mark.parametrize("accept", ACCEPTED)
def test_a_run_is_written_to_the_byte_as_the_client_library_does(accept: str) -> None:
    writer = Writer(accept)
    for seed in range(3):
        shown = live(kitchen("", "大厨_1", seed=seed))
        assert writer.write(shown, NOTHING) == by_the_client(accept, shown)
    assert writer.content_type == choose_encoder(accept)[1]


@pytest.mark.parametrize("accept", ACCEPTED)
def test_every_number_is_written_as_the_client_library_does(accept: str) -> None:
    series = tuple((f"{n}",) for n in range(len(NUMBERS)))
    shown = [Metric("conveyor_number", Kind.GAUGE, "A number.", ("which",)).family(series, NUMBERS)]
    assert Writer(accept).write(shown, NOTHING) == by_the_client(accept, shown)


def test_a_number_of_any_size_is_written_as_the_client_library_does() -> None:
    chance = random.Random(seed := random.randrange(1 << 32))
    for _ in range(20_000):
        number = chance.uniform(-10, 10) * 10.0 ** chance.randint(-12, 20)
        for value in (number, round(number), float(round(number))):
            assert _number(value) == floatToGoString(value), seed  # type: ignore[no-untyped-call]


def test_minus_nothing_is_nothing() -> None:
    assert {_number(0.0), _number(-0.0)} <= {"0.0", "-0.0"}  # one of them, as the first of them was: equal numbers


def test_what_is_read_is_what_was_meant_sample_for_sample() -> None:
    series = tuple((name,) for name in NAMES)
    values = [float(n) for n in range(len(NAMES))]
    shown = [
        Metric("conveyor_names_total", Kind.COUNTER, 'Help with "quotes" and \\.', ("name",)).family(series, values)
    ]
    meant = dict(zip(NAMES, values, strict=True))
    (plain,) = parse_text(Writer("").write(shown, NOTHING).decode())
    openmetrics = Writer("application/openmetrics-text").write(shown, NOTHING).decode()
    (strict,) = parse_openmetrics(openmetrics)  # type: ignore[no-untyped-call]
    for family in (plain, strict):
        assert {sample.labels["name"]: sample.value for sample in family.samples} == meant
        assert family.documentation == 'Help with "quotes" and \\.'


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_names_that_no_text_can_hold_are_written_out_and_stay_different(accept: str) -> None:
    series = (("\udc80",), ("\udc81",), ("a\ud800b",))
    shown = [Metric("conveyor_odd", Kind.GAUGE, "Odd.", ("name",)).family(series, [1, 2, 3])]
    (family,) = parse_text(Writer(accept).write(shown, NOTHING).decode().removesuffix("# EOF\n"))
    read = {sample.labels["name"]: sample.value for sample in family.samples}
    assert read == {"\\udc80": 1, "\\udc81": 2, "a\\ud800b": 3}


def test_a_series_without_a_value_has_no_line_and_may_get_one_later() -> None:
    metric = Metric("conveyor_sometimes", Kind.GAUGE, "Sometimes.", ("name",))
    series, writer = (("a",), ("b",)), Writer("")

    def lines(*values: float | None) -> list[str]:
        return writer.write([metric.family(series, values)], NOTHING).decode().splitlines()[2:]

    assert lines(None, None) == []
    assert lines(None, 1) == ['conveyor_sometimes{name="b"} 1.0']
    assert lines(2, None) == ['conveyor_sometimes{name="a"} 2.0']


def test_slots_may_come_and_go_between_two_scrapes() -> None:
    writer = Writer("")
    for names in (NAMES, NAMES[:3], NAMES[::-1], ("another",)):
        shown = live(kitchen(names=names))
        assert writer.write(shown, NOTHING) == by_the_client("", shown)


def test_as_many_values_as_series_or_an_error() -> None:
    wrong = Family(Metric("conveyor_wrong", Kind.GAUGE, "Wrong.", ("name",)), (("a",), ("b",)), [1])
    with pytest.raises(ValueError, match="shorter"):
        Writer("").write([wrong], NOTHING)


def test_threads_that_write_different_runs_at_once_do_not_mix_them() -> None:
    pages = [live(kitchen(names=NAMES[:n])) for n in (2, 5, 9)]
    expected = [by_the_client("", shown) for shown in pages]
    writer, wrong = Writer(""), list[int]()

    def write(which: int) -> None:
        for _ in range(30):
            if writer.write(pages[which], NOTHING) != expected[which]:
                wrong.append(which)

    run_at_once([functools.partial(write, n % 3) for n in range(6)])
    assert wrong == []


def test_a_family_says_its_metric_and_nothing_of_text() -> None:
    shown = {family.metric.name: family for family in live(kitchen())}
    up = shown["conveyor_worker_up"]
    assert dataclasses.is_dataclass(up)
    assert len(up.series) == len(up.values) == 2 * len(NAMES)
    assert shown["conveyor_task_processing_duration_seconds"].series[-2:] == (
        ("joinable", "count"),
        ("joinable", "sum"),
    )
