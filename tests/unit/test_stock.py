"""The items of a drop-in queue: who has which, and what comes back."""

from __future__ import annotations

import random

import pytest

from conveyor.dropin.ring import FRAME_BYTES, SIZE
from conveyor.dropin.runs import Run
from conveyor.dropin.stock import MAX_BYTES, Stock

SLOW_NS = 10_000_000


def run_of(*numbers: int, size: int = 4) -> Run:
    frames = [SIZE.pack(size) + number.to_bytes(4, "little") * (size // 4) for number in numbers]
    data = b"".join(frames)
    return Run(data, 0, len(data), len(frames))


def numbers_in(runs: list[Run]) -> list[int]:
    found = []
    for run in runs:
        data = run.view()
        while len(data):
            size = SIZE.unpack_from(data)[0]
            found.append(int.from_bytes(data[FRAME_BYTES : FRAME_BYTES + 4], "little"))
            data = data[FRAME_BYTES + size :]
    return found


def stock_of(items: int, holders: int = 1) -> Stock:
    stock = Stock(0)
    for number in range(1, holders + 1):
        stock.join(number)
        stock.ask(number, 0, 0)
    if items:
        stock.accept(run_of(*range(items)))
    return stock


def test_an_item_waits_until_it_is_taken_and_is_unfinished_until_it_is_done() -> None:
    stock = stock_of(3)
    assert (stock.size, stock.unfinished) == (3, 3)
    assert numbers_in(stock.grant(1, 1, 0)) == [0]
    assert (stock.size, stock.waiting_items, stock.unfinished) == (3, 2, 3)
    stock.advance(1, taken=1, done=0)
    assert (stock.size, stock.unfinished) == (2, 3)
    stock.advance(1, taken=1, done=1)
    assert (stock.size, stock.unfinished) == (2, 2)


def test_what_a_dead_holder_has_not_done_comes_back_to_its_old_place() -> None:
    stock = stock_of(6, holders=2)
    assert numbers_in(stock.grant(1, 3, 0)) == [0, 1, 2]
    assert numbers_in(stock.grant(2, 1, 0)) == [3]
    stock.advance(1, taken=2, done=1)
    stock.advance(2, taken=1, done=0)
    assert stock.bury(2) == 1
    assert stock.bury(1) == 2
    stock.join(3)
    assert (stock.size, stock.unfinished) == (5, 5)
    assert numbers_in(stock.grant(3, 9, 0)) == [1, 2, 3, 4, 5]


def test_what_is_called_back_is_what_is_not_taken() -> None:
    stock = stock_of(5, holders=2)
    stock.grant(1, 4, 0)
    stock.advance(1, taken=2, done=0)
    stock.recall(1)
    assert (stock.size, stock.waiting_items) == (3, 3)
    assert numbers_in(stock.grant(2, 9, 0)) == [2, 3, 4]
    stock.advance(1, taken=2, done=2)
    assert stock.unfinished == 3


def test_a_claim_that_was_withdrawn_counts_as_waiting_again() -> None:
    stock = stock_of(2)
    stock.grant(1, 2, 0)
    stock.advance(1, taken=2, done=0)
    stock.ask(1, taken=1, now_ns=1)
    assert (stock.size, stock.waiting_items) == (1, 1)
    assert numbers_in(stock.grant(1, 1, 0)) == [1]


def test_a_fast_holder_is_sent_more_and_a_slow_one_one_at_a_time() -> None:
    stock = stock_of(1000)
    sizes, taken, now_ns = list[int](), 0, 0
    for each_ns in [1000] * 6:
        size = len(numbers_in(stock.grant(1, 1, now_ns)))
        sizes.append(size)
        taken, now_ns = taken + size, now_ns + size * each_ns
        stock.advance(1, taken, taken)
        stock.ask(1, taken, now_ns)
    assert sizes[:6] == [1, 4, 16, 64, 256, 659]
    slow = stock_of(10)
    slow.grant(1, 1, 0)
    slow.advance(1, 1, 1)
    slow.ask(1, 1, SLOW_NS)
    assert numbers_in(slow.grant(1, 1, 0)) == [1]


def test_holders_share_what_waits() -> None:
    stock = stock_of(100, holders=2)
    for holder in stock.holders.values():
        holder.batch = 1000
    assert len(numbers_in(stock.grant(1, 1, 0))) == 50
    assert len(numbers_in(stock.grant(2, 1, 0))) == 25


def test_a_message_is_never_too_large() -> None:
    stock = Stock(0)
    stock.join(1)
    stock.accept(run_of(*range(50), size=60_000))
    found = []
    while stock.waiting_items:
        (run,) = stock.grant(1, 50, 0)
        assert run.end - run.start <= MAX_BYTES
        found += numbers_in([run])
    assert found == list(range(50))


def test_an_item_larger_than_a_message_should_be_goes_alone() -> None:
    stock = Stock(0)
    stock.join(1)
    stock.accept(run_of(1, size=MAX_BYTES + 4))
    stock.accept(run_of(2))
    assert numbers_in(stock.grant(1, 9, 0)) == [1]
    assert numbers_in(stock.grant(1, 9, 0)) == [2]


def test_done_by_another_process_and_before_anybody_took_it() -> None:
    stock = stock_of(3, holders=2)
    stock.grant(1, 1, 0)
    stock.advance(1, taken=1, done=0)
    assert stock.finish_for_another()
    stock.advance(1, taken=1, done=0)
    assert stock.unfinished == 2
    assert stock.bury(1) == 0
    assert stock.finish_for_another()
    stock.grant(2, 2, 0)
    stock.advance(2, taken=2, done=0)
    assert stock.finish_for_another()
    assert not stock.finish_for_another()
    assert stock.bury(2) == 0
    assert (stock.size, stock.unfinished) == (0, 0)


def test_after_a_shutdown_at_once_nothing_comes_back() -> None:
    stock = stock_of(4, holders=1)
    stock.grant(1, 2, 0)
    stock.advance(1, taken=1, done=0)
    stock.discard()
    assert (stock.size, stock.unfinished) == (1, 2)
    stock.recall(1)
    assert (stock.size, stock.unfinished) == (0, 1)
    stock.accept(run_of(9))
    stock.bury(1)
    assert (stock.size, stock.unfinished) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_item_is_done_once_or_more_whatever_happens(seed: int) -> None:
    """Random puts, grants, claims, recalls and deaths: nothing is lost, and the numbers add up."""
    chance = random.Random(seed)
    stock, put, done, now_ns, last = Stock(0), 0, set[int](), 0, 0
    holding: dict[int, tuple[list[int], int, int]] = {}  # sent, taken, done
    for _ in range(2000):
        now_ns += chance.randrange(100_000)
        deed = chance.random()
        if deed < 0.2 and put < 3000:
            count = chance.randrange(1, 20)
            stock.accept(run_of(*range(put, put + count)))
            put += count
        elif deed < 0.3 or not holding:
            last += 1
            stock.join(last)
            holding[last] = [], 0, 0
        else:
            number = chance.choice(list(holding))
            sent, taken, finished = holding[number]
            if deed < 0.4:
                stock.bury(number)
                del holding[number]
                continue
            if deed < 0.7 and taken < len(sent):
                taken = chance.randint(taken, len(sent))
            elif deed < 0.9 and finished < taken:
                done.add(sent[finished])
                finished += 1
            stock.advance(number, taken, finished)
            if deed > 0.85:
                stock.ask(number, taken, now_ns)
                del sent[taken:]
                if stock.waiting_items:
                    sent += numbers_in(stock.grant(number, chance.choice((1, 1, 7)), now_ns))
            elif deed > 0.8:
                stock.recall(number)
                del sent[taken:]
            holding[number] = sent, taken, finished
        in_hand = sum(taken - finished for _, taken, finished in holding.values())
        assert stock.unfinished == stock.size + in_hand, f"seed {seed}"
    for number in list(holding):
        stock.bury(number)
    stock.join(0)
    left = []
    while stock.waiting_items:
        left += numbers_in(stock.grant(0, 100, now_ns))
    assert left == sorted(left), f"seed {seed}"
    assert set(left) | done == set(range(put)), f"seed {seed}"
    assert not set(left) & done, f"seed {seed}"
