"""`kitchen`: cooks fill the steamer, diners empty it. The example to watch on the dashboards.

Every dish has a number, so the lines show whether each was eaten exactly once.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Literal

from conveyor.errors import WorkloadError
from conveyor.pipeline import Pipeline, Producer
from conveyor.settings import MAX_WORKERS
from conveyor.workloads import ProducerCount

# At speed 1, in seconds: two cooks make one dish a second, two diners can eat four in three.
COOKING_SECONDS = (1.0, 3.0)
EATING_SECONDS = (1.0, 2.0)
# The load swells to 1.7 times the mean: more than two diners can eat, until it ebbs.
WAVE_HEIGHT = 0.7
STEAMER_PLACES = 100
SPEEDS = (0.001, 1_000_000)  # from a dish an hour to as fast as it goes


@dataclass(frozen=True, slots=True)
class Words:
    """What the kitchen says in one language."""

    cook: str
    foods: tuple[str, ...]
    diners: tuple[str, ...]
    diner: str
    made: str
    ate: str
    spilled: str

    def diner_name(self, number: int) -> str:
        """Return the name of the nth diner: the first few have one of their own."""
        return self.diners[number - 1] if number <= len(self.diners) else self.diner.format(number)


LANGUAGES = {
    "en": Words(
        cook="chef-{}",
        foods=("bun", "mantou"),
        diners=("zhang-san", "li-si"),
        diner="diner-{}",
        made="{food} #{number} made by {cook}",
        ate="{diner} ate {dish}",
        spilled="{diner} spilled {dish}",
    ),
    "zh": Words(
        cook="大厨_{}",
        foods=("包子", "馒头"),
        diners=("张三", "李四"),
        diner="食客_{}",
        made="{cook}做了一个{food} #{number}",
        ate="{diner}吃了{dish}",
        spilled="{diner}打翻了{dish}",
    ),
}


class SpilledError(Exception):
    """A dish that nobody will eat: the failure that `spill` asks for."""


def kitchen(
    cooks: ProducerCount = 2,
    diners: int = 2,
    dishes: int = 5,
    speed: float = 1.0,
    rounds: int = 1,
    lang: Literal["en", "zh"] = "en",
    wave: float = 0.0,
    spill: float = 0.0,
    poison: float = 0.0,
) -> Pipeline:
    """Cooks make dishes, diners eat them.

    cooks: number of producers
    diners: number of consumers
    dishes: dishes that each cook makes in a round
    speed: how many times faster than life
    rounds: how often each cook makes its dishes; 0 never ends
    lang: language of names and lines
    wave: seconds from one rush hour to the next; 0 keeps the load even
    spill: share of the dishes whose eating fails, from 0 to 1
    poison: share of the dishes that kill whoever eats them, from 0 to 1
    """
    for name, value in {"dishes": dishes, "rounds": rounds, "wave": wave}.items():
        _check(name, value, 0, math.inf)
    _check("cooks", cooks, 1, MAX_WORKERS)
    _check("diners", diners, 1, MAX_WORKERS)
    _check("speed", speed, *SPEEDS)
    _check("spill", spill, 0, 1)
    _check("poison", poison, 0, 1)
    words = LANGUAGES[lang]
    foods = itertools.cycle(words.foods)
    return Pipeline(
        name="kitchen",
        producers=[
            Producer(
                cook,
                words.cook.format(number),
                next(foods),
                words.made,
                dishes=dishes,
                rounds=rounds,
                speed=speed,
                wave_seconds=wave,
                name=words.cook.format(number),
                may_restart=rounds == 0,
                resume="position",
            )
            for number in range(1, cooks + 1)
        ],
        consumer=Diner(words, speed, spill, poison),
        consumers=diners,
        consumer_name=words.diner_name,
        maxsize=STEAMER_PLACES,
    )


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        allowed = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise WorkloadError(f"kitchen: {name}={value} is not allowed; give a number {allowed}")


def cook(
    name: str,
    food: str,
    made: str,
    *,
    dishes: int,
    rounds: int,
    speed: float,
    wave_seconds: float,
    position: int = 0,
) -> Iterator[str]:
    """Make dish after dish, each in its time, after those that were made before."""
    total = itertools.count(position + 1) if rounds == 0 else range(position + 1, dishes * rounds + 1)
    for number in total:
        time.sleep(random.uniform(*COOKING_SECONDS) / speed / _pace(wave_seconds))
        yield made.format(cook=name, food=food, number=number)


def _pace(wave_seconds: float) -> float:
    """Return how busy the kitchen is now, about 1. By the wall clock, so that all cooks rush together."""
    if wave_seconds == 0:
        return 1.0
    return 1.0 + WAVE_HEIGHT * math.sin(2.0 * math.pi * time.time() / wave_seconds)


@dataclass(frozen=True, slots=True)
class Diner:
    """Eats a dish and says so; the diner's name is that of its worker slot."""

    words: Words
    speed: float
    spill: float
    poison: float

    def __call__(self, dish: str) -> None:
        if zlib.crc32(dish.encode()) < self.poison * 2**32:  # the same dish each time
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(random.uniform(*EATING_SECONDS) / self.speed)
        diner = current_process().name
        if random.random() < self.spill:
            raise SpilledError(self.words.spilled.format(diner=diner, dish=dish))
        print(self.words.ate.format(diner=diner, dish=dish))
