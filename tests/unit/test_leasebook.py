"""The book of leases: what was written before a death of all is read after it, and nothing else."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from conveyor.ledger import CLOSED_LEASES
from conveyor.spool.leasebook import Entry, LeaseBook, TornError

SLOTS = 3


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("leases")
    os.truncate(descriptor, LeaseBook.size(SLOTS))
    yield descriptor
    os.close(descriptor)


def entry(number: int, key: int = 0) -> Entry:
    return Entry(number, key or 1000 + number, number, 2 * number)


def test_a_new_book_is_empty(file: int) -> None:
    assert [list(LeaseBook(file).read(slot, 0)) for slot in range(SLOTS)] == [[]] * SLOTS


def test_what_one_process_has_written_another_reads(file: int) -> None:
    book = LeaseBook(file)
    book.write(0, entry(1))
    book.write(2, Entry(1, 2**40, 0, 4096))
    book.write(2, Entry(2, 7, 5, 2**32 - 1))
    copy = LeaseBook(file, is_copy=True)
    assert list(copy.read(0, 0)) == [entry(1)]
    assert list(copy.read(1, 0)) == []
    assert list(copy.read(2, 0)) == [Entry(1, 2**40, 0, 4096), Entry(2, 7, 5, 2**32 - 1)]


def test_those_that_are_known_already_are_left_out_and_the_others_come_in_order(file: int) -> None:
    book = LeaseBook(file)
    numbers = range(100, 100 + CLOSED_LEASES)
    for number in numbers:
        book.write(1, entry(number))
    assert [found.number for found in book.read(1, 0)] == list(numbers)
    assert [found.number for found in book.read(1, 200)] == list(range(201, numbers.stop))
    assert list(book.read(1, numbers.stop)) == []


def test_an_entry_takes_the_place_of_the_one_so_many_before(file: int) -> None:
    book = LeaseBook(file)
    for number in range(1, CLOSED_LEASES + 4):
        book.write(0, entry(number))
    assert [found.number for found in book.read(0, 0)] == list(range(4, CLOSED_LEASES + 4))


class KilledError(Exception):
    pass


class Dying:
    """The words of a book, until so many stores are done."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self.words, self.stores = words, stores

    def __setitem__(self, index: int, value: int) -> None:
        if not self.stores:
            raise KilledError
        self.stores -= 1
        self.words[index] = value


@pytest.mark.parametrize("stores", range(4))
def test_who_is_killed_in_the_middle_of_an_entry_has_given_nothing(file: int, stores: int) -> None:
    book, number = LeaseBook(file), CLOSED_LEASES + 5
    book.write(0, entry(4))
    book.write(0, entry(5))  # known, or its place would not be taken
    book._words = Dying(book._words, stores)  # type: ignore[assignment]
    with pytest.raises(KilledError):
        book.write(0, entry(number))
    assert list(LeaseBook(file).read(0, 5)) == []
    assert list(LeaseBook(file).read(0, 3)) == [entry(4)] + [entry(5)] * (not stores)


def test_no_entry_lies_on_two_pages(file: int) -> None:
    book = LeaseBook(file)
    for slot in range(SLOTS):
        for number in range(1, CLOSED_LEASES + 1):
            before = bytes(book._words)
            book.write(slot, Entry(number, 2**64 - 1, 2**32 - 1, 2**32 - 1))
            changed = [at for at, (old, new) in enumerate(zip(before, bytes(book._words), strict=True)) if old != new]
            assert changed[0] // mmap.PAGESIZE == changed[-1] // mmap.PAGESIZE


def test_a_copy_is_not_the_file(file: int) -> None:
    copy = LeaseBook(file, is_copy=True)
    copy.write(0, entry(1))
    assert list(LeaseBook(file).read(0, 0)) == []


# -- what a disk or a power cut can do to it ---------------------------------------------------------------------


STAMP = 0xFEDCBA9876543211


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("leases")
    os.truncate(descriptor, LeaseBook.size(2))
    yield descriptor
    os.close(descriptor)


def test_the_book_of_another_start_is_not_read(memory: int) -> None:
    LeaseBook(memory, stamp=STAMP).write(1, Entry(5, 1, 0, 10))
    assert list(LeaseBook(memory, stamp=STAMP, is_copy=True).read(1, 0)) == [Entry(5, 1, 0, 10)]
    with pytest.raises(TornError, match="not of this start"):
        LeaseBook(memory, stamp=STAMP + 2, is_copy=True)
    os.truncate(memory, LeaseBook.size(1))
    with pytest.raises(TornError, match="not of this start"):
        LeaseBook(memory, stamp=STAMP, is_copy=True)


@pytest.mark.parametrize("bit", range(0, 4 * 64, 7))
def test_an_entry_of_which_one_bit_has_changed_is_not_believed(memory: int, bit: int) -> None:
    LeaseBook(memory, stamp=STAMP).write(1, Entry(5, 1, 0, 10))
    place = LeaseBook.size(1) - 8 + 5 * 32 + bit // 8
    (byte,) = os.pread(memory, 1, place)
    os.pwrite(memory, bytes([byte ^ 1 << bit % 8]), place)
    with pytest.raises(TornError, match="an entry in the book of leases is torn"):
        list(LeaseBook(memory, stamp=STAMP, is_copy=True).read(1, 0))


def test_an_entry_in_the_place_of_another_slots_is_not_believed(memory: int) -> None:
    LeaseBook(memory, stamp=STAMP).write(0, Entry(5, 1, 0, 10))
    os.pwrite(memory, os.pread(memory, 32, 5 * 32), LeaseBook.size(1) - 8 + 5 * 32)
    with pytest.raises(TornError):
        list(LeaseBook(memory, stamp=STAMP, is_copy=True).read(1, 0))
