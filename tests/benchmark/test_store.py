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
from store_rows import condensed, network

from clreplay.benchmark import store_file as connections
from clreplay.benchmark.rows import Contents, Failure, Finished, Origin, SetRow, key_of
from clreplay.benchmark.store import Store, StoreError
from clreplay.benchmark.store_file import FORMAT

TABLES = ("datasets", "settings", "sets", "images", "networks", "choices", "failures")


def piece(*names, images=None, choice=None, fingerprint="f", accuracy=1.0, classes=2):
    return Finished(
        "digits", fingerprint, classes, [network(name, accuracy=accuracy) for name in names], images, choice
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "deep" / "store.sqlite")


def everything(store):
    with sqlite3.connect(store.path) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in TABLES}


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
    images = condensed("set", {0: b"zero", 1: b"one"}, execution={"kernels": "eager"})
    store.add(piece("a", "b", images=images, choice=("open", "cpu", {"kernels": "eager"})))
    contents = store.read()
    assert contents.networks == {name: network(name) for name in "ab"}
    assert contents.choices == {("open", "cpu"): {"kernels": "eager"}}
    assert store.images("set") == {0: b"zero", 1: b"one"} and store.labels("set") == {0, 1}
    row = SetRow("set", "settings", "digits", 2, 7, 4, 8, 3.0, ("cpu",), ("abc",), ({"kernels": "eager"},))
    assert contents.sets == {"set": row}
    assert store.has(["a", "b", "set", "open"]) and not store.has(["a", "missing"])
    with pytest.raises(KeyError, match="no condensed set other"):
        store.images("other")


def test_an_accuracy_on_held_out_images_comes_back_where_there_is_one(store):
    rows = [network("a", held_out=2.5, draw=(0, 1)), network("b")]
    store.add(Finished("digits", "f", 2, rows))
    assert store.read().networks == {row.key: row for row in rows}


def test_a_set_is_finished_when_all_classes_are_there_wherever_they_come_from(store):
    here, there = Origin(2.0, "cpu", "abc", "torch"), Origin(3.0, "gpu, fast", "def", "torch")
    first = condensed("set", {0: b"0", 1: b"1"}, execution={"kernels": "native"}, origin=here)
    store.add(piece(images=first, classes=3))
    assert store.read().sets == {} and not store.has(["set"]) and store.labels("set") == {0, 1}
    store.add(piece(images=condensed("set", {1: b"another", 2: b"2"}, execution={}, origin=there), classes=3))
    (row,) = store.read().sets.values()
    assert store.has(["set"]) and store.images("set") == {0: b"0", 1: b"1", 2: b"2"}  # what is there stays
    assert (row.devices, row.commits) == (("cpu", "gpu, fast"), ("abc", "def"))
    assert row.executions == ({"kernels": "native"}, {}) and row.seconds == pytest.approx(2.0 + 1.5)


def test_networks_that_differ_in_their_draw_only_stand_together(store):
    rows = [network(f"{a}{b}", draw=(a, b), condensed_set=f"set{a}") for a, b in ((1, 0), (0, 1), (0, 0))]
    sets = [condensed(f"set{number}", {0: b"0"}, seed=number) for number in (0, 1)]
    others = [
        network("w", condensed_set=None, store=None),
        network("u", condensed_set="set0", store="uint8"),
        network("lost", condensed_set="not there"),
    ]
    for images in sets:
        store.add(Finished("digits", "f", 1, [], images))
    store.add(Finished("digits", "f", 1, [*rows, *others]))
    found = {key: [row.key for row in rows] for key, rows in store.read().alike.items()}
    assert found == {
        ("digits", "settings", "training", "float32", 0): ["00", "01", "10"],
        ("digits", "settings", "training", "uint8", 0): ["u"],
        ("digits", None, "training", None, 0): ["w"],
    }


def test_what_is_there_stays(store):
    store.add(piece("a", images=condensed("set", {0: b"first"})))
    store.add(piece("a", images=condensed("set", {0: b"second"}), accuracy=9.0))
    assert store.read().networks["a"].accuracy == 1.0
    assert store.images("set") == {0: b"first"}


def test_failures_are_counted_and_forgotten_once_it_works(store):
    store.fail("network", {"a": {}, "open": {}, "set": {}}, "RuntimeError: first", 2)
    store.fail("network", {"a": {}, "open": {}, "set": {}}, "RuntimeError: second", 1)
    failure = Failure("RuntimeError: second", 3)
    assert store.read().failures == {"a": failure, "open": failure, "set": failure}
    store.add(piece("a", images=condensed("set", {0: b"0"})))  # one of two classes
    assert store.read().failures == {"open": failure, "set": failure}
    store.add(piece(choice=("open", "cpu", {}), images=condensed("set", {1: b"1"})))
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
    with sqlite3.connect(later) as connection:
        connection.execute("UPDATE format SET version = 1")
    with pytest.raises(StoreError, match=f"is of format 1, this clreplay knows {FORMAT}; choose another --out"):
        Store(later)


def test_an_empty_file_is_an_empty_store(tmp_path):
    (tmp_path / "store").touch()
    store = Store(tmp_path / "store")
    assert store.read() == Contents() and not store.has(["a"])
    store.add(piece("a"))
    assert store.has(["a"])


# ---------------------------------------------------------------- merging


def test_merging_takes_in_everything_once(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")
    store.add(piece("a", "b", images=condensed("s1", {0: b"1"}), choice=("open", "cpu", {"layout": "contiguous"})))
    store.describe({"settings": {"a": 1}})
    images = condensed("s2", {0: b"2", 1: b"2"})
    other.add(piece("b", "c", images=images, choice=("open", "cpu", {"layout": "channels_last"}), accuracy=5.0))
    other.add(piece(images=condensed("s1", {0: b"theirs", 1: b"1"})))
    other.fail("network", {"a": {}, "d": {}}, "MemoryError: no room", 2)
    other.describe({"settings": {"a": 2}, "more": {"b": 1}})
    assert store.merge(other.path) == 3  # network c, set s2, and s1 that both began
    contents = store.read()
    assert set(contents.networks) == set("abc") and contents.networks["b"].accuracy == 1.0
    assert set(contents.sets) == {"s1", "s2"} and store.images("s1") == {0: b"1", 1: b"1"}
    assert contents.choices == {("open", "cpu"): {"layout": "contiguous"}}
    assert set(contents.failures) == {"d"}  # a failed there, but is finished here
    assert store.settings_of("settings") == {"a": 1} and store.settings_of("more") == {"b": 1}
    before = everything(store)
    assert store.merge(other.path) == 0 and everything(store) == before
    assert set(other.read().networks) == set("bc")  # the other one is as it was


def test_merging_into_nothing_copies_and_the_order_of_merging_does_not_matter(tmp_path):
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    first.add(piece("a", choice=("open", "cuda", {"kernels": "compiled"})))
    second.add(piece("b", choice=("open", "cpu", {"kernels": "native"})))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for path in (first.path, second.path):
        one.merge(path)
    for path in (second.path, first.path):
        two.merge(path)
    assert one.read() == two.read() and len(one.read().networks) == 2


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


ENDLESS = (
    "CREATE VIEW failures AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT x, '', '', '', 1, '' FROM n"
)


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["DROP TABLE failures", ENDLESS], "has a view failures that no store has"),
        (
            ["CREATE TRIGGER t AFTER INSERT ON networks BEGIN DELETE FROM sets; END"],
            "has a trigger t that no store has",
        ),
        (["CREATE TABLE more (x)"], "has a table more that no store has"),
        (["DROP VIEW finished_sets", "CREATE VIEW finished_sets AS SELECT * FROM sets"], "has a view finished_sets"),
    ],
    ids="view trigger table another".split(),
)
def test_what_a_foreign_file_says_is_not_run(statements, message, store, tmp_path):
    store.add(piece("a"))
    before = everything(store)
    other = Store(tmp_path / "other")
    other.add(piece("b"))
    with sqlite3.connect(other.path) as connection:
        for statement in statements:
            connection.execute(statement)
    with pytest.raises(StoreError, match=f"other {message}"):
        store.merge(other.path)
    with pytest.raises(StoreError, match=message):
        Store(other.path)
    assert everything(store) == before


def test_a_result_that_was_changed_is_told_by_its_checksum(store):
    store.add(piece("a"))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE networks SET accuracy = accuracy + 50")
    with pytest.raises(StoreError, match="is damaged: network .* does not match its checksum; restore the file"):
        store.read()
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM networks")  # as the message says
    store.add(piece("a"))
    assert store.read().networks


def test_stores_of_before_checksums_are_read_and_merged(store, tmp_path):
    other = Store(tmp_path / "other")
    other.add(piece("a"))
    with sqlite3.connect(other.path) as connection:
        connection.execute("DROP TABLE checksums")
    assert other.read().networks
    store.add(piece("b"))
    assert store.merge(other.path) and set(store.read().networks) >= set(other.read().networks)
    third = Store(tmp_path / "third")
    third.merge(store.path)
    assert third.read().networks == store.read().networks


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


@pytest.fixture
def full_disk(store, monkeypatch):
    """Room for what the store holds and no more."""
    store.add(piece("a", images=condensed("s1", {0: b"1"})))
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
        store.add(piece("b", images=condensed("s2", large)))
    assert "\n" not in str(told.value) and isinstance(told.value.__cause__, sqlite3.Error)
    assert everything(store) == before
    store.add(piece("c"))  # what fits still goes in
    assert store.has(["c"])


def test_a_merge_that_fills_the_disk_leaves_the_store_as_it_was(store, full_disk, tmp_path):
    before = everything(store)
    with sqlite3.connect(tmp_path / "other") as connection:
        for statement in connections._SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO format VALUES (?)", (FORMAT,))
        connection.execute("INSERT INTO images VALUES ('s', 0, 1, 1, '', '', 0, '', '', '', '', ?)", (bytes(500_000),))
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
    from store_rows import condensed, network

    from clreplay.benchmark.rows import Finished
    from clreplay.benchmark.store import Store

    path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for number in range(count):
        data = {label: bytes([number % 256]) * 20_000 for label in range(10)}
        set_key = f"set {who} {number}"
        rows = [network("shared"), network(f"{who} {number}", condensed_set=set_key)]
        Store(path).add(Finished("digits", "f", 10, rows, condensed(set_key, data)))
        print(number, flush=True)
"""


def writer(path, who, count):
    code = textwrap.dedent(WRITER)
    command = [sys.executable, "-c", code, str(path), who, str(count)]
    paths = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}  # of the helper module
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths)


def test_several_processes_write_at_once(store):
    writers = [writer(store.path, str(who), 25) for who in range(4)]
    assert [process.communicate(timeout=120) and process.returncode for process in writers] == [0] * 4
    contents = store.read()
    assert (len(contents.sets), len(contents.networks)) == (4 * 25, 4 * 25 + 1)
    assert all(len(store.images(key)) == 10 for key in contents.sets)


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
        contents = Store(store.path).read()
        sets = contents.sets
        assert len(sets) >= told  # what was said to be there is there
        assert {row.condensed_set for row in contents.networks.values()} == {*sets, "set"}
        for key in sets:
            blobs = store.images(key)
            assert len(blobs) == 10 and {len(blob) for blob in blobs.values()} == {20_000}
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for table in ("images", "networks"):
            column = {"images": "key", "networks": "condensed_set"}[table]
            query = f"SELECT COUNT(*) FROM {table} WHERE {column} NOT IN (SELECT key FROM sets) AND {column} != 'set'"
            assert connection.execute(query).fetchone() == (0,)
