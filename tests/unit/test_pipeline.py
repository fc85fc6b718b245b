"""What a description of a pipeline refuses, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from conveyor import ConfigurationError, Pipeline, Producer
from conveyor.cpus import usable_cpus
from conveyor.scaling import Bounds
from conveyor.settings import OPTIONS, RunOptions, Settings, of_options

ONE = [Producer(range, 3)]
RIGHT: dict[str, Any] = {"producers": ONE, "consumer": print, "consumers": 1}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"producers": []}, "producers"),
        ({"producers": [range(3)]}, "producers"),
        ({"consumer": 7}, "consumer"),
        ({"consumers": 0}, "consumers"),
        ({"consumers": -1}, "consumers"),
        ({"consumers": 1.5}, "consumers"),
        ({"consumers": (2, 1)}, "consumers"),
        ({"consumers": (1, 2, 3)}, "consumers"),
        ({"consumers": (1, 1001)}, "consumers"),
        ({"consumers": (1, 2), "queue": "joinable"}, "consumers: 1..2 is not allowed with the queue 'joinable'"),
        ({"maxsize": -1}, "maxsize"),
        ({"queue": "heap"}, "queue.*joinable, sentinel"),
        ({"producers": [Producer(range, 3, name="a"), Producer(range, 3, name="a")]}, "twice there: a"),
        ({"producers": [Producer(range, 3, name="consumer-1")]}, "twice there: consumer-1"),
        ({"producers": [Producer(range, 3, name="\udc80")]}, "cannot be called"),
        ({"producers": [Producer(range, 3, name="two\nlines")]}, "cannot be called"),
    ],
)
def test_what_cannot_run_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Pipeline(**RIGHT | wrong)


def test_a_producer_must_be_a_function() -> None:
    with pytest.raises(ConfigurationError, match=r"\[1, 2\]"):
        Producer([1, 2])  # type: ignore[arg-type]


def test_consumers_default_to_the_cpus_that_may_be_used() -> None:
    assert len(Pipeline(producers=ONE, consumer=print)._consumer_names()) == usable_cpus()


def test_settings_win_over_the_description_where_they_say_something() -> None:
    pipeline = Pipeline(producers=ONE, consumer=print, consumers=2, maxsize=5)
    adapted = pipeline.adapted(Settings(consumers=Bounds(7, 7), queue="sentinel"))
    assert (adapted.consumers, adapted.queue, adapted.maxsize) == ((7, 7), "sentinel", 5)


@pytest.mark.parametrize(
    ("producers", "consumer", "what"),
    [
        ([Producer(lambda: [1], name="cook")], print, "producer cook"),
        ([Producer(range, iter([3]), name="cook")], lambda task: None, "the consumer"),
    ],
)
def test_what_cannot_be_sent_to_a_process_is_refused_before_any_starts(
    producers: list[Producer], consumer: Any, what: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{what} cannot be sent to a worker process"):
        Pipeline(producers=producers, consumer=consumer).run()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metrics": "nowhere"}, "--metrics"),
        ({"drain_timeout": -1}, "--drain-timeout"),
        ({"start_method": "fork"}, "fork"),
        ({"task_timeout": 0}, "--task-timeout: '0' is not allowed"),
        ({"max_tasks_per_worker": 0}, "--max-tasks-per-worker"),
        ({"max_memory_per_worker": "many"}, "--max-memory-per-worker"),
    ],
)
def test_run_refuses_options_that_are_not_allowed(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Pipeline(producers=ONE, consumer=print).run(**options)


def test_run_takes_no_option_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="'consumers' is no option of a run"):
        Pipeline(producers=ONE, consumer=print).run(consumers=3)  # type: ignore[call-arg]


def test_what_is_given_as_none_is_as_if_it_were_not_given() -> None:
    nothing: Any = dict.fromkeys(RunOptions.__annotations__)
    assert of_options(nothing) == of_options({}) == Settings()


def test_every_option_of_a_run_is_one_of_the_command_line() -> None:
    assert set(RunOptions.__annotations__) < {option.keyword for option in OPTIONS}
