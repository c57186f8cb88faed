"""Rows of a store for the tests; other processes cannot import from a test file."""

from dataclasses import replace

from clreplay.benchmark.rows import FinishedImages, NetworkRow, Origin, SetRow

HERE = Origin(3.0, "cpu", "abc", "torch")


def network(key, **changes):
    """A trained network."""
    row = {
        "key": key,
        "dataset": "digits",
        "condensed_set": "set",
        "training": "training",
        "store": "float32",
        "seed": 0,
        "draw": (0, 0),
        "accuracy": 1.0,
        "held_out": None,
        "diverged": False,
        "images": 10,
        "origin": HERE,
    }
    return NetworkRow(**{**row, **changes})


def condensed(key, data, execution=None, seed=7, origin=HERE):
    """Classes of a condensed set: two images each, which are decoded to four."""
    counts = (dict.fromkeys(data, 2), dict.fromkeys(data, 4))
    return FinishedImages(key, "settings", 2, seed, data, *counts, execution or {}, {}, origin)


def set_row(spec, **changes):
    """A finished set of a plan."""
    what = (spec.key, spec.condensed_key, spec.dataset, spec.images_per_class, spec.seed)
    return replace(SetRow(*what, 10, 10, 3.0, ("cpu",), ("abc",), ()), **changes)


def network_rows(trained, **changes):
    """The trained networks of a plan."""
    unit = trained.unit
    same = {
        "dataset": unit.dataset,
        "condensed_set": unit.needs,
        "training": unit.training_key,
        "store": unit.stored_as,
    }
    pairs = zip(unit.keys, unit.draws)
    return [network(key, draw=draw, seed=unit.seed, **same, **changes) for key, draw in pairs]
