"""One SQLite file that holds every finished piece of work, keyed by the hash of all that decides its outcome.

Only finished work is there, each piece written in one transaction, so a run may be killed at any moment, and
several processes may write. Condensed images stand in the same file, class by class, as safetensors bytes: what is
copied or merged is one file, and images and the row that describes them cannot come apart. The journal is SQLite's
plain one: no second file is needed once nobody writes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clreplay.benchmark.store_file import FORMAT, StoreError, check, has_table, is_initialised, reading, writing

__all__ = ["FORMAT", "Contents", "Failure", "Finished", "OtherDataError", "Row", "Store", "StoreError", "key_of"]
_UNIT_COLUMNS = 'key, kind, settings, result, seconds, device, "commit", versions, created'


def key_of(settings: Mapping[str, Any]) -> str:
    """Hash of settings: 40 hex digits, the same whatever the order of the entries."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@dataclass(frozen=True)
class Row:
    """One finished unit.

    Attributes:
        key: hash of ``settings``.
        kind: ``set``, ``shard`` or ``network``.
        settings: all that decides the outcome.
        result: what came out, as JSON knows it.
        seconds: of work.
        device, commit, versions: where and with what.
    """

    key: str
    kind: str
    settings: dict[str, Any]
    result: dict[str, Any]
    seconds: float
    device: str
    commit: str
    versions: str


@dataclass(frozen=True)
class Finished:
    """What one piece of work adds to a store, all of it or nothing.

    Attributes:
        dataset, fingerprint: the data that was used, and the hash of it.
        rows: finished units.
        images: of a condensed set, safetensors bytes by class, with the key of the set.
        choice: what was chosen by measurement: key of the settings asked for, kind of device, and the settings chosen.
    """

    dataset: str
    fingerprint: str
    rows: Sequence[Row] = ()
    images: tuple[str, dict[int, bytes]] | None = None
    choice: tuple[str, str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a unit could not be finished, at its last attempt."""

    reason: str
    attempts: int


@dataclass(frozen=True)
class Contents:
    """What a store holds, read at once; images stay in the file.

    Attributes:
        units: finished rows by key.
        choices: by key of the settings asked for: kind of device and chosen settings.
        failures: by key.
    """

    units: dict[str, Row] = field(default_factory=dict)
    choices: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


class OtherDataError(StoreError):
    """The store's results on a data set come from other images."""


class Store:
    """Finished work in one file; made when it is first written to.

    Args:
        path: the file.

    Raises:
        StoreError: there is a file, and it is no store or of a later format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            with reading(self.path) as connection:
                check(connection, self.path)

    def read(self) -> Contents:
        """All that is finished or has failed."""
        contents = Contents()
        if not self.path.exists():
            return contents
        with reading(self.path) as connection:
            if not is_initialised(connection):
                return contents
            for values in connection.execute(f"SELECT {_UNIT_COLUMNS} FROM units"):
                key, kind, settings, result, *rest, _ = values
                contents.units[key] = Row(key, kind, json.loads(settings), json.loads(result), *rest)
            query = "SELECT asked, device, chosen FROM choices ORDER BY asked, device, chosen"
            for asked, device, chosen in connection.execute(query):
                contents.choices.setdefault(asked, []).append((device, json.loads(chosen)))
            for key, reason, attempts in connection.execute("SELECT key, reason, attempts FROM failures"):
                contents.failures[key] = Failure(reason, attempts)
        return contents

    def has(self, keys: Iterable[str]) -> bool:
        """Whether all these units are finished."""
        if not self.path.exists():
            return False
        with reading(self.path) as connection:
            query = "SELECT 1 FROM units WHERE key = ?"
            return is_initialised(connection) and all(connection.execute(query, (key,)).fetchone() for key in keys)

    def fingerprint(self, dataset: str) -> str:
        """Hash of the data behind the results on a data set.

        Raises:
            KeyError: the store has none on it.
        """
        with reading(self.path) as connection:
            query = "SELECT fingerprint FROM datasets WHERE name = ?"
            found = connection.execute(query, (dataset,)).fetchone()
        if found is None:
            raise KeyError(f"{self.path} has no results on {dataset}")
        return found[0]

    def images(self, key: str) -> dict[int, bytes]:
        """Safetensors bytes of a condensed set, by class.

        Raises:
            KeyError: the store has no such set.
        """
        with reading(self.path) as connection:
            query = "SELECT label, data FROM images WHERE key = ? ORDER BY label"
            found = dict(connection.execute(query, (key,)).fetchall())
        if not found:
            raise KeyError(f"{self.path} has no condensed set {key}")
        return found

    def add(self, finished: Finished) -> None:
        """Take in a piece of work; what is there already stays.

        Raises:
            OtherDataError: the store's results for this data set come from other images; nothing is changed then.
            StoreError: the file cannot be written; nothing is changed then.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        with writing(self.path) as connection:
            _same_data(connection, finished.dataset, finished.fingerprint, self.path)
            for row in finished.rows:
                texts = [json.dumps(part, sort_keys=True) for part in (row.settings, row.result)]
                values = (row.key, row.kind, *texts, row.seconds, row.device, row.commit, row.versions, now)
                connection.execute(f"INSERT OR IGNORE INTO units ({_UNIT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", values)
                connection.execute("DELETE FROM failures WHERE key = ?", (row.key,))
            if finished.images is not None:
                key, by_class = finished.images
                rows = [(key, label, data) for label, data in by_class.items()]
                connection.executemany("INSERT OR IGNORE INTO images VALUES (?,?,?)", rows)
            if finished.choice is not None:
                asked, device, chosen = finished.choice
                text = json.dumps(chosen, sort_keys=True)
                connection.execute("INSERT OR IGNORE INTO choices VALUES (?,?,?)", (asked, device, text))
                connection.execute("DELETE FROM failures WHERE key = ?", (asked,))

    def fail(self, kind: str, settings: Mapping[str, Mapping[str, Any]], reason: str, attempts: int) -> None:
        """Note why units could not be finished.

        Args:
            kind: what they are.
            settings: by key.
            reason: one line.
            attempts: of this run; they are added to those before.

        Raises:
            StoreError: the file cannot be written.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        with writing(self.path) as connection:
            for key, values in settings.items():
                connection.execute(
                    "INSERT INTO failures VALUES (?,?,?,?,?,?) ON CONFLICT (key) DO UPDATE SET "
                    "reason = excluded.reason, attempts = attempts + excluded.attempts, created = excluded.created",
                    (key, kind, json.dumps(values, sort_keys=True), reason, attempts, now),
                )

    def describe(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what settings the printed hashes of cells stand for.

        Args:
            settings: by hash.
        """
        with writing(self.path) as connection:
            rows = [(name, json.dumps(values, sort_keys=True)) for name, values in settings.items()]
            connection.executemany("INSERT OR IGNORE INTO cells VALUES (?,?)", rows)

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings behind the hash that a rendered table prints, or behind its beginning.

        Raises:
            StoreError: there is no such hash, or there are several.
        """
        found = []
        if self.path.exists():
            with reading(self.path) as connection:
                if has_table(connection, "cells"):
                    query = "SELECT settings FROM cells WHERE substr(hash, 1, ?) = ?"
                    found = connection.execute(query, (len(name), name)).fetchall()
        if len(found) != 1:
            raise StoreError(
                f"--show must be a hash that a table prints, got {name!r}, which is the beginning of "
                f"{len(found) or 'none'} in {self.path}"
            )
        return json.loads(found[0][0])

    def merge(self, other: str | Path) -> int:
        """Take in all that another store holds; what both hold stays as it is here.

        Returns:
            finished units that are new.

        Raises:
            FileNotFoundError: there is no such file.
            StoreError: it is no store or this one, or its results come from other data; nothing is changed then.
        """
        other = Path(other)
        if not other.is_file():
            raise FileNotFoundError(f"no store at {other}")
        if self.path.exists() and other.samefile(self.path):
            raise StoreError(f"--merge {other} is the store itself; name another one, or choose another --out")
        with reading(other) as connection:
            check(connection, other)
            if not is_initialised(connection):
                return 0
        with writing(self.path, attached=other) as connection:
            for name, fingerprint in connection.execute("SELECT name, fingerprint FROM other.datasets").fetchall():
                _same_data(connection, name, fingerprint, self.path)
            before = connection.execute("SELECT COUNT(*) FROM units").fetchone()[0]
            later = ("cells",) if has_table(connection, "cells", "other") else ()
            for table in ("units", "images", "choices", "failures", *later):
                connection.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
            connection.execute("DELETE FROM failures WHERE key IN (SELECT key FROM units)")
            connection.execute("DELETE FROM failures WHERE key IN (SELECT asked FROM choices)")
            return connection.execute("SELECT COUNT(*) FROM units").fetchone()[0] - before


def _same_data(connection: sqlite3.Connection, name: str, fingerprint: str, path: Path) -> None:
    connection.execute("INSERT OR IGNORE INTO main.datasets VALUES (?, ?)", (name, fingerprint))
    (held,) = connection.execute("SELECT fingerprint FROM main.datasets WHERE name = ?", (name,)).fetchone()
    if held != fingerprint:
        raise OtherDataError(
            f"{path} holds results on {name} with the fingerprint {held}, but these images have {fingerprint}; "
            "give the same data, or another --out"
        )
