"""One SQLite file that holds all finished work, each piece under the hash of the settings that decide its outcome.

Only finished work is stored, each piece written in one transaction, so a run may be killed at any moment, and several
processes may write. Condensed images are in the same file, one row a class, as safetensors bytes; a set is finished
when all classes of its data are there, whoever condensed which of them. To copy or merge results is to copy or merge
one file: SQLite's default journal leaves no second file once nobody writes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from clreplay.benchmark.rows import Contents, Failure, Finished, FinishedImages, NetworkRow, Origin, SetRow
from clreplay.benchmark.store_file import StoreError, check, is_initialised, reading, writing


class OtherDataError(StoreError):
    """The store's results on a data set come from other images."""


_SETS = """
    SELECT s.key, s.condensed, s.dataset, s.images_per_class, s.seed, SUM(i.stored), SUM(i.decoded), SUM(i.seconds),
        json_group_array(DISTINCT i.device), json_group_array(DISTINCT i."commit"),
        json_group_array(DISTINCT i.execution)
    FROM finished_sets s JOIN images i ON i.key = s.key GROUP BY s.key"""
_NETWORKS = """
    SELECT key, dataset, condensed_set, training, store, seed, set_number, network_number, accuracy, held_out, diverged,
        images, seconds, device, "commit", versions FROM networks"""
_FINISHED = "SELECT key FROM networks UNION ALL SELECT key FROM finished_sets UNION ALL SELECT execution FROM choices"


class Store:
    """Finished work in one file, which is created by the first writing.

    Args:
        path: the file.

    Raises:
        StoreError: there is a file, and it is no store or of another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            with reading(self.path) as connection:
                check(connection, self.path)

    def read(self) -> Contents:
        """All that is finished or has failed.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            return self._read()
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.path} is damaged ({error}); restore it from a copy") from error

    def _read(self) -> Contents:
        contents, checksums = Contents(), dict(self._checksums())
        for found in self._select(_SETS):
            devices, commits, executions = (sorted(json.loads(texts)) for texts in found[8:])
            values: list[Any] = [*found[:8], tuple(devices), tuple(commits), tuple(map(json.loads, executions))]
            contents.sets[found[0]] = SetRow(*values)
        for row in self._select(_NETWORKS):
            if (known := checksums.get(row[0])) is not None and known != _checksum(row):
                raise StoreError(
                    f"{self.path} is damaged: network {row[0]} does not match its checksum; restore the file from a "
                    "copy, or have the network measured again: delete its row from the table networks"
                )
            checksums.pop(row[0], None)
            set_number, number, accuracy, held_out, diverged, images = row[6:12]
            values = [*row[:6], (set_number, number), accuracy, held_out, bool(diverged), images, Origin(*row[12:])]
            contents.networks[row[0]] = NetworkRow(*values)
        for execution, device, chosen in self._select("SELECT * FROM choices"):
            contents.choices[execution, device] = json.loads(chosen)
        for key, reason, attempts in self._select("SELECT key, reason, attempts FROM failures"):
            contents.failures[key] = Failure(reason, attempts)
        return contents

    def has(self, keys: Iterable[str]) -> bool:
        """Whether all these networks, sets or choices are finished."""
        query = f"SELECT EXISTS (SELECT 1 FROM ({_FINISHED}) WHERE key = ?)"
        return all((1,) in self._select(query, key) for key in keys)

    def labels(self, key: str) -> set[int]:
        """The finished classes of a condensed set."""
        return {label for (label,) in self._select("SELECT label FROM images WHERE key = ?", key)}

    def images(self, key: str) -> dict[int, bytes]:
        """Safetensors bytes of a condensed set, by class.

        Raises:
            KeyError: the store has no such set.
        """
        found = dict(self._select("SELECT label, data FROM images WHERE key = ? ORDER BY label", key))
        if not found:
            raise KeyError(f"{self.path} has no condensed set {key}")
        return found

    def add(self, finished: Finished) -> None:
        """Add a piece of work; what is there already stays.

        Raises:
            OtherDataError: the store's results for this data set come from other images; nothing is changed then.
            StoreError: the file cannot be written; nothing is changed then.
        """
        now = _now()
        with writing(self.path) as connection:
            _check_data(connection, (finished.dataset, finished.fingerprint, finished.classes), self.path)
            for row in finished.networks:
                _insert_network(connection, row, now)
            if finished.images is not None:
                _insert_images(connection, finished.dataset, finished.images, now)
            if finished.choice is not None:
                *of, chosen = finished.choice
                _insert(connection, "choices", *of, _json(chosen))
            _insert_settings(connection, finished.settings)
            connection.execute(f"DELETE FROM failures WHERE key IN ({_FINISHED})")

    def fail(self, kind: str, settings: Mapping[str, Mapping[str, Any]], reason: str, attempts: int) -> None:
        """Note why units could not be finished.

        Args:
            kind: of the units.
            settings: by key.
            reason: one line.
            attempts: of this run; they are added to those before.

        Raises:
            StoreError: the file cannot be written.
        """
        with writing(self.path) as connection:
            for key, values in settings.items():
                connection.execute(
                    "INSERT INTO failures VALUES (?,?,?,?,?,?) ON CONFLICT (key) DO UPDATE SET "
                    "reason = excluded.reason, attempts = attempts + excluded.attempts, created = excluded.created",
                    (key, kind, _json(values), reason, attempts, _now()),
                )

    def describe(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the settings behind hashes.

        Args:
            settings: by hash.
        """
        with writing(self.path) as connection:
            _insert_settings(connection, settings)

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings behind a hash that a rendered table prints, or behind the beginning of one.

        Raises:
            StoreError: there is no such hash, or there are several.
        """
        found = self._select("SELECT settings FROM settings WHERE substr(hash, 1, ?) = ?", len(name), name)
        if len(found) != 1:
            raise StoreError(
                f"--show must be a hash that a table prints, got {name!r}, which is the beginning of "
                f"{len(found) or 'none'} in {self.path}"
            )
        settings: dict[str, Any] = json.loads(found[0][0])
        return settings

    def merge(self, other: str | Path) -> int:
        """Add all that another store holds; what both hold stays as it is here.

        Sets that both began are finished together. They agree to the rounding that the machines' ways of computing
        leave, and the way of each class is recorded beside it.

        Returns:
            number of finished networks and sets that are new.

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
            _check_whole(connection, other)
            if not is_initialised(connection):
                return 0
        count = "SELECT (SELECT COUNT(*) FROM networks) + (SELECT COUNT(*) FROM finished_sets)"
        with writing(self.path, attached=other) as connection:
            for dataset in connection.execute("SELECT name, fingerprint, classes FROM other.datasets").fetchall():
                _check_data(connection, dataset, self.path)
            before: int = connection.execute(count).fetchone()[0]
            if connection.execute(_HAS_CHECKSUMS.format("other.")).fetchone():
                connection.execute(
                    "INSERT OR IGNORE INTO main.checksums SELECT * FROM other.checksums "
                    "WHERE key NOT IN (SELECT key FROM main.networks)"
                )
            for table in ("settings", "sets", "images", "networks", "choices", "failures"):
                connection.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
            connection.execute(f"DELETE FROM failures WHERE key IN ({_FINISHED})")
            after: int = connection.execute(count).fetchone()[0]
            return after - before

    def _checksums(self) -> list[tuple[str, str]]:
        """Of networks, by key; stores of before have none."""
        if not self._select(_HAS_CHECKSUMS.format("")):
            return []
        return self._select("SELECT key, checksum FROM checksums WHERE kind = 'network'")

    def _select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query; none where there is no store yet."""
        if not self.path.exists():
            return []
        with reading(self.path) as connection:
            return connection.execute(query, values).fetchall() if is_initialised(connection) else []


_HAS_CHECKSUMS = "SELECT 1 FROM {}sqlite_master WHERE type = 'table' AND name = 'checksums'"


def _checksum(row: Sequence[Any]) -> str:
    """Of a network's row, as :data:`_NETWORKS` selects it."""
    return hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16).hexdigest()


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite finds no damage in the file.

    Raises:
        StoreError: it does.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StoreError(
            f"{path} is damaged ({' '.join(str(found).split())}); take a whole copy of it, or leave it out"
        )


def _json(values: Any) -> str:
    return json.dumps(values, sort_keys=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _insert(connection: sqlite3.Connection, table: str, *values: Any) -> None:
    """One row, unless there is one under its key."""
    connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(values))})", values)


def _insert_network(connection: sqlite3.Connection, row: NetworkRow, now: str) -> None:
    what = (row.key, row.dataset, row.condensed_set, row.training, row.store, row.seed, *row.draw)
    result = (row.accuracy, row.held_out, row.diverged, row.images)
    added = connection.execute(
        f"INSERT OR IGNORE INTO networks VALUES ({','.join('?' * 17)})", (*what, *result, *astuple(row.origin), now)
    )
    if added.rowcount:
        written = connection.execute(f"{_NETWORKS} WHERE key = ?", (row.key,)).fetchone()
        connection.execute("INSERT OR REPLACE INTO checksums VALUES ('network', ?, ?)", (row.key, _checksum(written)))


def _insert_images(connection: sqlite3.Connection, dataset: str, part: FinishedImages, now: str) -> None:
    _insert(connection, "sets", part.key, part.condensed, dataset, part.images_per_class, part.seed)
    origin = replace(part.origin, seconds=part.origin.seconds / max(1, len(part.data)))
    how = (_json(part.execution), _json(part.last_record), *astuple(origin), now)
    for label, data in part.data.items():
        _insert(connection, "images", part.key, label, part.stored[label], part.decoded[label], *how, data)


def _insert_settings(connection: sqlite3.Connection, settings: Mapping[str, Mapping[str, Any]]) -> None:
    for name, values in settings.items():
        _insert(connection, "settings", name, _json(values))


def _check_data(connection: sqlite3.Connection, dataset: tuple[str, str, int], path: Path) -> None:
    """A data set is noted, or is the one that was noted under its name.

    Raises:
        OtherDataError: it is another one.
    """
    _insert(connection, "main.datasets", *dataset)
    name, fingerprint, _ = dataset
    (known,) = connection.execute("SELECT fingerprint FROM main.datasets WHERE name = ?", (name,)).fetchone()
    if known != fingerprint:
        raise OtherDataError(
            f"{path} holds results on {name} with the fingerprint {known}, but these images have {fingerprint}; "
            "give the same data, or another --out"
        )
