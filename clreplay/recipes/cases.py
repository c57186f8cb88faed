"""Settings of a recipe that hold for some data sets or some numbers of images a class only.

Papers often give settings by data set and budget. A recipe lists them under ``cases``, applied in order::

    cases:
      - {dataset: cifar10, images_per_class: ">= 100", settings: {lr_img: 10.0}}
      - {dataset: [cifar10, cifar100], images_per_class: 1, settings: {real_batch: 5000}}

An entry applies where everything it names is known and fits: with a total budget the number of images a class
is not one number, and a plain tensor of images has no data set's name.
"""

from __future__ import annotations

import difflib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clreplay.data import DATASETS
from clreplay.recipes.typed_settings import RecipeError, did_you_mean

logger = logging.getLogger(__name__)

KEYS = ("dataset", "images_per_class", "settings")
_RANGE = re.compile(r"(>=|>|<=|<)\s*([0-9]+)")
_FORM = 'entries like {dataset: cifar10, images_per_class: ">= 100", settings: {...}}'


class Range(NamedTuple):
    """Whole numbers from ``low`` to ``high``, both included; no end where ``high`` is None."""

    low: int
    high: int | None

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.low <= number and (self.high is None or number <= self.high)


@dataclass(frozen=True)
class Case:
    """One entry.

    Attributes:
        settings: what it changes.
        datasets: names it is for; None for all.
        counts: images a class it is for; None for all.
    """

    settings: Mapping[str, Any]
    datasets: tuple[str, ...] | None = None
    counts: tuple[Range, ...] | None = None

    def applies(self, dataset: str | None, images_per_class: int | None) -> bool:
        """Whether everything the entry names is known and fits."""
        of_data = self.datasets is None or dataset in self.datasets
        return of_data and (self.counts is None or any(images_per_class in counts for counts in self.counts))

    def examples(self) -> Iterator[tuple[str | None, int | None]]:
        """Data sets and images a class where it applies, one of every kind, to try the recipe on."""
        counts = (None,) if self.counts is None else [counts.low for counts in self.counts]
        return itertools.product(self.datasets or (None,), counts)


def read_cases(entries: Any, where: str) -> list[Case]:
    """The value of a recipe's ``cases``; None is none.

    Raises:
        RecipeError: naming ``where``, the entry, what it holds and what is allowed.
    """
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise RecipeError(f"{where}: cases must be a list of {_FORM}, got {entries!r}")
    cases = []
    for number, entry in enumerate(entries, start=1):
        try:
            cases.append(_read_case(entry))
        except ValueError as error:
            raise RecipeError(f"{where}: cases: entry {number}: {error}") from error
    return cases


def check_spelling(dataset: str) -> str:
    """The name of a data set as it is; other names than those clreplay loads may be anybody's own.
    Raises:
        ValueError: it is a known one in another spelling, for which no case would ever apply.
    """
    plain = "".join(letter for letter in dataset.lower() if letter.isalnum())
    if dataset not in DATASETS and plain in DATASETS:
        raise ValueError(f"dataset {dataset!r} is written {plain!r}")
    return dataset


def checked_name(dataset: str) -> str:
    """The name of the data that a caller has, as :func:`check_spelling` has it.

    One that is nearly a known one is warned of: if it is a misspelt one, no case applies.
    """
    check_spelling(dataset)
    close = [] if dataset in DATASETS else difflib.get_close_matches(dataset, DATASETS, n=1, cutoff=0.85)
    if close:
        logger.warning("dataset %r is none that recipes have settings for; did you mean %r?", dataset, close[0])
    return dataset


def _read_case(entry: Any) -> Case:
    if not isinstance(entry, Mapping):
        raise ValueError(f"must be a mapping, {_FORM}, got {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise ValueError(f"unknown key {key!r}{did_you_mean(key, KEYS)} Allowed: {', '.join(KEYS)}")
    settings = entry.get("settings")
    if not isinstance(settings, Mapping) or not settings:
        raise ValueError(f"settings must be a mapping of the settings it changes, got {settings!r}")
    datasets = tuple(_dataset(name) for name in _several(entry, "dataset")) if "dataset" in entry else None
    counts = tuple(_range(v) for v in _several(entry, "images_per_class")) if "images_per_class" in entry else None
    return Case(settings, datasets, counts)


def _several(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry[key]
    if value == []:
        raise ValueError(f"{key} must name at least one value, got an empty list; leave it out to mean all")
    return value if isinstance(value, list) else [value]


def _dataset(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"dataset must be a name such as {', '.join(DATASETS)}, or a list of names, got {name!r}")
    return check_spelling(name)


def _range(value: Any) -> Range:
    found = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    low, high = 0, None
    if found:
        sign, number = found[1], int(found[2])
        low, high = {
            ">=": (max(1, number), None),
            ">": (number + 1, None),
            "<=": (1, number),
            "<": (1, number - 1),
        }[sign]
    elif isinstance(value, int) and not isinstance(value, bool):
        low = high = value
    if low < 1 or (high is not None and high < low):
        raise ValueError(
            'images_per_class must be a whole number of at least 1, a quoted range such as ">= 100" or "< 50" '
            f"that holds one, or a list of them, got {value!r}"
        )
    return Range(low, high)
