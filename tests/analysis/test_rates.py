"""Accuracy over bytes and updates: who is on the frontier, and what the pictures show."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clreplay.analysis.rates import best_within, frontier, published_byte_fair, rate_figures, summary

POINT = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))


def found_of(points):
    rows = [
        {"memory": f"m{i}", "kept": "uint8", "budget_bytes": b, "bytes": b, "updates": u, "accuracy": float(a)}
        for i, (b, u, a) in enumerate(points)
    ]
    return pd.DataFrame(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=8))
def test_on_the_frontier_is_what_nothing_cheaper_beats(points):
    said = frontier(found_of(points)).tolist()
    for one, on in zip(points, said):
        beaten = False
        for other in points:
            no_dearer = other[0] <= one[0] and other[1] <= one[1]
            no_worse, differs = other[2] >= one[2], other != one
            beaten = beaten or (no_dearer and no_worse and differs)
        assert on == (not beaten)


@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=8))
def test_the_best_within_a_budget_needs_no_more_and_is_no_worse_than_any(points):
    for row in best_within(found_of(points)).itertuples():
        within = [a for b, u, a in points if b <= row.at_most_bytes and u <= row.at_most_updates]
        assert row.accuracy == max(within)
        assert row.bytes <= row.at_most_bytes and row.updates <= row.at_most_updates


ROWS = pd.DataFrame(
    [
        {
            "dataset": "cifar100", "memory": memory, "kept": kept, "budget_bytes": budget, "bytes": budget - 10,
            "images": 5, "images_trained_on": 20, "updates": updates, "draw": draw, "train_seconds": 10.0 + draw,
            "condense_seconds": 50.0 if updates == 100 else 0.1, "accuracy": base + updates / 100 + draw,
        }
        for memory, kept, base in (("random", "avif", 10), ("dm", "uint8:16px", 15))
        for budget in (300_000, 6_000_000)
        for updates in (100, 1000)
        for draw in range(3)
    ]
)  # fmt: skip


def test_a_summary_says_mean_spread_and_what_making_the_memory_took():
    found = summary(ROWS)
    assert len(found) == 8 and set(found.networks) == {3} and set(found["std"]) == {1.0}
    one = found[(found.memory == "random") & (found.budget_bytes == 300_000) & (found.updates == 1000)].iloc[0]
    assert (one.accuracy, one.train_seconds, one.bytes) == (21.0, 11.0, 299_990)
    # Where the shorter training made it, the longer one found it in the cache.
    assert set(found.condense_seconds) == {50.0}


def test_both_pictures_are_drawn_with_what_was_measured_and_published(tmp_path):
    over_bytes, over_updates = rate_figures(ROWS, tmp_path / "new", "a note")
    for name in ("bytes.png", "updates.png"):
        assert Image.open(tmp_path / "new" / name).size[0] > 1000
    texts = {text.get_text() for figure in (over_bytes, over_updates) for text in figure.axes[0].get_legend().texts}
    assert {"random, avif", "dm, uint8:16px", "published, at their own settings", "dm, uint8:16px, 6.00 MB"} <= texts
    assert [label.get_text() for label in over_bytes.axes[0].get_xticklabels()] == ["300 kB", "6.00 MB"]
    assert [label.get_text() for label in over_updates.axes[0].get_xticklabels()] == ["100", "1,000"]
    hollow = [line for line in over_bytes.axes[0].lines if str(line.get_label()).startswith("published")]
    assert list(hollow[0].get_ydata()) == published_byte_fair("cifar100").accuracy.tolist()
    again = tmp_path / "again"
    rate_figures(ROWS, again, "a note")
    assert (again / "bytes.png").read_bytes() == (tmp_path / "new" / "bytes.png").read_bytes()


def test_one_network_a_point_has_no_spread_and_is_drawn(tmp_path):
    rate_figures(ROWS[ROWS.draw == 0].assign(dataset="digits"), tmp_path)
    assert (tmp_path / "bytes.png").is_file()


@pytest.mark.parametrize("images", [1, 10, 20, 50])
def test_published_bytes_are_those_of_the_images_that_were_counted(images):
    rows = published_byte_fair("cifar100")
    some = rows[rows.bytes_are.str.fullmatch(f"{images} uint8 images? a class")]
    assert len(some) and (some.bytes == images * 3072 * 100).all()
    assert rows.accuracy.between(5, 60).all() and not len(published_byte_fair("digits"))
