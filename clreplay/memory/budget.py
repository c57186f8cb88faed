"""How a budget of stored images is shared among the classes of a memory."""

from __future__ import annotations


def class_quotas(classes: int, images_per_class: int | None, mem_size: int | None) -> list[int]:
    """Images of every class, in order of arrival, when ``classes`` are in memory.

    A total budget is shared so that classes differ by at most one image; the earlier ones get the
    remainder, so that no quota ever grows as classes arrive.

    Raises:
        ValueError: the budget is smaller than the number of classes.
    """
    if images_per_class is not None:
        return [images_per_class] * classes
    if mem_size < classes:
        raise ValueError(f"mem_size must be at least the number of classes seen ({classes}), got {mem_size}; raise it")
    return [(mem_size - position + classes - 1) // classes for position in range(classes)]
