"""What an official data set holds and how its copies are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from clreplay.data.normalization import Normalization
from clreplay.data.readers.counts import Counts
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.trees import Tree

SPLITS = ("train", "test")
TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class ImageSpec:
    """What a data set holds, and how its copies are named.

    Args:
        name: as in `DATASETS`; begins the names of its files in the cache.
        title: the name that messages use.
        target: size and channels that its images are converted to.
        counts: official numbers of `train` and `test`.
        normalization: None takes mean and deviation of the training images.
        folders: where a copy lies below the root; the root may also be such a folder itself.
        shared_folders: folders below the root that may hold other data sets as well (`.` is the root itself). Only
            Parquet shards are looked for there, and shards that lack the columns are another set's.
        num_classes: None for as many as there are folders.
        classes: names of the class folders in label order; None takes those of `train`, sorted.
        class_names: readable names in label order; None takes those of the folders.
        whole: number of images of each class in `train` and `test` together.
        archives: file names of the official archives, which are read without unpacking.
        test_folders: names that the test split may have, the preferred one first.
        layout: finds splits, classes and images in a tree; None expects class folders.
        titles: reads the readable class names from files in the tree.
        shard_labels: labels in Parquet shards that make up this set, in its own label order; None takes all.
        label_columns: names that the label column of Parquet shards may have, the preferred one first.
        url, md5: where the archive is downloaded from.
        ways_out: what a user without a copy can do, one line each.
    """

    name: str
    title: str
    target: Target
    counts: Mapping[str, Counts]
    normalization: Normalization | None
    folders: tuple[str, ...] = ()
    shared_folders: tuple[str, ...] = ()
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    whole: tuple[int, ...] | None = None
    archives: tuple[str, ...] = ()
    test_folders: tuple[str, ...] = TEST_FOLDERS
    layout: Callable[[Tree, ImageSpec], Layout] | None = None
    titles: Callable[[Tree, tuple[str, ...]], tuple[str, ...]] | None = None
    shard_labels: tuple[int, ...] | None = None
    label_columns: tuple[str, ...] = ("label", "labels")
    url: str | None = None
    md5: str = ""
    ways_out: tuple[str, ...] = ()


Pairs = list[tuple[str, str]]
"""Paths of images in a tree, each with the name of its class."""


class Layout(NamedTuple):
    """The classes and images found in a tree.

    Attributes:
        classes: names of the class folders, in label order.
        pairs: the images of `train` and `test`.
        folders: where each of the two is in the tree.
    """

    classes: tuple[str, ...]
    pairs: Mapping[str, Pairs]
    folders: Mapping[str, str]
