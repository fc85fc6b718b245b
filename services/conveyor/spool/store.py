"""The tasks of a spool, in SQLite (WAL mode): chunks until all of them is over, how far each has come, dead letters.

Called in the supervisor's loop alone. All changes of one turn of the loop are one transaction, so the store never
holds half of what belongs together. What it cannot write raises `StoreError`, and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from conveyor.errors import ConveyorError
from conveyor.queues.codec import Codec
from conveyor.queues.letters import Cause, DeadLetter
from conveyor.spool.fingerprint import ProducerPrint
from conveyor.spool.recovery import Progress

VERSION = 2
"""The format that is written. Format 1 had neither checksums nor fingerprints of the producers; it can be read."""
APPLICATION_ID = 0x436F6E76  # "Conv": tells our files from other people's
# The write-ahead log is written back when it has so many pages of 4 KiB. Arbitrary: a few are too often, and what is
# read at a start grows with it.
CHECKPOINT_PAGES = 4096
MAX_ROW_BYTES = 1 << 20  # of a row, beside a payload; a letter's texts are cut far below
SHRINK_PAGES = 512  # at a time: the loop waits meanwhile
MAX_CHECKED_BYTES = 256 << 20  # at the start, in about a second; damage in a larger one is found where it is read

_TABLES = {
    "chunks": "key INTEGER PRIMARY KEY, codec INTEGER, tasks INTEGER, put_at REAL, account INTEGER, payload BLOB",
    "progress": "key INTEGER PRIMARY KEY, done TEXT, attempts TEXT, failures TEXT",
    "slots": "name TEXT PRIMARY KEY, role TEXT, row INTEGER, put INTEGER, is_finished INTEGER, settled INTEGER, "
    "words BLOB",
    "letters": "number INTEGER PRIMARY KEY, cause TEXT, task TEXT, error TEXT, reason TEXT, trace TEXT, "
    "attempts INTEGER, worker TEXT, put_at REAL, given_up_at REAL, codec INTEGER, payload BLOB",
    "run": "key INTEGER PRIMARY KEY, value TEXT",
}
"""The tables of format 1. In format 2 each has a column more, `seal`: the checksum."""
_SCHEMA = "".join(f"CREATE TABLE {table} ({columns}, seal INTEGER);" for table, columns in _TABLES.items())
# What the checksum of a row is of, in SQL; `seal` is a function of ours. `account` is left out: a start sets it anew.
_SEALED = {
    "chunks": "key, codec, tasks, put_at, payload",
    "progress": "key, done, attempts, failures",
    "slots": "name, role, row, put, is_finished, settled, words",
    "letters": "number, cause, task, error, reason, trace, attempts, worker, put_at, given_up_at, codec, payload",
    "run": "key, value",
}
_RUN, _PRODUCERS = 1, 2  # the keys of the table `run`
_CHUNK = "key, codec, tasks, put_at, account, payload"
_SLOT = "name, role, row, put, is_finished, settled, words"
_LETTER = ", ".join(f.name for f in fields(DeadLetter) if f.name not in ("number", "payload"))


class StoreError(ConveyorError):
    """The store cannot be read or written; the text says why."""


class ChunkRow(NamedTuple):
    """A chunk as it is stored. `put_at` is Unix time; `account` is whose credit it counts against, in this run."""

    key: int
    codec: int
    tasks: int
    put_at: float
    account: int
    payload: bytes | memoryview


class SlotRow(NamedTuple):
    """A slot as it is stored. `words` are those of its row in the ledger at the last start."""

    name: str
    role: str
    row: int
    put: int
    is_finished: bool
    settled: int
    """All leases up to this number are in the store."""
    words: bytes


@dataclass(frozen=True, slots=True)
class RunRow:
    """What is noted of the run as a whole; counts in tasks."""

    name: str | None = None
    """The pipeline's."""
    epoch: int = 0
    """How often it was started."""
    added: int = 0
    """Tasks beyond those that were put: dead letters tried again, and what a power cut made undone."""
    dead_lettered: int = 0
    redeliveries: Mapping[str, int] = field(default_factory=dict)
    stamp: int = 0
    """Which start it was: what the files in shared memory have, so that those of another start are told apart."""


@dataclass(slots=True)
class Changes:
    """What is to be written in one transaction."""

    chunks: list[ChunkRow] = field(default_factory=list)
    puts: dict[int, int] = field(default_factory=dict)
    """By the row of a producer, the tasks that it has put in all."""
    finished: set[int] = field(default_factory=set)
    """The rows of producers whose work is over."""
    progress: dict[int, Progress] = field(default_factory=dict)
    over: list[int] = field(default_factory=list)
    """The keys of chunks of which nothing is left."""
    settled: dict[int, int] = field(default_factory=dict)
    slots: list[SlotRow] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    """The numbers of letters."""
    run: RunRow | None = None


class Store:
    """One database. `sync` is "normal" or "full"."""

    def __init__(self, path: Path, sync: str) -> None:
        """Open it, or make it. Raises `StoreError`."""
        self.path = path
        self.commits = 0
        self.commit_seconds = 0.0
        with _told():
            # The loop's thread opens it and uses it; the last one to let go of it may be another.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
            try:
                self._set_up(sync)
            except BaseException:
                self._db.close()
                raise

    def _set_up(self, sync: str) -> None:
        db = self._db
        # The folder's lock keeps others out, so SQLite need not: it saves the locks of each transaction, and a file.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (self.version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise StoreError("it is a database of another program")
        if self.version > VERSION:
            raise StoreError(f"it was written by a newer version (format {self.version}, this one knows {VERSION})")
        if tables and self.version < 1:
            raise StoreError("it is damaged")
        # Some builds of SQLite overwrite what is deleted: each large task would be written three times.
        db.execute("PRAGMA secure_delete = OFF")
        if not tables:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # in the file itself, for `folder.py`
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {sync.upper()}")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if most >= 0:  # then the database is full before its log can no longer be written back into it
            db.execute(f"PRAGMA max_page_count = {max(1, most // _found(db.execute('PRAGMA page_size')))}")
        db.create_function("seal", -1, _seal, deterministic=True)
        if not tables:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            self.version = VERSION
        elif self.path.stat().st_size < MAX_CHECKED_BYTES:
            self._check()

    def _check(self) -> None:
        """Raise `StoreError` if anything in the database is not as it was written."""
        if _found(self._db.execute("PRAGMA quick_check(1)")) != "ok":
            raise StoreError("it is damaged")
        if self.version < VERSION:
            return
        for table, columns in _SEALED.items():
            wrong = f"SELECT count(*) FROM {table} WHERE seal IS NOT NULL AND seal != seal({columns})"
            if _found(self._db.execute(wrong)):
                raise StoreError(f"it is damaged: its {table} are not what was written")

    def _upgrade(self) -> None:
        """Have the database be of the present format, within the first transaction that writes to it."""
        if self.version == VERSION:
            return
        for table in _TABLES:
            self._db.execute(f"ALTER TABLE {table} ADD COLUMN seal INTEGER")
        self._db.execute(f"PRAGMA user_version = {VERSION}")
        self.version = VERSION

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that a row can hold, with room for what else is in it."""
        return self._db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - MAX_ROW_BYTES

    def close(self) -> None:
        self._db.close()

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> None:
        """Make the changes, all of them or none. Raises `StoreError`."""
        began = time.perf_counter()
        with self.transaction() as db:
            if changes.slots:
                self.write_slots(changes.slots)
            if changes.chunks:
                self.write_chunks(changes.chunks)
            for row, put in changes.puts.items():
                db.execute("UPDATE slots SET put = ? WHERE row = ?", (put, row))
            for row in changes.finished:
                db.execute("UPDATE slots SET is_finished = 1 WHERE row = ?", (row,))
            if changes.progress:
                self.write_progress(changes.progress)
            if changes.over:
                gone = [(key,) for key in changes.over]
                db.executemany("DELETE FROM chunks WHERE key = ?", gone)
                db.executemany("DELETE FROM progress WHERE key = ?", gone)
            for row, number in changes.settled.items():
                db.execute("UPDATE slots SET settled = ? WHERE row = ?", (number, row))
            changed = changes.puts.keys() | changes.finished | changes.settled.keys()
            db.executemany(f"UPDATE slots SET seal = seal({_SLOT}) WHERE row = ?", [(row,) for row in changed])
            for letter in changes.letters:
                self.write_letter(letter)
            db.executemany("DELETE FROM letters WHERE number = ?", [(number,) for number in changes.forgotten])
            if changes.run is not None:
                self.write_run(changes.run)
        self.commits += 1
        self.commit_seconds += time.perf_counter() - began

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Have what is written inside be written whole or not at all. Raises `StoreError`."""
        with _told():
            version = self.version
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._upgrade()
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self.version = version
                if self._db.in_transaction:  # on some errors SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Give back to the disk what the files do not need: the log, and some of what deleted chunks have left.

        Raises `StoreError` if the disk is too full for that.
        """
        with _told():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            # As a script: `execute` would stop at the first page.
            self._db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def write_chunks(self, chunks: Sequence[ChunkRow]) -> None:
        rows = (
            (*chunk, _seal(chunk.key, chunk.codec, chunk.tasks, float(chunk.put_at), chunk.payload)) for chunk in chunks
        )
        self._db.executemany(f"INSERT INTO chunks ({_CHUNK}, seal) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def write_progress(self, progress: Mapping[int, Progress]) -> None:
        rows = [(key, *map(json.dumps, (p.done, p.attempts, p.failures))) for key, p in progress.items()]
        self._replace("progress", _SEALED["progress"], rows)

    def write_letter(self, letter: DeadLetter) -> None:
        names = (*_LETTER.split(", "), "payload")
        values = [letter.number or None, *(getattr(letter, name) for name in names)]
        # What UTF-8 cannot hold, as part of a task's repr perhaps, is escaped.
        values = [v.encode(errors="backslashreplace").decode() if type(v) is str else v for v in values]
        marks = ", ".join("?" * len(values))
        cursor = self._db.execute(f"INSERT INTO letters (number, {_LETTER}, payload) VALUES ({marks})", values)
        seal = f"UPDATE letters SET seal = seal({_SEALED['letters']}) WHERE number = ?"
        self._db.execute(seal, (cursor.lastrowid,))

    def write_run(self, run: RunRow) -> None:
        self._replace("run", "key, value", [(_RUN, json.dumps(asdict(run)))])

    def write_producers(self, producers: Sequence[ProducerPrint]) -> None:
        self._replace("run", "key, value", [(_PRODUCERS, json.dumps([p.as_plain() for p in producers]))])

    def write_slots(self, slots: Sequence[SlotRow]) -> None:
        self._replace("slots", _SLOT, slots)

    def _replace(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        marks = ", ".join("?" * (columns.count(",") + 2))
        sealed = [(*row, _seal(*row)) for row in rows]
        self._db.executemany(f"INSERT OR REPLACE INTO {table} ({columns}, seal) VALUES ({marks})", sealed)

    # -- reading -------------------------------------------------------------------------------------------

    def run(self) -> RunRow:
        with _reading():
            value = self._value(_RUN)
            return RunRow(**value) if value is not None else RunRow()

    def producers(self) -> list[ProducerPrint]:
        """Return the fingerprints of the run's producers; none in format 1."""
        with _reading():
            return [ProducerPrint.from_plain(plain) for plain in self._value(_PRODUCERS) or ()]

    def _value(self, key: int) -> Any:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def slots(self) -> list[SlotRow]:
        with _reading():
            rows = self._db.execute(f"SELECT {_SLOT} FROM slots")
            return [SlotRow(*row)._replace(is_finished=bool(row[4])) for row in rows]

    def last_key(self) -> int:
        """Return the greatest key of a chunk; 0 if there is none."""
        with _reading():
            return int(_found(self._db.execute("SELECT max(key) FROM chunks")) or 0)

    def tasks(self) -> int:
        """Return the tasks of all chunks, those that are over included."""
        with _reading():
            return int(_found(self._db.execute("SELECT sum(tasks) FROM chunks")) or 0)

    def progress(self, keys: Sequence[int] | None = None) -> dict[int, Progress]:
        """Return how far these chunks have come, or all, those left out of which nothing is over."""
        where = "" if keys is None else f" WHERE key IN ({', '.join(map(str, keys))})"
        query = f"SELECT {_SEALED['progress']} FROM progress{where}"
        with _reading():
            return {
                key: Progress([(first, last) for first, last in json.loads(done)], _places(attempts), _places(failures))
                for key, done, attempts, failures in self._db.execute(query)
            }

    def tasks_of(self, keys: Sequence[int]) -> dict[int, int]:
        """Return the number of tasks of those of these chunks that there are."""
        found: dict[int, int] = {}
        with _reading():
            for at in range(0, len(keys), 500):  # as many as one statement takes
                some = ", ".join(map(str, keys[at : at + 500]))
                found.update(self._db.execute(f"SELECT key, tasks FROM chunks WHERE key IN ({some})").fetchall())
        return found

    def load(self, after: int, most_chunks: int, most_bytes: int) -> list[ChunkRow]:
        """Return the chunks with keys above `after`, in their order: so many, and after the first no more bytes.

        Raises `StoreError` for one that is not what was written.
        """
        loaded, size = list[ChunkRow](), 0
        seal = "seal" if self.version == VERSION else "NULL"
        query = f"SELECT {_CHUNK}, {seal} FROM chunks WHERE key > ? ORDER BY key LIMIT ?"
        with _reading():
            for *row, seal in self._db.execute(query, (after, most_chunks)):
                chunk = ChunkRow(*row)
                if seal not in (None, _seal(chunk.key, chunk.codec, chunk.tasks, chunk.put_at, chunk.payload)):
                    raise StoreError(f"it is damaged: chunk {chunk.key} is not what was written")
                size += len(chunk.payload)
                if loaded and size > most_bytes:
                    break
                loaded.append(chunk)
        return loaded

    def letters(self, after: int, most: int) -> list[DeadLetter]:
        """Return so many dead letters, from the first with a number above `after`; without their payloads."""
        query = f"SELECT {_LETTER}, x'', number FROM letters WHERE number > ? ORDER BY number LIMIT ?"
        with _reading():
            return [_letter(row) for row in self._db.execute(query, (after, most))]

    def letter(self, number: int) -> DeadLetter | None:
        with _reading():
            query = f"SELECT {_LETTER}, payload, number FROM letters WHERE number = ?"
            row = self._db.execute(query, (number,)).fetchone()
        return _letter(row) if row else None

    def letter_numbers(self) -> list[int]:
        with _reading():
            return [number for (number,) in self._db.execute("SELECT number FROM letters ORDER BY number")]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:  # the latter for what is larger than SQLite can count
        raise StoreError(str(error)) from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    with _told():
        try:
            yield
        except (ValueError, TypeError, KeyError) as error:  # a text or a number that is not what we write
            raise StoreError(f"it is damaged: {error!r}") from error


def _seal(*values: Any) -> int:
    """Return the checksum of a row's values, each with its kind and its size."""
    seal = 0
    for value in values:
        match value:
            case None:
                head, body = b"n", b""
            case int():
                head, body = b"i", b"%d" % value
            case float():
                head, body = b"f", struct.pack("<d", value)
            case str():
                head, body = b"s", value.encode(errors="surrogatepass")
            case _:
                head, body = b"b", value
        seal = zlib.crc32(body, zlib.crc32(b"%s%d:" % (head, len(body)), seal))
    return seal


def _found(cursor: sqlite3.Cursor) -> Any:
    return cursor.fetchone()[0]


def _places(text: str) -> dict[int, int]:
    return {int(place): number for place, number in json.loads(text).items()}


def _letter(row: Sequence[Any]) -> DeadLetter:
    found = dict(zip((*_LETTER.split(", "), "payload", "number"), row, strict=True))
    return DeadLetter(**found | {"cause": Cause(found["cause"]), "codec": Codec(found["codec"])})
