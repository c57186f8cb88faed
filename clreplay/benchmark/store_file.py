"""How the store's file is opened: to look, or to write in one transaction; what goes wrong is said in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = 1
SECONDS_TO_WAIT = 120.0
"""How long a writer waits for others to finish theirs."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS units (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, settings TEXT NOT NULL, result TEXT NOT NULL, seconds REAL NOT NULL,
    device TEXT NOT NULL, "commit" TEXT NOT NULL, versions TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    key TEXT NOT NULL, label INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (key, label));
CREATE TABLE IF NOT EXISTS choices (
    asked TEXT NOT NULL, device TEXT NOT NULL, chosen TEXT NOT NULL, PRIMARY KEY (asked, device, chosen));
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, settings TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (hash TEXT PRIMARY KEY, settings TEXT NOT NULL);
"""
_CURES = {
    "disk is full": "make room there, or choose another --out",
    "locked": "another process writes to it; end that one, or try again later",
    "readonly": "allow writing to it, or choose another --out",
}
"""What helps, by a part of SQLite's message."""


class StoreError(ValueError):
    """A file is no store or cannot be written, is of a later format, or holds results from other data."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to look with.

    Raises:
        StoreError: SQLite cannot read the file.
    """
    with _connection(path, f"{path} cannot be read as a store", "choose another --out") as connection:
        yield connection


@contextmanager
def writing(path: Path, attached: Path | None = None) -> Iterator[sqlite3.Connection]:
    """One transaction: all of the block's changes, or none.

    Args:
        path: the file; it is made, with its tables, where there is none.
        attached: another store, within the block the data base ``other``.

    Raises:
        StoreError: SQLite cannot write the file, for want of room say; it is as it was before then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fails = (f"{path} cannot be written", "choose another --out")
    if attached is not None:
        fails = (f"{attached} cannot be merged into {path}", "take a whole copy of it, or leave it out")
    with _connection(path, *fails) as connection:
        if attached is not None:
            connection.execute("ATTACH DATABASE ? AS other", (str(attached),))
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            if connection.execute("SELECT COUNT(*) FROM format").fetchone()[0] == 0:
                connection.execute("INSERT INTO format VALUES (?)", (FORMAT,))
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # on a full disk SQLite has rolled back already
                connection.execute("ROLLBACK")
            raise


def is_initialised(connection: sqlite3.Connection) -> bool:
    """Whether there is anything: a writer may have been killed before its first transaction was through."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None


def has_table(connection: sqlite3.Connection, name: str, database: str = "main") -> bool:
    """Whether there is such a table; stores of earlier versions lack the later ones."""
    query = f"SELECT 1 FROM {database}.sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None


def check(connection: sqlite3.Connection, path: Path) -> None:
    """What is there is a store that this code can read.

    Raises:
        StoreError: it is something else, or of a later format.
    """
    if not is_initialised(connection):
        return
    if not has_table(connection, "format"):
        raise StoreError(f"{path} is an SQLite file but not a store; choose another --out")
    version = connection.execute("SELECT version FROM format").fetchone()[0]
    if version > FORMAT:
        raise StoreError(f"{path} is of format {version}, this clreplay knows {FORMAT}; update clreplay")


@contextmanager
def _connection(path: Path, what_fails: str, usual_cure: str) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        connection = _connect(path)
        yield connection
    except sqlite3.Error as error:
        cure = next((cure for part, cure in _CURES.items() if part in str(error)), usual_cure)
        raise StoreError(f"{what_fails} ({error}); {cure}") from error
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    # A connection a call: tasks are handed out from threads of the executor, and a connection is bound to one.
    return sqlite3.connect(path, timeout=SECONDS_TO_WAIT, isolation_level=None)
