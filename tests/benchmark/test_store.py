"""The store of finished work: whole pieces only, whoever writes, whenever somebody dies."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from clreplay.benchmark import store_file as connections
from clreplay.benchmark.store import FORMAT, Contents, Failure, Finished, Row, Store, StoreError, key_of


def row(name, kind="network", value=1.0):
    settings = {"name": name, "kind": kind}
    return Row(key_of(settings), kind, settings, {"accuracy": value}, 2.5, "cpu", "abc", "torch")


def piece(*names, images=None, choice=None, fingerprint="f", value=1.0):
    return Finished("digits", fingerprint, [row(name, value=value) for name in names], images, choice)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "deep" / "store.sqlite")


def everything(store):
    with sqlite3.connect(store.path) as connection:
        tables = ("units", "images", "choices", "failures", "datasets")
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}


# ---------------------------------------------------------------- what goes in comes out


def test_a_key_is_the_same_whatever_the_order_and_another_for_other_values():
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    keys = [key_of(s) for s in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": [1]}, {"a": True})]
    assert len(set(keys)) == len(keys) and all(len(key) == 40 for key in keys)
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of({"a": float("nan")})


def test_an_empty_store_reads_as_nothing_and_is_not_made_by_looking(store):
    assert store.read() == Contents() and not store.has(["x"])
    assert not store.path.exists() and not store.path.parent.exists()


def test_rows_images_and_choices_come_back(store):
    store.add(piece("a", "b", images=("set", {0: b"zero", 1: b"one"}), choice=("asked", "cpu", {"kernels": "eager"})))
    contents = store.read()
    assert contents.units == {row(name).key: row(name) for name in "ab"}
    assert contents.choices == {"asked": [("cpu", {"kernels": "eager"})]}
    assert store.images("set") == {0: b"zero", 1: b"one"}
    assert store.has([row("a").key, row("b").key]) and not store.has([row("a").key, "missing"])
    with pytest.raises(KeyError, match="no condensed set other"):
        store.images("other")


def test_what_is_there_stays(store):
    store.add(piece("a", images=("set", {0: b"first"})))
    store.add(piece("a", images=("set", {0: b"second"}), value=9.0))
    assert store.read().units[row("a").key].result == {"accuracy": 1.0}
    assert store.images("set") == {0: b"first"}


def test_failures_are_counted_and_forgotten_once_it_works(store):
    settings = {row("a").key: row("a").settings, "asked": {}}
    store.fail("network", settings, "RuntimeError: first", 2)
    store.fail("network", settings, "RuntimeError: second", 1)
    failure = Failure("RuntimeError: second", 3)
    assert store.read().failures == {row("a").key: failure, "asked": failure}
    store.add(piece("a"))
    assert store.read().failures == {"asked": failure}
    store.add(piece(choice=("asked", "cpu", {})))
    assert store.read().failures == {}


def test_other_data_under_the_same_name_is_refused_and_nothing_is_changed(store):
    store.add(piece("a"))
    before = everything(store)
    with pytest.raises(StoreError, match="results on digits with the fingerprint f, but these images have g"):
        store.add(piece("b", fingerprint="g"))
    assert everything(store) == before


def test_what_is_no_store_is_refused(tmp_path):
    text, other, later = (tmp_path / name for name in ("text", "other", "later"))
    text.write_text("this is no data base, but a text of some length " * 20)
    with pytest.raises(StoreError, match="cannot be read as a store"):
        Store(text)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(StoreError, match="an SQLite file but not a store"):
        Store(other)
    Store(later).add(piece("a"))
    with sqlite3.connect(later) as connection:
        connection.execute("UPDATE format SET version = version + 1")
    with pytest.raises(StoreError, match=f"is of format {FORMAT + 1}, this clreplay knows {FORMAT}; update"):
        Store(later)


def test_an_empty_file_is_an_empty_store(tmp_path):
    (tmp_path / "store").touch()
    store = Store(tmp_path / "store")
    assert store.read() == Contents() and not store.has(["a"])
    store.add(piece("a"))
    assert store.has([row("a").key])


# ---------------------------------------------------------------- merging


def test_merging_takes_in_everything_once(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")
    store.add(piece("a", "b", images=("s1", {0: b"1"}), choice=("asked", "cpu", {"layout": "contiguous"})))
    other.add(
        piece("b", "c", images=("s2", {0: b"2"}), choice=("asked", "cpu", {"layout": "channels_last"}), value=5.0)
    )
    other.fail("network", {row("a").key: {}, row("d").key: {}}, "MemoryError: no room", 2)
    assert store.merge(other.path) == 1
    contents = store.read()
    assert set(contents.units) == {row(name).key for name in "abc"}
    assert contents.units[row("b").key].result == {"accuracy": 1.0}
    assert store.images("s2") == {0: b"2"}
    assert [chosen["layout"] for _, chosen in contents.choices["asked"]] == ["channels_last", "contiguous"]
    assert set(contents.failures) == {row("d").key}  # a failed there, but is finished here
    before = everything(store)
    assert store.merge(other.path) == 0 and everything(store) == before
    assert set(other.read().units) == {row(name).key for name in "bc"}  # the other one is as it was


def test_merging_into_nothing_copies_and_the_order_of_merging_does_not_matter(tmp_path):
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    first.add(piece("a", choice=("asked", "cuda", {"kernels": "compiled"})))
    second.add(piece("b", choice=("asked", "cpu", {"kernels": "native"})))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for path in (first.path, second.path):
        one.merge(path)
    for path in (second.path, first.path):
        two.merge(path)
    assert one.read() == two.read() and len(one.read().units) == 2


def test_merging_what_does_not_fit_changes_nothing(store, tmp_path):
    store.add(piece("a"))
    before = everything(store)
    other = Store(tmp_path / "other")
    other.add(piece("b", fingerprint="other data"))
    with pytest.raises(StoreError, match="fingerprint"):
        store.merge(other.path)
    with pytest.raises(FileNotFoundError, match="no store at"):
        store.merge(tmp_path / "nowhere")
    assert everything(store) == before and not (tmp_path / "nowhere").exists()


def test_merging_an_empty_file_brings_nothing_and_makes_nothing(store, tmp_path):
    (tmp_path / "empty").touch()
    assert store.merge(tmp_path / "empty") == 0 and not store.path.exists()
    store.add(piece("a"))
    before = everything(store)
    assert store.merge(tmp_path / "empty") == 0 and everything(store) == before


def test_a_store_is_not_merged_into_itself_whatever_it_is_called(store, tmp_path):
    store.add(piece("a"))
    (tmp_path / "link").symlink_to(store.path)
    for name in (store.path, tmp_path / "link"):
        begun = time.monotonic()
        with pytest.raises(StoreError, match=f"--merge {name} is the store itself; name another"):
            store.merge(name)
        assert time.monotonic() - begun < 5  # not after waiting for the lock that it holds


def test_merging_a_store_with_a_part_missing_is_told_and_changes_nothing(store, tmp_path):
    store.add(piece("a"))
    before = everything(store)
    other = Store(tmp_path / "other")
    other.add(piece("b"))
    with sqlite3.connect(other.path) as connection:
        connection.execute("DROP TABLE choices")
    with pytest.raises(StoreError, match="other cannot be merged into .*no such table: other.choices.*leave it out"):
        store.merge(other.path)
    assert everything(store) == before


# ---------------------------------------------------------------- a file that cannot be written


def test_the_settings_behind_a_printed_hash_are_kept_and_merged(store, tmp_path):
    store.describe({"abc123": {"lr": 0.1}, "abd456": {"lr": 0.2}})
    store.describe({"abc123": {"lr": 0.3}})  # what is there stays
    assert store.settings_of("abc123") == store.settings_of("abc") == {"lr": 0.1}
    other = Store(tmp_path / "other")
    other.merge(store.path)
    assert other.settings_of("abd") == {"lr": 0.2}
    for name, count in (("ab", "2"), ("xyz", "none")):
        with pytest.raises(StoreError, match=f"got '{name}', which is the beginning of {count} in"):
            store.settings_of(name)
    with pytest.raises(StoreError, match="beginning of none"):
        Store(tmp_path / "nowhere").settings_of("abc")


def test_a_store_without_the_table_of_settings_is_read_and_merged(store, tmp_path):
    store.add(piece("a"))
    with sqlite3.connect(store.path) as connection:
        connection.execute("DROP TABLE cells")
    with pytest.raises(StoreError, match="beginning of none"):
        store.settings_of("abc")
    other = Store(tmp_path / "other")
    assert other.merge(store.path) == 1


@pytest.fixture
def full_disk(store, monkeypatch):
    """Room for what the store holds and no more."""
    store.add(piece("a", images=("s1", {0: b"1"})))
    with sqlite3.connect(store.path) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connect = connections._connect

    def limited(path):
        connection = connect(path)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(connections, "_connect", limited)


def test_a_full_disk_is_told_in_a_line_and_leaves_the_store_as_it_was(store, full_disk):
    before = everything(store)
    large = {label: bytes(50_000) for label in range(10)}
    with pytest.raises(StoreError, match=r"store.sqlite cannot be written \(.*disk is full\); make room there") as told:
        store.add(piece("b", images=("s2", large)))
    assert "\n" not in str(told.value) and isinstance(told.value.__cause__, sqlite3.Error)
    assert everything(store) == before
    store.add(piece("c"))  # what fits still goes in
    assert store.has([row("c").key])


def test_a_merge_that_fills_the_disk_leaves_the_store_as_it_was(store, full_disk, tmp_path):
    before = everything(store)
    with sqlite3.connect(tmp_path / "other") as connection:
        for statement in connections._SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO format VALUES (?)", (FORMAT,))
        connection.execute("INSERT INTO images VALUES ('s2', 0, ?)", (bytes(500_000),))
    with pytest.raises(StoreError, match=r"other cannot be merged into .*\(.*disk is full\); make room there"):
        store.merge(tmp_path / "other")
    assert everything(store) == before


def test_a_store_that_another_one_holds_is_told_after_a_while(store, monkeypatch):
    store.add(piece("a"))
    monkeypatch.setattr(connections, "SECONDS_TO_WAIT", 0.1)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"cannot be written \(database is locked\); another process writes to it"):
        store.fail("network", {"b": {}}, "why", 1)
    holder.close()
    assert store.read().failures == {}


def test_a_folder_in_place_of_the_store_is_told(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be read as a store \(unable to open.*choose another --out"):
        Store(tmp_path)


# ---------------------------------------------------------------- several writers, and sudden death

WRITER = """
    import sys
    from clreplay.benchmark.store import Finished, Row, Store, key_of

    path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = Store(path)
    for number in range(count):
        settings = {"writer": who, "number": number}
        key = key_of(settings)
        shared = Row("shared", "network", {}, {"accuracy": 1.0}, 1.0, "cpu", "abc", "torch")
        mine = Row(key, "set", settings, {}, 1.0, "cpu", "abc", "torch")
        images = {label: bytes([number % 256]) * 20_000 for label in range(10)}
        store.add(Finished("digits", "f", [mine, shared], (key, images)))
        print(number, flush=True)
"""


def writer(path, who, count):
    code = textwrap.dedent(WRITER)
    return subprocess.Popen([sys.executable, "-c", code, str(path), who, str(count)], stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(store):
    writers = [writer(store.path, str(who), 25) for who in range(4)]
    assert [process.communicate(timeout=120) and process.returncode for process in writers] == [0] * 4
    units = store.read().units
    assert len(units) == 4 * 25 + 1
    assert all(len(store.images(key)) == 10 for key, one in units.items() if one.kind == "set")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_writer_killed_at_any_moment_leaves_whole_pieces_only(store):
    chance = random.Random(0)
    told = 0
    for attempt in range(4):
        process = writer(store.path, str(attempt), 100_000)
        for _ in range(chance.randint(1, 20)):
            told += bool(process.stdout.readline())
        time.sleep(0.01 * chance.random())
        os.kill(process.pid, signal.SIGKILL)
        told += len(process.stdout.read().splitlines())
        process.wait()
        units = Store(store.path).read().units
        sets = [key for key, one in units.items() if one.kind == "set"]
        assert len(sets) >= told  # what was said to be there is there
        for key in sets:
            blobs = store.images(key)
            assert len(blobs) == 10 and {len(blob) for blob in blobs.values()} == {20_000}
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        orphans = "SELECT COUNT(*) FROM images WHERE key NOT IN (SELECT key FROM units)"
        assert connection.execute(orphans).fetchone() == (0,)
