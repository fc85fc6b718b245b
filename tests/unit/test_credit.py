"""Back-pressure: never more than may wait, and nobody who wants is forgotten, whoever sleeps or dies meanwhile."""

from __future__ import annotations

import random
from collections import deque

import pytest

from conveyor.queues.credit import FIRST_TASKS, Account, Answer, Credit
from conveyor.queues.wire import MAX_FREED


def answers(credit: Credit, least: int = 1) -> dict[int, Answer]:
    return {answer.producer: answer for answer in credit.answers(least)}


def account(credit: Credit, producer: int) -> Account:
    return credit._accounts[producer]


def total(credit: Credit) -> int:
    """Return how many tasks are granted or wait."""
    return sum(account.granted + account.waiting for account in credit._accounts.values())


class Producer:
    """Asks and offers as the producer's end of the queue does."""

    def __init__(self, credit: Credit, number: int, left: int = 10**9) -> None:
        self.books, self.number, self.left = credit, number, left
        self.credit, self.wanted, self.has_asked = 0, 1, False
        self.is_blocked = False
        """It has a chunk in hand, and offers it as soon as it may."""
        self.chunks: list[int] = []
        credit.open(number)

    def step(self) -> None:
        if not self.left:
            return
        self.is_blocked = self.credit <= 0
        if self.is_blocked:
            self.ask()
            return
        tasks = min(self.credit, self.wanted, self.left)
        self.credit -= tasks
        self.left -= tasks
        self.chunks.append(tasks)
        self.books.offered(self.number, tasks)
        if self.wanted > 1 and self.credit < 2 * self.wanted:
            self.ask()

    def ask(self) -> None:
        if not self.has_asked:
            self.has_asked = True
            self.books.want(self.number)

    def hear(self, answer: Answer, wanted: int) -> None:
        assert self.has_asked, "answered without a question"
        assert answer.tasks or answer.freed, "answered with nothing"
        self.has_asked, self.wanted = False, wanted
        self.credit += answer.tasks


# -- bounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_granted_more_than_may_wait_in_any_history(seed: int) -> None:
    chance = random.Random(seed)
    capacity = chance.choice([1, 2, 3, 10, 16, 100])
    credit, producers, closed, leased = Credit(capacity), dict[int, Producer](), set[int](), list[int]()
    numbers = iter(range(10**6))

    def open_one() -> None:
        if len(producers) < 6:
            number = next(numbers)
            producers[number] = Producer(credit, number)

    def lease() -> None:
        waiting = [number for number, books in credit._accounts.items() if books.waiting > 0]
        if waiting:
            number = chance.choice(waiting)
            tasks = chance.randint(1, account(credit, number).waiting)
            credit.leased(number, tasks)
            leased.extend([number] * tasks)

    def hand_back() -> None:
        """A consumer dies, or its time is up."""
        for number in leased[: chance.randint(0, len(leased))]:
            if number in credit._accounts:
                credit.leased(number, -1)
                leased.remove(number)

    def close() -> None:
        if producers:
            number = chance.choice(list(producers))
            del producers[number]
            credit.close(number)
            credit.close(number)  # its end may be noticed twice
            closed.add(number)

    def forget() -> None:
        for number in list(closed):
            if not account(credit, number).waiting and number not in leased:
                credit.forget(number)
                closed.discard(number)

    def step() -> None:
        if producers:
            chance.choice(list(producers.values())).step()

    def free() -> None:
        if producers:
            credit.freed(chance.choice(list(producers)), chance.randrange(10**6))

    deeds = [open_one, lease, hand_back, close, forget, step, free]
    for _ in range(3000):
        chance.choices(deeds, [2, 10, 1, 1, 2, 60, 5])[0]()
        before, least = total(credit), chance.randint(1, 5)
        for answer in credit.answers(least):
            assert answer.producer in producers, f"seed {seed}: one that is gone is answered"
            producers[answer.producer].hear(answer, least)
            share = credit.share
            books = account(credit, answer.producer)
            assert not answer.tasks or books.granted + books.waiting <= share, f"seed {seed}"
        after = total(credit)
        assert after == before or after <= capacity, f"seed {seed}: {after} of {capacity}"
        for number, producer in producers.items():
            assert account(credit, number).granted == producer.credit >= 0, f"seed {seed}"


@pytest.mark.parametrize(("capacity", "producers", "share"), [(1, 3, 1), (16, 5, 3), (1000, 3, 333), (4, 2, 2)])
def test_the_shares_of_all_fit_into_the_capacity_but_none_is_nothing(capacity: int, producers: int, share: int) -> None:
    credit = Credit(capacity)
    for number in range(producers):
        credit.open(number)
    assert credit.share == share


def test_without_a_bound_everybody_gets_enough() -> None:
    credit = Credit(0)
    credit.open(1)
    credit.open(2)
    credit.want(1)
    assert answers(credit, least=4096)[1].tasks >= 2 * 4096
    assert total(credit) < 10**6  # not so much that an old size of chunk is kept to for long


# -- nobody is forgotten -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_whoever_wants_goes_on_though_all_others_sleep_on_what_they_were_granted(seed: int) -> None:
    chance = random.Random(seed)
    capacity, number = chance.randint(1, 40), chance.randint(2, 8)
    credit = Credit(capacity)
    producers = {n: Producer(credit, n, left=10**9) for n in range(number)}
    waiting = deque[int]()

    def turn(awake: list[Producer]) -> None:
        share = credit.share
        least = min(chance.randint(1, 64), max(1, share // 2))  # as the pace has it
        sleepers = [producer for producer in producers.values() if producer not in awake]
        for producer in (*awake, *(producer for producer in sleepers if producer.is_blocked)):
            offered = len(producer.chunks)
            producer.step()
            waiting.extend([producer.number] * sum(producer.chunks[offered:]))
        for answer in credit.answers(least):
            producers[answer.producer].hear(answer, least)
        for _ in range(min(len(waiting), chance.randint(0, 3))):
            credit.leased(waiting.popleft(), 1)

    for _ in range(200):
        turn(chance.sample(list(producers.values()), chance.randint(1, number)))
    awake = chance.sample(list(producers.values()), chance.randint(1, number - 1))
    for producer in awake:
        producer.left = 100
    for _ in range(5000):
        turn(awake)
        if not any(producer.left for producer in awake):
            return
    held = {n: (producer.credit, account(credit, n).waiting) for n, producer in producers.items()}
    stuck = [producer.number for producer in awake]
    raise AssertionError(f"seed {seed}: capacity {capacity}; (granted, waiting) {held}; stuck {stuck}")


@pytest.mark.parametrize("number", range(2, 8))
@pytest.mark.parametrize("capacity", [1, 2, 5, 16, 17, 36, 64, 1000])
def test_however_much_the_others_hoard_the_last_one_gets_its_share(capacity: int, number: int) -> None:
    credit = Credit(capacity)
    producers = {n: Producer(credit, n) for n in range(number)}
    last = producers[number - 1]
    least = max(1, credit.share // 2)

    def turn(awake: list[Producer]) -> None:
        for producer in awake:
            producer.step()
        for n in producers:
            credit.leased(n, account(credit, n).waiting)
            credit.freed(n, 1)
        for answer in credit.answers(least):
            producers[answer.producer].hear(answer, least)

    for _ in range(30):
        turn([producer for producer in producers.values() if producer is not last])
    while any(producer.is_blocked for producer in producers.values()):
        turn([producer for producer in producers.values() if producer.is_blocked])
    last.left = 100
    for _ in range(300):
        turn([last])
    assert not last.left, {n: producer.credit for n, producer in producers.items()}


def test_with_room_for_one_task_three_producers_take_turns() -> None:
    credit = Credit(1)
    producers = {n: Producer(credit, n, left=10) for n in range(3)}
    order = []
    for _ in range(200):
        for producer in producers.values():
            producer.step()
        for answer in credit.answers(1):
            producers[answer.producer].hear(answer, 1)
            order.append(answer.producer)
        for number in producers:
            if account(credit, number).waiting:
                credit.leased(number, 1)
    assert order == [0, 1, 2] * 10


def test_one_that_waits_is_answered_when_another_is_closed() -> None:
    credit = Credit(2)
    for number in (1, 2, 3):
        credit.open(number)
        credit.want(number)
    assert set(answers(credit)) == {1, 2}
    credit.close(1)
    assert set(answers(credit)) == {3}


def test_who_asked_first_is_answered_first() -> None:
    credit = Credit(1)
    for number in (1, 2, 3):
        credit.open(number)
    for number in (3, 1, 2):
        credit.want(number)
    order = []
    for _ in range(3):
        [number] = answers(credit)
        order.append(number)
        credit.offered(number, 1)
        credit.leased(number, 1)
    assert order == [3, 1, 2]


def test_one_answer_to_one_question() -> None:
    credit = Credit(10)
    credit.open(1)
    assert answers(credit) == {}
    credit.want(1)
    assert set(answers(credit)) == {1}
    assert answers(credit) == {}


def test_nobody_who_closed_is_answered() -> None:
    credit = Credit(10)
    credit.open(1)
    credit.want(1)
    credit.close(1)
    assert answers(credit) == {}


# -- how much ----------------------------------------------------------------------------------------------


def test_a_producer_with_tasks_waiting_gets_no_crumbs_while_it_can_wait_for_more() -> None:
    credit = Credit(1000)
    producer = Producer(credit, 1)
    waiting = 0
    for _ in range(20_000):
        before = producer.left
        producer.step()
        waiting += before - producer.left
        if waiting:
            credit.leased(1, 1)  # one at a time, as slow consumers do
            waiting -= 1
        for answer in credit.answers(100):
            producer.hear(answer, 100)
    later = producer.chunks[50:]
    assert len(later) > 50
    assert sum(later) / len(later) > 80


def test_after_a_death_what_comes_back_counts_as_waiting_again() -> None:
    credit = Credit(10)
    credit.open(1)
    for _ in range(2):
        credit.want(1)
        assert answers(credit)[1].tasks == 10
        credit.offered(1, 10)
        credit.leased(1, 10)
    credit.leased(1, -10)
    credit.want(1)
    assert answers(credit) == {}
    credit.leased(1, 10)
    assert answers(credit)[1].tasks == 10


def test_after_a_death_more_may_wait_than_should_and_nobody_is_granted_any() -> None:
    credit = Credit(10)
    for number in (1, 2):
        credit.open(number)
        account(credit, number).waiting = 5
    credit.leased(1, -7)
    credit.want(2)
    credit.leased(2, 5)
    assert answers(credit) == {}
    credit.leased(1, 5)
    assert answers(credit)[2].tasks == 3


def test_a_first_grant_is_enough_to_go_on_with() -> None:
    credit = Credit(1000)
    credit.open(1)
    credit.want(1)
    assert answers(credit)[1].tasks == FIRST_TASKS


# -- room --------------------------------------------------------------------------------------------------


def full_of(credit: Credit, granted: int, waiting: int) -> None:
    """Make producer 1 one that has so much, and wants room for it."""
    credit.open(1)
    account(credit, 1).granted, account(credit, 1).waiting = granted, waiting
    credit.want(1)


@pytest.mark.parametrize(("granted", "waiting"), [(5, 0), (5, 3), (8, 2), (1, 0)])
def test_one_that_has_credit_and_no_room_is_told_of_each_chunk_that_is_done(granted: int, waiting: int) -> None:
    credit = Credit(10)
    full_of(credit, granted, waiting)
    list(credit.answers(5))
    credit.want(1)
    assert all(not answer.freed for answer in credit.answers(5))
    credit.want(1)
    credit.freed(1, 77)
    assert answers(credit, least=5)[1].freed == (77,)


def test_one_that_has_a_little_credit_and_no_room_is_told_at_the_latest_when_nothing_of_it_waits() -> None:
    credit = Credit(4)
    full_of(credit, granted=1, waiting=3)
    credit.freed(1, 77)
    for _ in range(3):
        credit.leased(1, 1)
        if found := answers(credit, least=2):
            assert found[1].freed == (77,)
            return
    raise AssertionError("never told")


def test_no_more_chunks_are_named_than_a_message_holds_and_the_others_follow() -> None:
    credit = Credit(10)
    full_of(credit, granted=5, waiting=0)
    for number in range(MAX_FREED + 2):
        credit.freed(1, number)
    assert answers(credit)[1].freed == tuple(range(MAX_FREED))
    credit.want(1)
    assert answers(credit)[1].freed == (MAX_FREED, MAX_FREED + 1)


def test_the_books_of_one_that_is_forgotten_are_closed() -> None:
    credit = Credit(10)
    credit.open(1)
    credit.want(1)
    list(credit.answers(1))
    credit.close(1)
    credit.forget(1)
    credit.open(2)
    credit.want(2)
    assert answers(credit)[2].tasks == 10


# -- what waits of an earlier run ----------------------------------------------------------------------------


def test_what_an_earlier_run_has_left_takes_room_until_it_is_leased() -> None:
    credit = Credit(100, legacy=95)
    credit.open(1)
    credit.want(1)
    assert answers(credit)[1].tasks == 5
    credit.offered(1, 5)
    credit.want(1)
    assert not answers(credit)
    credit.leased(0, 30)  # by an account that there is not
    assert 0 < answers(credit)[1].tasks <= 30


def test_where_more_is_left_than_may_wait_nobody_may_put_before_it_is_less() -> None:
    credit = Credit(100, legacy=1000)
    credit.open(1)
    credit.want(1)
    assert not answers(credit)
    credit.leased(0, 900)
    assert not answers(credit)
    credit.leased(0, 1)
    assert answers(credit)[1].tasks == 1


def test_what_a_producer_leaves_that_is_no_more_still_takes_room() -> None:
    credit = Credit(10)
    for number in (1, 2):
        credit.open(number)
    credit.want(1)
    tasks = answers(credit)[1].tasks
    credit.offered(1, tasks)
    credit.close(1)
    credit.forget(1)
    credit.want(2)
    assert answers(credit)[2].tasks == 10 - tasks
    credit.leased(1, tasks)  # its number is known to its chunks on disk
    credit.leased(1, -1)
    assert credit._legacy.waiting == 1
