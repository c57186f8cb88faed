"""Names of an experience's classes, where the data set at the bottom of a benchmark knows them.

Nothing here imports Avalanche.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

DEEPEST = 20
"""Data sets within data sets that are looked through."""


def names_of(experience: Any, dataset: Any, labels: Tensor) -> dict[int, str]:
    """Names by label, from the attribute ``classes`` of the user's data set, as torchvision's have it.

    A benchmark may number classes anew and says how (``class_mapping``); where labels are changed on the way in any
    other manner, so that items give others than ``targets``, nothing is known.

    Args:
        experience: of Avalanche.
        dataset: what the strategy trains on.
        labels: (n,) that its items give.

    Returns:
        empty where nothing is known.
    """
    declared = getattr(dataset, "targets", None)
    if declared is None or [int(label) for label in declared] != labels.tolist():
        return {}
    known = {tuple(leaf.classes) for leaf in _leaves(dataset) if _has_names(leaf)}
    if len(known) != 1:
        return {}
    names = next(iter(known))
    benchmark = getattr(experience, "benchmark", None)
    mapping = getattr(benchmark, "class_mapping", None)
    of_experience = getattr(benchmark, "original_classes_in_exp", None)
    if mapping is None or of_experience is None:
        numbered = dict(enumerate(names))
    else:
        originals = of_experience[experience.current_experience]
        numbered = {int(mapping[one]): names[one] for one in originals if one < min(len(names), len(mapping))}
    wanted = labels.unique().tolist()
    return {label: numbered[label] for label in wanted} if all(label in numbered for label in wanted) else {}


def _has_names(leaf: Any) -> bool:
    names = getattr(leaf, "classes", None)
    changed = getattr(leaf, "target_transform", None) is not None
    return isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names) and not changed


def _leaves(dataset: Any) -> Iterator[Any]:
    """The data sets at the bottom: Avalanche's hold others in ``_flat_data`` and ``_datasets``, PyTorch's in
    ``dataset`` and ``datasets``.
    """
    level, seen = [dataset], set()
    for _ in range(DEEPEST):
        below = []
        for one in level:
            inside = [getattr(one, name, None) for name in ("_flat_data", "dataset")]
            for name in ("_datasets", "datasets"):
                several = getattr(one, name, None)
                inside += list(several) if isinstance(several, (list, tuple)) else []
            inside = [part for part in inside if part is not None and part is not one]
            if not inside and id(one) not in seen:
                yield one
            seen.add(id(one))
            below += [part for part in inside if id(part) not in seen]
        level = below
