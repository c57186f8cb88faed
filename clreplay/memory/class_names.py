"""Names of classes: checked, in order, and made fit for folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LONGEST = 80
"""Bytes of a folder's name; most file systems take 255."""


def check_class_names(names: Any, labels: Sequence[int] = ()) -> dict[int, str]:
    """Names by label.

    Args:
        names: texts in the order of the labels 0, 1, ..., or a mapping from labels to texts.
        labels: that must have one.

    Raises:
        ValueError: they are something else, or a label has none.
    """
    pairs: Iterable[tuple[Any, Any]] = names.items() if isinstance(names, Mapping) else ()
    if isinstance(names, Sequence) and not isinstance(names, (str, bytes)):
        pairs = enumerate(names)
    try:
        found = {int(label): name for label, name in pairs}
    except (TypeError, ValueError):
        found = {}
    if not found or not all(isinstance(name, str) for name in found.values()):
        raise ValueError(
            f"class_names must be texts in the order of the labels, or a mapping from labels to texts, got "
            f"{str(names)[:60]!r}"
        )
    if missing := [label for label in labels if label not in found]:
        raise ValueError(
            f"class_names must name every label, got {len(found)} names and none for {missing[0]}; give all"
        )
    return found


def as_plain(names: Mapping[int, str]) -> list[str] | dict[str, str]:
    """Names as a memory's file has them: a list where labels are 0, 1, ..., else a mapping by the labels' texts."""
    if sorted(names) == list(range(len(names))):
        return [names[label] for label in range(len(names))]
    return {str(label): names[label] for label in sorted(names)}


def label_table(labels: Sequence[int], names: Mapping[int, str]) -> tuple[list[int], list[str]]:
    """The classes of a table whose places count from 0, as data sets have it: a label at every place, and its name.

    A label is its own place where that can be: all labels lie in ``0 .. n-1`` for the n names that are known, or for
    the n labels there are. Otherwise labels have their places in ascending order.

    Args:
        labels: in the memory, each once.
        names: those that are known, maybe of further labels; a label without one is called by its number.

    Returns:
        labels and names by place; names are told apart (:func:`distinct`).
    """
    known = max(names, default=-1) + 1
    whole = known if sorted(names) == list(range(known)) else 0
    size = max(whole, len(labels))
    in_place = list(range(size)) if all(0 <= label < size for label in labels) else sorted(labels)
    return in_place, distinct([names.get(label, str(label)) for label in in_place], in_place)


def distinct(names: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Names of which no two are equal: to those that are, their label is added (ImageNet has two cranes)."""
    found, taken = [], {name for name in names if names.count(name) == 1}
    for name, label in zip(names, labels):
        if names.count(name) > 1:
            name = f"{name} {label}"
            while name in taken:
                name += "'"
            taken.add(name)
        found.append(name)
    return found


def folder_names(names: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Names of folders, one a class, that every file system can have beside one another.

    Letters of all scripts stay; separators, what Windows does not take, dots and blanks at the ends do not. Names that
    differ in case or composition only, or in nothing, get their label. Classes that are called by their numbers get
    zeros in front, so that folders are sorted as labels are.
    """
    if all(name == str(label) for name, label in zip(names, labels)):
        width = max(len(str(label)) for label in labels)
        return [f"{label:0{width}d}" for label in labels]
    plain = [_plain(name) or str(label) for name, label in zip(names, labels)]
    folded = [_folded(name) for name in plain]
    taken, found = {name for name in folded if folded.count(name) == 1}, []
    for name, same, label in zip(plain, folded, labels):
        if folded.count(same) > 1:
            name = f"{name}_{label}"
            while _folded(name) in taken:
                name += "_"
            taken.add(_folded(name))
        found.append(name)
    return found


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFC", name).encode("utf-8", "replace").decode("utf-8")
    text = "".join("_" if _foreign(letter) else letter for letter in text)
    while len(text.encode("utf-8")) > LONGEST:
        text = text[:-1]
    text = text.strip(" .")
    return f"{text}_" if _RESERVED.fullmatch(text) else text


def _foreign(letter: str) -> bool:
    """What a file's name cannot hold somewhere: separators, wildcards, and what is not printed."""
    return letter in '/\\:*?"<>|' or unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name.casefold()).casefold()
