"""How items become bytes and items again: in the process that puts, and in the one that gets. Called by `queue.py`.

As `multiprocessing` pickles, so that what it knows to send (sockets, connections, locks while a process is started)
can be sent. A large item lies in memory of its own: its pickle, and beside it the buffers (pickle protocol 5) that no
byte of is copied on the way there.
"""

from __future__ import annotations

import io
import itertools
import mmap
import pickle
import struct
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

from conveyor.dropin.ring import LARGE_BYTES
from conveyor.dropin.runs import write_memory

_PROTOCOL: Final = 5
_ATOMS: Final = frozenset((int, str, bytes, float, bool, type(None)))  # pickled in one way only
_dumps: Final = pickle.dumps
loads: Final = pickle.loads

Buffers = list[pickle.PickleBuffer]


class Packer:
    """Keeps its picklers: to make one takes longer than to pickle a small item. Any thread may call it."""

    def __init__(self) -> None:
        self._spare: list[tuple[io.BytesIO, _Pickler, Buffers]] = []

    def pack(self, item: object) -> tuple[bytes, Buffers]:
        """Return the pickle and the large buffers beside it. Raises whatever pickling the item raises."""
        if type(item) in _ATOMS:
            return _dumps(item, _PROTOCOL), []
        try:
            spare = self._spare.pop()
        except IndexError:  # the first one of this thread, or a put inside a put
            spare = _new_pickler()
        file, pickler, buffers = spare
        pickler.dump(item)
        data = file.getvalue()
        if not buffers:
            file.seek(0)
            file.truncate()
            pickler.clear_memo()
            self._spare.append(spare)
        return data, buffers


class _Pickler(ForkingPickler):
    """Knows what `multiprocessing` knows to send, and leaves large buffers out."""

    def __init__(self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool]) -> None:
        pickle.Pickler.__init__(self, file, _PROTOCOL, buffer_callback=keep)
        self.dispatch_table = ForkingPickler(io.BytesIO()).dispatch_table


def _new_pickler() -> tuple[io.BytesIO, _Pickler, Buffers]:
    file = io.BytesIO()
    large: Buffers = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Let a small buffer into the pickle."""
        if buffer.raw().nbytes < LARGE_BYTES:
            return True
        large.append(buffer)
        return False

    return file, _Pickler(file, keep), large


class _Pieces:
    """A file that keeps what is written to it as it came: pickle hands over a large bytes object uncopied."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.write = self.pieces.append


def pieces_of(item: bytes) -> list[bytes]:
    """Return the pickle of a large bytes object in pieces."""
    file = _Pieces()
    pickle.Pickler(file, _PROTOCOL).dump(item)
    return file.pieces


def write_large(pieces: list[bytes], buffers: Buffers) -> int:
    """Return the descriptor of new memory that holds a large item: its pickle, and the buffers beside it."""
    views = [buffer.raw() for buffer in buffers]
    sizes = [sum(map(len, pieces)), *(view.nbytes for view in views)]
    return write_memory([struct.pack(f"<{1 + len(sizes)}Q", len(sizes), *sizes), *pieces, *views])


def read_large(descriptor: int) -> Any:
    """Return the item. Its buffers are copied out: who gets it may keep and change them."""
    view = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    number = struct.unpack_from("<Q", view)[0]
    sizes = struct.unpack_from(f"<{number}Q", view, 8)
    edges = itertools.accumulate(sizes, initial=8 * (1 + number))
    parts = [view[start:end] for start, end in itertools.pairwise(edges)]
    return loads(parts[0], buffers=map(bytearray, parts[1:]))
