"""The table of condensers. A new method is one function under ``@register``, one recipe, one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
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
        images: what to store of every class, exactly the requested number, (k, c, h, w): uint8 pixel codes of real
            images that were selected, or float images in normalised space.
        record: rows of numbers by iteration (losses, image statistics), empty for selections.
        chosen: what was chosen by measurement on the spot (classes worked on together, ...).
        decoding: name of the decoder that makes images to train on of those stored (:mod:`clreplay.memory.decoders`).
        seconds_before: spent on it by processes that were stopped on the way.
    """

    images: dict[int, Tensor]
    record: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    decoding: str = "none"
    seconds_before: float = 0.0


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


ChooseExecution = Callable[[Any, Any, RealImages, dict[int, int], torch.device], tuple[Any, Any]]
"""Settings and execution in which all that is to be measured on the spot has been; see :class:`Method`."""


Check = Callable[[Any, Mapping[int, int], tuple[int, int, int]], None]
"""Refuses work that a method cannot do; see :class:`Method`."""


def mixes_classes(settings: Any) -> bool:
    """A class may come out otherwise beside other classes: what is true unless a method says that it is not."""
    return False


def stores_images(settings: Any) -> str:
    """The images to train on are those that are stored."""
    return "none"


def has_no_limits(settings: Any, counts: Mapping[int, int], shape: tuple[int, int, int]) -> None:
    """Any number of classes and images will do."""


@dataclass(frozen=True)
class Method:
    """A registered condenser and the dataclass that holds its settings.

    Attributes:
        separable: whether, under given settings, a class comes out the same whatever classes are beside it; if not,
            a cached class is found in the same company only.
        decoding: what :attr:`Condensed.decoding` will be under given settings, for estimates made ahead; None where
            that is not known.
        choose_execution: called with settings, an execution, the experience, the images of every class and the
            device: both with every ``auto`` replaced by what is fastest here. It is what the work is done under.
            None where nothing is left to the machine.
        check: called with settings, the images of every class of an experience and the shape of an image (channels,
            height, width): raises ``ValueError``, with the cure, where the method cannot do that. A planned run asks
            it of every step before any work, under the first class order.
        execution: fields of :class:`clreplay.condensation.engine.execution.Execution` that it heeds; where there are
            any, the condenser is given ``execution``, too.
        selects: whether it gives real images, the most wanted first, so that one may ask for a few more than fit.
        cached: whether what it makes is worth keeping for other runs.
        code: hash of the file that the user's own method was read from; empty for those of clreplay.
    """

    name: str
    settings: type
    condense: Condenser
    separable: Callable[[Any], bool] = mixes_classes
    decoding: Callable[[Any], str] | None = stores_images
    choose_execution: ChooseExecution | None = None
    check: Check = has_no_limits
    execution: tuple[str, ...] = ()
    selects: bool = False
    cached: bool = True
    code: str = ""

    def __reduce__(self) -> Any:
        """Pickled by where it is registered, since a registration may hold functions that have no name."""
        for place, table in {"": METHODS, **OWN_METHODS}.items():
            if table.get(self.name) is self:
                return _registered, (place, self.name)
        return Method, tuple(getattr(self, field.name) for field in fields(self))


def _registered(place: str, name: str) -> Method:
    """A method of the table, or one that the user's own file registers."""
    return (OWN_METHODS[place] if place else METHODS)[name]


METHODS: dict[str, Method] = {}
OWN_METHODS: dict[str, dict[str, Method]] = {}
"""Methods that recipes brought along, by file: a name counts inside its file (:mod:`clreplay.recipes.own_code`)."""
_entering = METHODS


def register(
    name: str,
    settings: type,
    separable: Callable[[Any], bool] = mixes_classes,
    decoding: Callable[[Any], str] = stores_images,
    choose_execution: ChooseExecution | None = None,
    check: Check = has_no_limits,
    execution: tuple[str, ...] = (),
    engine: bool = False,
    selects: bool = False,
    cached: bool = True,
) -> Callable[[Any], Any]:
    """Enter a condenser in the table, so that recipes can name it as their ``method``.

    Args:
        name: what a recipe's ``method:`` says.
        settings: a dataclass; its fields are the keys that recipes, ``--set`` and keywords accept.
        separable: see :class:`Method`; methods whose losses mix classes leave it out.
        decoding: see :class:`Method`; methods that store the images themselves leave it out.
        choose_execution: see :class:`Method`; methods that measure nothing leave it out.
        check: see :class:`Method`; methods that can do with any number of classes and images leave it out.
        execution: see :class:`Method`; methods that know one way to compute leave it out.
        engine: whether what is decorated is no condenser but a class with a ``run``, made with the experience, the
            counts, the settings, the seed, the device and the execution.
        selects: see :class:`Method`; methods that make images leave it out.
        cached: see :class:`Method`; methods that take longer than reading a file leave it out.

    Raises:
        ValueError: the name is taken, or the settings are not a dataclass.
    """

    def enter(condenser: Any) -> Any:
        if name in _entering:
            raise ValueError(f"method {name!r} is registered already")
        if not (isinstance(settings, type) and is_dataclass(settings)):
            raise ValueError(f"the settings of method {name!r} must be a dataclass, got {settings!r}; decorate it")
        work = _run_of(condenser) if engine else condenser
        _entering[name] = Method(
            name, settings, work, separable, decoding, choose_execution, check, execution, selects, cached
        )
        return condenser

    return enter


def _run_of(engine: type) -> Condenser:
    """An engine as a condenser."""

    def condense(
        real: RealImages,
        counts: dict[int, int],
        settings: Any,
        *,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        keep: Path | None = None,
        execution: Any = None,
    ) -> Condensed:
        more = () if execution is None else (execution,)
        return engine(real, counts, settings, seed, device, *more).run(progress, keep)

    condense.__doc__, condense.__module__ = engine.__doc__, engine.__module__
    return condense


@contextmanager
def entering(table: dict[str, Method]) -> Iterator[None]:
    """Within the block, :func:`register` enters methods in ``table``."""
    global _entering
    before, _entering = _entering, table
    try:
        yield
    finally:
        _entering = before
