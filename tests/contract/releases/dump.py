"""Write what a store of a release holds as INSERTs that SQLite, PostgreSQL, MariaDB and MySQL all read.

Fill a SQLite store with the code of that release, in every state there is, under the key of ``making.KEY``; for one that
is not the first, by upgrading the dump before it. Then::

    python -m tests.contract.releases.dump store.db > tests/contract/releases/0.5.0.sql

Before that, write what JSON says as ``\\u00dc`` as the character itself: a backslash is not read alike everywhere.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import Any

TABLES = (
    "credentials",
    "tokens",
    "seeds",
    "intents",
    "evidence",
    "statuses",
    "transitions",
    "investigations",
    "incidents",
    "sources",
    "watch",
    "heartbeats",
    "authorizations",
)
"""In an order in which no row comes before what it refers to; those of the newest release that has a dump."""


def dump(path: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [line for table in TABLES for line in _inserts(connection, f"oauth_guard_{table}")]


def _inserts(connection: sqlite3.Connection, table: str) -> list[str]:
    rows = connection.execute(f"SELECT * FROM {table} ORDER BY rowid")
    columns = ", ".join(name for name, *_ in rows.description)
    return [f"INSERT INTO {table} ({columns}) VALUES ({', '.join(map(literal, row))});" for row in rows]


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)):
        return repr(value)
    # Databases differ in what these mean inside quotes, and drivers in what a percent sign does.
    for character in ("\\", "%", "\n"):
        if character in value:
            raise ValueError(f"{value!r} holds {character!r}, which is not read alike everywhere.")
    return "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    print("\n".join(dump(sys.argv[1])))
