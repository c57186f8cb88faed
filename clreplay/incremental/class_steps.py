"""Which classes come at which step: how many each, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def step_sizes(classes: int, steps: int, first: int | None, name: str) -> list[int]:
    """Classes of every step: the first step's if that is given, the rest evenly.

    Args:
        classes: of the data set.
        steps: all of them, the first included.
        first: classes of the first step; None splits all evenly.
        name: of the data set, for messages.

    Raises:
        ValueError: they do not come out even, or nothing is left for a step.
    """
    if first is None:
        if classes % steps:
            raise ValueError(
                f"steps must divide the {classes} classes of {name}, got {steps}; take {_divisors(classes)}, or let "
                "first_step, the classes of the first step, take what is left over"
            )
        return [classes // steps] * steps
    rest, others = classes - first, steps - 1
    if first < 1 or rest < others or (rest % others if others else rest):
        raise ValueError(
            f"first_step is {first} and steps {steps}, so the other {max(rest, 0)} of the {classes} classes of {name} "
            f"would come in {others} step(s), which does not come out even; the first step counts as one"
        )
    return [first] + [rest // others] * others if others else [first]


def _divisors(classes: int) -> str:
    """Those in reach, as they are read out."""
    found = [str(steps) for steps in range(1, classes + 1) if classes % steps == 0]
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def read_class_order(text: str) -> tuple[str, ...]:
    """An order of classes as it is typed, or the file that holds it: labels or names between commas or lines.

    Args:
        text: ``3,1,2``, or a file with the same, or with one a line; brackets and quotes are left out.

    Raises:
        ValueError: there is nothing in it.
    """
    path = Path(text)
    if "," not in text and path.is_file():
        text = path.read_text(encoding="utf-8")
    words = [word.strip().strip("'\"-[]").strip() for word in re.split(r"[,\n]", text)]
    found = tuple(word for word in words if word)
    if not found:
        raise ValueError(f"class_order must list classes between commas, or be a file of them, got {text[:60]!r}")
    return found


def own_order(given: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """The labels of an order that is given by labels or by names of classes.

    Args:
        given: every class once; all by label, or all by name. Numbers are labels.
        names: of the classes, by label.

    Raises:
        ValueError: a class is unknown, missing, or there twice.
    """
    by_name = {name: label for label, name in enumerate(names)}
    known = {str(label): label for label in range(len(names))} if all(str(g).isdigit() for g in given) else by_name
    unknown = [str(word) for word in given if str(word) not in known]
    if unknown:
        raise ValueError(
            f"class_order has {', '.join(unknown[:5])}, which is no class; give labels 0 to {len(names) - 1} only, or "
            f"names only, such as {', '.join(list(names)[:3])}"
        )
    order = [known[str(word)] for word in given]
    missing = sorted(set(range(len(names))) - set(order))
    twice = sorted({label for label in order if order.count(label) > 1})
    if missing or twice:
        what = f"lacks {_some(missing)}" if missing else f"has {_some(twice)} twice"
        raise ValueError(f"class_order must have every of the {len(names)} classes once, it {what}")
    return order


def _some(labels: Sequence[int]) -> str:
    shown = ", ".join(map(str, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    return f"class{'es' if len(labels) > 1 else ''} {shown}"
