"""The table of condensers. A new method is one function under ``@register``, one recipe, one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from clreplay.condensation.real_images import RealImages
from clreplay.runtime.progress import Progress


@dataclass(frozen=True)
class Condensed:
    """What a condenser gives back.

    Attributes:
        images: what to store of every class, exactly the asked number, (k, c, h, w): uint8 pixel codes of real
            images that were selected, or float images in normalised space.
        record: rows of numbers by iteration (losses, image statistics), empty for selections.
        chosen: what was chosen by measurement on the spot (classes worked on together, ...).
        decoding: name of the decoder that makes images to train on of those stored (:mod:`clreplay.memory.decoders`).
    """

    images: dict[int, Tensor]
    record: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    decoding: str = "none"


class Condenser(Protocol):
    """Real images in, condensed images out; all chance comes from ``seed``, never from the global generator.

    ``keep`` names a file for work in progress: a condenser that takes long saves itself there now and then
    and goes on from it; others may ignore it. It is passed only when there is such a file to keep.
    """

    def __call__(
        self,
        real: RealImages,
        counts: dict[int, int],
        settings: Any,
        *,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Condensed: ...


ChooseExecution = Callable[[Any, RealImages, dict[int, int], torch.device], Any]
"""Settings in which all that is to be measured on the spot has been; see :class:`Method`."""


Check = Callable[[Any, Mapping[int, int], tuple[int, int, int]], None]
"""Refuses work that a method cannot do; see :class:`Method`."""


@dataclass(frozen=True)
class Method:
    """A registered condenser and the dataclass that holds its settings.

    Attributes:
        separable: whether, under given settings, a class comes out the same whatever classes are beside
            it; only then can condensed classes be cached.
        decoding: what :attr:`Condensed.decoding` will be under given settings, for estimates made ahead.
        settle: called with settings, the experience, the images of every class and the device: the settings with
            every ``auto`` replaced by what is fastest here. It is what settings were run under, and cached.
        check: called with settings, the images of every class of an experience and the shape of an image (channels,
            height, width): raises ``ValueError``, with the cure, where the method cannot do that. A planned run asks
            it of every step before any work, under the first class order.
        code: hash of the file a method of one's own was read from; empty for those of clreplay.
    """

    name: str
    settings: type
    condense: Condenser
    separable: Callable[[Any], bool] = lambda settings: False
    decoding: Callable[[Any], str] = lambda settings: "none"
    choose_execution: ChooseExecution = lambda settings, real, counts, device: settings
    check: Check = lambda settings, counts, shape: None
    code: str = ""


METHODS: dict[str, Method] = {}
OWN_METHODS: dict[str, dict[str, Method]] = {}
"""Methods that recipes brought along, by file: a name counts inside its file (:mod:`clreplay.recipes.own_code`)."""
_entering = METHODS


def register(
    name: str,
    settings: type,
    separable: Callable[[Any], bool] = lambda settings: False,
    decoding: Callable[[Any], str] = lambda settings: "none",
    choose_execution: ChooseExecution = lambda settings, real, counts, device: settings,
    check: Check = lambda settings, counts, shape: None,
) -> Callable[[Condenser], Condenser]:
    """Enter a condenser in the table, so that recipes can name it as their ``method``.

    Args:
        name: what a recipe's ``method:`` says.
        settings: a dataclass; its fields are the keys that recipes, ``--set`` and keywords accept.
        separable: see :class:`Method`; methods whose losses mix classes leave it out.
        decoding: see :class:`Method`; methods that store the images themselves leave it out.
        settle: see :class:`Method`; methods that measure nothing leave it out.
        check: see :class:`Method`; methods that can do with any number of classes and images leave it out.

    Raises:
        ValueError: the name is taken, or the settings are not a dataclass.
    """

    def enter(condenser: Condenser) -> Condenser:
        if name in _entering:
            raise ValueError(f"method {name!r} is registered already")
        if not (isinstance(settings, type) and is_dataclass(settings)):
            raise ValueError(f"the settings of method {name!r} must be a dataclass, got {settings!r}; decorate it")
        _entering[name] = Method(name, settings, condenser, separable, decoding, choose_execution, check)
        return condenser

    return enter


@contextmanager
def entering(table: dict[str, Method]) -> Iterator[None]:
    """Within the block, :func:`register` enters methods in ``table``."""
    global _entering
    before, _entering = _entering, table
    try:
        yield
    finally:
        _entering = before


def check_work(
    method: Method | None, settings: Any, counts: Mapping[int, int], shape: tuple[int, int, int], who: str = ""
) -> None:
    """Tell before any work what a method cannot do; a callable of one's own (None) is not asked.

    Args:
        method, settings, counts, shape: see :class:`Method`.
        who: the memory, and the step where there is one, in the message; the method where that is not known.

    Raises:
        ValueError: naming ``who``, the images a class, and what the method says.
    """
    if method is None:
        return
    try:
        method.check(settings, counts, shape)
    except ValueError as error:
        each = "/".join(str(count) for count in sorted(set(counts.values())))
        raise ValueError(f"{who or f'method {method.name}'}, {each} images a class: {error}") from error


def method_of(condenser: Condenser, settings: Any) -> Method | None:
    """The registered method that a condenser is with such settings; None for a callable of one's own."""
    tables = (METHODS, *OWN_METHODS.values())
    found = (method for table in tables for method in table.values() if method.condense is condenser)
    return next((method for method in found if isinstance(settings, method.settings)), None)
