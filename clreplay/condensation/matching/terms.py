"""The terms of the loss as settings of the matching methods, by flat names, and the terms that settings compose."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import Any, get_type_hints

from clreplay.losses import TERMS, Term
from clreplay.losses.term import flat_names, in_order

# Not all that are registered: somebody's own may be there before this file is imported.
SHIPPED = in_order({term: cls for term, cls in TERMS.items() if cls.__module__.startswith("clreplay.")})
"""The terms of the library."""


def label(term: str, name: str, flat: str) -> str:
    """What messages call a setting of a term: as recipes write it, and by its flat name."""
    return f"terms.{term}.{name} ({flat})"


def _fields(terms: Mapping[str, type[Term]]) -> list[tuple[str, Any, Any]]:
    """The settings of terms as fields of a dataclass: flat name, type, and the default with what messages call it."""
    found = []
    for term, cls in terms.items():
        types, default = get_type_hints(cls), cls()
        for name, flat in flat_names(term, cls).items():
            found.append(
                (flat, types[name], field(default=getattr(default, name), metadata={"label": label(term, name, flat)}))
            )
    return found


def described(terms: Mapping[str, type[Term]]) -> str:
    """A paragraph a term for the documentation: what it is, and its settings with their defaults."""
    text = ""
    for term, cls in terms.items():
        first = (inspect.getdoc(cls) or "").partition("\n")[0]
        text += f"\n    Term ``{term}``, :class:`{cls.__module__}.{cls.__name__}`. {first}\n\n"
        text += "".join(f"        {one.metadata['label']}: {one.default!r}\n" for _, _, one in _fields({term: cls}))
    return text


TermSettings = make_dataclass(
    "TermSettings", _fields(SHIPPED), frozen=True, namespace={"term_classes": SHIPPED, "is_traced": True}
)
"""The settings of the library's terms, of which those of the matching methods are made."""


@cache
def with_terms(settings: type, terms: tuple[tuple[str, type[Term]], ...], *, is_traced: bool) -> type:
    """A settings class of a matching method with the settings of further terms; the same class for the same terms.

    Args:
        settings: a subclass of :class:`TermSettings`.
        terms: name and class of each.
        is_traced: whether changed code of the terms would be noticed, as that of a recipe's file is.

    Raises:
        ValueError: two settings have the same name.
    """
    known, more = {one.name: one.metadata.get("label", one.name) for one in fields(settings)}, dict(terms)
    for flat, _, one in _fields(more):
        if flat in known:
            raise ValueError(f"{one.metadata['label']} has the name of another setting, {known[flat]}; rename it")
        known[flat] = one.metadata["label"]

    def reduced(self: Any) -> Any:  # no module holds this class, so pickle has to make it anew
        return _restored, (settings, terms, is_traced, {one.name: getattr(self, one.name) for one in fields(self)})

    namespace = {
        "term_classes": in_order({**settings.term_classes, **more}),
        "is_traced": is_traced,
        "__reduce__": reduced,
        "__module__": settings.__module__,
        "__doc__": f"{settings.__doc__}{described(more)}",
    }
    return make_dataclass(settings.__name__, _fields(more), bases=(settings,), frozen=True, namespace=namespace)


def _restored(settings: type, terms: tuple[tuple[str, type[Term]], ...], is_traced: bool, values: Any) -> Any:
    return with_terms(settings, terms, is_traced=is_traced)(**values)


def with_registered(settings: type, keys: Iterable[str] | None = None) -> type:
    """A method's settings class with the terms that somebody's own Python code has registered.

    Args:
        settings: of any method; returned as it is where it is not a subclass of :class:`TermSettings`.
        keys: flat names; only terms that have one of them as a setting are taken in, so that whoever does not use a
            term has the same settings as before. None takes all.
    """
    if not issubclass(settings, TermSettings):
        return settings
    new = [(term, cls) for term, cls in TERMS.items() if term not in settings.term_classes]
    if keys is not None:
        new = [(term, cls) for term, cls in new if not {*flat_names(term, cls).values()}.isdisjoint(keys)]
    return with_terms(settings, tuple(new), is_traced=False) if new else settings


def whole_terms(settings: Any) -> list[Term]:
    """Every term with its settings, whatever its weight, in the order in which they are added up.

    Args:
        settings: :class:`clreplay.condensation.matching.settings.MatchingSettings`.

    Raises:
        ValueError: a setting is wrong; it is named as recipes and as ``--set`` write it.
    """
    found = []
    for term, cls in settings.term_classes.items():
        names = flat_names(term, cls)
        try:
            found.append(cls(**{name: getattr(settings, flat) for name, flat in names.items()}))
        except ValueError as error:
            first, _, rest = str(error).partition(" ")
            what = f"{label(term, first, names[first])} {rest}" if first in names else f"terms.{term}: {error}"
            raise ValueError(what) from error
    return found


def terms_of(settings: Any, images_per_class: int) -> list[Term]:
    """What is computed under settings: L_MMD + lambda (alpha L_MM + L_CM) + beta L_ICD (DDM, eq. 11), attention
    matching (DataDAM), and terms of one's own; those of weight zero and those that do not apply are left out.

    Args:
        settings: :class:`clreplay.condensation.matching.settings.MatchingSettings`.
        images_per_class: synthetic images of a class that the network sees.

    Raises:
        ValueError: no term is left, or two have the same name in records.
    """
    parts = [part for term in whole_terms(settings) for part in term.parts(images_per_class) if part.weight > 0]
    if not parts:
        raise ValueError("every term has weight zero; give mean_weight (or another term's) a positive value")
    names = [part.name for part in parts]
    if len({*names}) < len(names):
        raise ValueError(f"terms must differ in their names in records, got {', '.join(names)}")
    return parts
