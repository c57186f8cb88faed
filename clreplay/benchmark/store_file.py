"""The store's SQLite file: its tables, and connections to read it or to write in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from clreplay.runtime.files import CannotWrite

FORMAT = 3
SECONDS_TO_WAIT = 120.0
"""How long a writer waits for others to finish theirs."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, classes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (hash TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sets (
    key TEXT PRIMARY KEY, condensed TEXT NOT NULL, dataset TEXT NOT NULL, images_per_class INTEGER NOT NULL,
    seed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    key TEXT NOT NULL, label INTEGER NOT NULL, stored INTEGER NOT NULL, decoded INTEGER NOT NULL,
    execution TEXT NOT NULL, last_record TEXT NOT NULL, seconds REAL NOT NULL, device TEXT NOT NULL,
    "commit" TEXT NOT NULL, versions TEXT NOT NULL, created TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (key, label));
CREATE TABLE IF NOT EXISTS networks (
    key TEXT PRIMARY KEY, dataset TEXT NOT NULL, condensed_set TEXT, training TEXT NOT NULL, store TEXT,
    seed INTEGER NOT NULL, set_number INTEGER NOT NULL, network_number INTEGER NOT NULL, accuracy REAL NOT NULL,
    held_out REAL, diverged INTEGER NOT NULL, images INTEGER NOT NULL, seconds REAL NOT NULL, device TEXT NOT NULL,
    "commit" TEXT NOT NULL, versions TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS choices (
    execution TEXT NOT NULL, device TEXT NOT NULL, chosen TEXT NOT NULL, PRIMARY KEY (execution, device));
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, settings TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checksums (
    kind TEXT NOT NULL, key TEXT NOT NULL, checksum TEXT NOT NULL, PRIMARY KEY (kind, key));
CREATE VIEW IF NOT EXISTS finished_sets AS
    SELECT sets.* FROM sets JOIN datasets ON datasets.name = sets.dataset
    WHERE datasets.classes = (SELECT COUNT(*) FROM images WHERE images.key = sets.key);
"""
_CURES = {
    "disk is full": "make room there, or choose another --out",
    "locked": "another process writes to it; end that one, or try again later",
    "readonly": "allow writing to it, or choose another --out",
}
"""What helps, by a part of SQLite's message."""


class StoreError(ValueError):
    """A file is no store or cannot be written, is of another format, or holds results from other data."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read with.

    Raises:
        StoreError: SQLite cannot read the file.
    """
    with _connection(path, f"{path} cannot be read as a store", "choose another --out") as connection:
        yield connection


@contextmanager
def writing(path: Path, attached: Path | None = None) -> Iterator[sqlite3.Connection]:
    """One transaction: all of the block's changes, or none.

    Args:
        path: the file; it is created, with its tables, if there is none.
        attached: another store, called ``other`` in the statements of the block.

    Raises:
        StoreError: SQLite cannot write the file, for example because the disk is full; the file is unchanged then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(path, error) from error
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
    """Whether the file has any table: a writer may have been killed before its first transaction ended."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None


def check(connection: sqlite3.Connection, path: Path) -> None:
    """The file is a store that this code can read, or empty.

    Raises:
        StoreError: it is something else, or of another format.
    """
    if not is_initialised(connection):
        return
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'format'").fetchone() is None:
        raise StoreError(f"{path} is an SQLite file but not a store; choose another --out")
    (version,) = connection.execute("SELECT version FROM format").fetchone() or (None,)
    if not isinstance(version, int):
        raise StoreError(f"{path} is damaged: it is of format {version!r}; restore it from a copy")
    if version != FORMAT:
        cure = "update clreplay" if version > FORMAT else "choose another --out, or use the clreplay that wrote it"
        raise StoreError(f"{path} is of format {version}, this clreplay knows {FORMAT}; {cure}")
    known = _known_schema()
    for kind, name, sql in connection.execute(_OBJECTS):
        if known.get((kind, name)) != _words(sql):  # reading a view or writing a table runs what it says
            raise StoreError(f"{path} has a {kind} {name} that no store has; use a store that clreplay wrote")


_OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_autoindex_%'"


@cache
def _known_schema() -> dict[tuple[str, str], str]:
    """What each table and view of a store is made by."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_SCHEMA)
        return {(kind, name): _words(sql) for kind, name, sql in connection.execute(_OBJECTS)}
    finally:
        connection.close()


def _words(sql: object) -> str:
    return " ".join(str(sql).split())


@contextmanager
def _connection(path: Path, what_fails: str, usual_cure: str) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        connection = _connect(path)
        yield connection
    except (sqlite3.Error, OverflowError, UnicodeError) as error:  # numbers that no column has, texts that are none
        cure = next((cure for part, cure in _CURES.items() if part in str(error)), usual_cure)
        raise StoreError(f"{what_fails} ({error}); {cure}") from error
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    # A connection a call: tasks are handed out from threads of the executor, and a connection is bound to one.
    connection = sqlite3.connect(path, timeout=SECONDS_TO_WAIT, isolation_level=None)
    try:
        # What a file of somebody else's says is not run, and what is damaged is noticed.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
