"""The guestbook: entries in an SQLite database, which any number of functions read and write at once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from toolbox.files import place

__all__ = ["NAME_LENGTH_MAX", "TEXT_LENGTH_MAX", "Entry", "Guestbook", "open_guestbook"]

NAME_LENGTH_MAX = 100
TEXT_LENGTH_MAX = 1_000
READ_MAX = 500  # at a time
BUSY_S = 10  # how long one waits while another writes

SCHEMA = """
create table if not exists entries (
    id integer primary key,
    written_at text not null,
    name text not null,
    text text not null
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What somebody has written, and when (UTC, ISO 8601)."""

    id: int
    written_at: str
    name: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return asdict(self)


class Guestbook:
    """The entries. Use it from the thread that has opened it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, name: str, text: str) -> Entry:
        """Write an entry."""
        written_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        insert = "insert into entries (written_at, name, text) values (?, ?, ?)"
        with self._database:
            id = self._database.execute(insert, (written_at, name, text)).lastrowid
        return Entry(id=id or 0, written_at=written_at, name=name, text=text)

    def latest(self, count: int) -> list[Entry]:
        """The newest entries, the newest first."""
        return self._entries("order by id desc limit ?", count)

    def all(self) -> Iterator[Entry]:
        """Every entry, the oldest first.

        They are read some at a time: somebody who is slow in taking them holds up nobody who writes.
        """
        last = 0
        while entries := self._entries("where id > ? order by id limit ?", last, READ_MAX):
            yield from entries
            last = entries[-1].id

    def _entries(self, rest: str, *values: int) -> list[Entry]:
        query = f"select id, written_at, name, text from entries {rest}"  # noqa: S608 - `rest` is ours
        rows = self._database.execute(query, values)
        return [Entry(id=row[0], written_at=row[1], name=row[2], text=row[3]) for row in rows]


@contextmanager
def open_guestbook() -> Iterator[Guestbook]:
    """The guestbook in .quarterhour/guestbook/ (GUESTBOOK_DIR: another folder), made if need be."""
    with closing(sqlite3.connect(place("guestbook", "entries.db"), timeout=BUSY_S)) as database:
        database.execute(SCHEMA)
        yield Guestbook(database)
