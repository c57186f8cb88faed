"""Domains: data sets of the same classes, or one data set seen in several ways, that come one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.load import load_dataset
from clreplay.data.readers.image_files import sides_text
from clreplay.data.registry import DATASETS
from clreplay.data.sets.folder import FOLDER
from clreplay.data.transforms import TRANSFORMS, DomainView, known_transforms, nearest


@dataclass(frozen=True, eq=False)
class DomainDataset(Dataset):
    """Several data sets of the same classes and image size; what a plain data set has is the first one's.

    Args:
        domains: in the order in which they come, all normalised as the first.
        domain_names: as a person writes them.
    """

    domains: tuple[Dataset, ...] = ()
    domain_names: tuple[str, ...] = field(default=())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images and labels of all domains, in their order: 32 hex digits."""
        found = "".join(domain.fingerprint for domain in self.domains)
        return hashlib.blake2b(found.encode(), digest_size=16).hexdigest()

    def shown_images(self, each: int) -> ImageSet:
        """Some training images of all domains, of every class in turn, for pictures.

        Args:
            each: of every class and domain, at most.
        """
        images, labels = [], []
        for label in range(self.num_classes):
            parts = [domain.train.class_images(label)[:each].cpu() for domain in self.domains]
            turns = torch.cat([torch.arange(len(part)) for part in parts])
            images.append(torch.cat(parts)[turns.argsort(stable=True)])
            labels += [label] * len(turns)
        return ImageSet(torch.cat(images), torch.tensor(labels))


def domain_words(words: Sequence[str]) -> list[str]:
    """One text a domain: ``rotate:0,30,60`` are three."""
    found = []
    for word in words:
        name, colon, numbers = word.partition(":")
        several = colon and "," in numbers and name in TRANSFORMS and "+" not in word
        found += [f"{name}:{number.strip()}" for number in numbers.split(",")] if several else [word]
    return found


def check_domains(words: Sequence[str], dataset: str | None) -> list[str]:
    """The domains that are meant, once all that can be known without reading data is known to be right.

    Args:
        words: as for :func:`load_domains`.
        dataset: the data set that transforms are of.

    Raises:
        ValueError: as :func:`load_domains`.
    """
    names = domain_words(words)
    if len(names) < 2:
        raise ValueError(
            f"domains must be two or more, got {len(names)} ({', '.join(names)}); such as rotate:0,30,60 of one set, "
            "or folder:photos@32 folder:sketches@32"
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"domains must differ, got {twice[0]!r} twice; take one of them out")
    for name in names:
        if _is_dataset(name):
            continue
        if not _is_transform(name):
            close = nearest(name.partition(":")[0], [*TRANSFORMS, *DATASETS, "folder"])
            raise ValueError(
                f"domain {name!r} is neither a transform ({known_transforms()}) nor a data set ({', '.join(DATASETS)}, "
                f"folder:PATH){close}"
            )
        DomainView.parse(name)
        if dataset is None:
            raise ValueError(f"domain {name!r} is a transform, and no dataset says of what; give --dataset")
    if dataset is not None and all(map(_is_dataset, names)):
        raise ValueError(
            f"dataset is {dataset!r}, but all domains are data sets of their own; leave it out, or make it a domain"
        )
    return names


def load_domains(
    words: Sequence[str],
    dataset: str | None = None,
    root: str | Path | None = None,
    *,
    download: bool = True,
    channels: int | None = None,
) -> DomainDataset:
    """Load data sets, or one data set seen in several ways, as domains of the same classes.

    Training and test images are transformed alike. All domains are normalised as the first one is: nobody knows the
    others when it comes.

    Args:
        words: domains in the order in which they come: transforms of ``dataset`` (:data:`TRANSFORMS`), several after
            one another as ``rotate:30+blur``, several numbers as ``rotate:0,30,60``; or data sets as
            :func:`load_dataset` knows them, such as ``folder:sketches@32``.
        dataset: the data set that transforms are of.
        root, download, channels: as of :func:`load_dataset`.

    Raises:
        ValueError: there are fewer than two domains or one twice, a name is unknown, classes, sizes or channels differ,
            a class is missing somewhere, or two domains have the same images of a class.
    """
    names = check_domains(words, dataset)
    loaded: dict[str, Dataset] = {}
    for source in dict.fromkeys(name if _is_dataset(name) else str(dataset) for name in names):
        loaded[source] = load_dataset(source, root, download=download, channels=channels)
    sources = [loaded[name if _is_dataset(name) else str(dataset)] for name in names]
    _check_alike(names, sources)
    first = sources[0]
    domains = tuple(
        _seen_as(name, replace(source, normalization=first.normalization)) for name, source in zip(names, sources)
    )
    _check_different(names, domains)
    used = list(dict.fromkeys(source.name for source in sources))
    return DomainDataset(
        name="+".join(used),
        train=domains[0].train,
        test=domains[0].test,
        class_names=first.class_names,
        normalization=first.normalization,
        source=" ".join(dict.fromkeys(source.source for source in sources)),
        domains=domains,
        domain_names=_told_apart([_recorded(name, source) for name, source in zip(names, sources)]),
    )


def _is_transform(name: str) -> bool:
    return name.partition("+")[0].partition(":")[0] in TRANSFORMS


def _is_dataset(name: str) -> bool:
    return not _is_transform(name) and (name.startswith(FOLDER) or name.partition("#")[0] in DATASETS)


def _recorded(name: str, source: Dataset) -> str:
    """A folder by its name: its path says something on this machine only."""
    return source.name if _is_dataset(name) else name


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Folders of one name in different places get a number."""
    return tuple(
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    )


def _seen_as(name: str, data: Dataset) -> Dataset:
    if _is_dataset(name):
        return data
    view = DomainView.parse(name)
    train, test = (
        ImageSet(view(images.images, part), images.labels)
        for images, part in ((data.train, "train"), (data.test, "test"))
    )
    return replace(data, train=train, test=test)


def _check_alike(names: Sequence[str], sources: Sequence[Dataset]) -> None:
    first = sources[0]
    for name, data in zip(names, sources):
        if data.class_names != first.class_names:
            lacks = [one for one in first.class_names if one not in data.class_names]
            more = [one for one in data.class_names if one not in first.class_names]
            what = " and ".join(
                [f"lacks {', '.join(lacks[:5])}"] * bool(lacks) + [f"has {', '.join(more[:5])}"] * bool(more)
                or ["has them in another order"]
            )
            raise ValueError(
                f"domains must have the same classes: {name} {what}, unlike {names[0]}; give all the same class folders"
            )
        shape, wanted = (tuple(one.train.images.shape[1:]) for one in (data, first))
        if shape[1:] != wanted[1:]:
            raise ValueError(
                f"domains must have images of one size (height x width): {name} has {shape[1]} x {shape[2]}, "
                f"{names[0]} {wanted[1]} x {wanted[2]}; folder:PATH@{sides_text((wanted[1], wanted[2]))} resizes"
            )
        if shape[0] != wanted[0]:
            raise ValueError(
                f"domains must have the same channels: {name} has {shape[0]}, {names[0]} {wanted[0]}; give --channels"
            )
        for part, images in (("training", data.train), ("test", data.test)):
            counts = torch.bincount(images.labels, minlength=data.num_classes)
            if not counts.all():
                missing = data.class_names[int(counts.argmin())]
                raise ValueError(
                    f"domain {name} has no {part} images of class {missing}; every domain must have all of them"
                )


def _check_different(names: Sequence[str], domains: Sequence[Dataset]) -> None:
    for (one, left), (other, right) in combinations(zip(names, domains), 2):
        for label in range(left.num_classes):
            a, b = (data.train.class_images(label) for data in (left, right))
            if a.shape == b.shape and torch.equal(a, b):
                raise ValueError(
                    f"domains {one} and {other} have the very same images of class {left.class_names[label]}; take one "
                    "of them out"
                )
