"""What a term of a matching loss is, and the table of terms that recipes name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from clreplay.networks.features import Features
from clreplay.runtime.checks import check_not_negative


class Term:
    """A term of a matching loss. A subclass is a frozen dataclass whose fields, each with a default, are its settings.

    Settings are checked in ``__post_init__``, which calls this class's; a message begins with the field's name, so
    that the method's settings can put the name in front that recipes and ``--set`` have for it. All that a term reads
    of the images is in :class:`clreplay.networks.features.Features`. Classes must not influence one another: the
    engine splits them into groups as the machine requires.

    Attributes:
        weight: factor of the loss; a term of weight zero is not computed.
        name: of the term's values in records; the registered name where a class has no other.
        place: position in the sum of all terms, on whose order its rounding depends. Terms without one follow the
            others by name.
        tap: the point of the network whose maps the term reads, one of
            :data:`clreplay.networks.base.TAP_POINTS`; a field where it can be chosen.
        reads_maps: whether the term needs the maps themselves, and not their moments only; maps that no term needs
            may be left out.
    """

    weight: float
    name: ClassVar[str]
    place: ClassVar[float] = math.inf
    tap = "act"
    reads_maps = True

    def __post_init__(self) -> None:
        check_not_negative(self, "weight")

    def parts(self, images_per_class: int) -> list[Term]:
        """The terms that are computed for it, each with its own weight and name; none where it does not apply.

        Args:
            images_per_class: synthetic images of a class that the network sees.
        """
        return [self]

    def statistics(self, features: Features) -> tuple[Tensor, ...]:
        """What :meth:`loss` compares, (classes, ...) each: of real images without gradient, of synthetic ones with it.

        Those of real images are computed once a network. Nothing, where a term has no real side.
        """
        return ()

    def targets(self, features: Features) -> tuple[Tensor, ...]:
        """The statistics of real images, where they are others than those of synthetic ones."""
        return self.statistics(features)

    def loss(self, real: tuple[Tensor, ...], synthetic: tuple[Tensor, ...], features: Features) -> Tensor:
        """The unweighted loss, (classes,); its gradient flows into the synthetic images.

        Args:
            real, synthetic: the statistics of both sides.
            features: of the synthetic images.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")


AnyTerm = TypeVar("AnyTerm", bound=type[Term])
TERMS: dict[str, type[Term]] = {}
"""The registered terms by the name that recipes have for them."""
_entering = TERMS


def register_term(name: str) -> Callable[[AnyTerm], AnyTerm]:
    """Enter a term in the table: its fields become settings of the matching methods.

    A recipe names them ``terms: {NAME: {FIELD: ...}}``, and everything that takes settings ``NAME_FIELD``, or what
    :func:`setting` says.

    Raises:
        ValueError: the name is taken or is no Python name, or the class is not what :class:`Term` describes.
    """

    def enter(cls: AnyTerm) -> AnyTerm:
        if name in _entering:
            raise ValueError(f"term {name!r} is registered already")
        if not name.isidentifier():
            raise ValueError(f"the name of a term must be letters, digits and underscores, got {name!r}")
        if not (issubclass(cls, Term) and is_dataclass(cls) and cls.__dataclass_params__.frozen):
            raise ValueError(f"term {name!r} must be a subclass of Term under @dataclass(frozen=True), got {cls!r}")
        without = [one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING]
        if without or "weight" not in flat_names(name, cls):
            missing = f"a default for {', '.join(without)}" if without else "a field weight"
            raise ValueError(f"term {name!r} needs {missing}")
        if not hasattr(cls, "name"):
            cls.name = name
        _entering[name] = cls
        return cls

    return enter


def setting(default: Any, flat_name: str) -> Any:
    """A field of a term whose flat name as a setting is not ``TERM_FIELD``."""
    return field(default=default, metadata={"flat_name": flat_name})


def flat_names(name: str, term: type[Term]) -> dict[str, str]:
    """By field of a registered term: the flat name of the setting."""
    found = fields(term)  # type: ignore[arg-type]  # every registered one is a dataclass
    return {one.name: one.metadata.get("flat_name", f"{name}_{one.name}") for one in found}


def in_order(terms: Mapping[str, type[Term]]) -> dict[str, type[Term]]:
    """Terms in the order in which they are added up."""
    return dict(sorted(terms.items(), key=lambda entry: (entry[1].place, entry[0])))


@contextmanager
def entering_terms(table: dict[str, type[Term]]) -> Iterator[None]:
    """Within the block, :func:`register_term` enters terms in ``table``."""
    global _entering
    before, _entering = _entering, table
    try:
        yield
    finally:
        _entering = before
