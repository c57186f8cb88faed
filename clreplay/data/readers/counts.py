"""Official numbers of images, and the check that a copy has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clreplay.data.errors import InvalidDataError


@dataclass(frozen=True)
class Counts:
    """How many images a split must have.

    Args:
        total: number of images; None accepts any.
        per_class: number of images of each class, in label order; or one number for all classes.
        least, most: bounds for each class, used where `per_class` is None.
    """

    total: int | None = None
    per_class: tuple[int, ...] | int | None = None
    least: int = 1
    most: int | None = None

    def of_class(self, label: int) -> tuple[int, int | None]:
        """The smallest and the largest number of images that one class may have."""
        if self.per_class is None:
            return self.least, self.most
        count = self.per_class if isinstance(self.per_class, int) else self.per_class[label]
        return count, count


def even(each: int, num_classes: int) -> Counts:
    """`each` images of every class."""
    return Counts(each * num_classes, each)


def check_counts(
    title: str,
    split: str,
    labels: np.ndarray,
    counts: Counts,
    where: str,
    places: Sequence[str],
    *,
    ordered: bool = True,
) -> None:
    """Compare a split with its official numbers.

    Args:
        title: of the data set, for messages.
        labels: of every image, int64 (n,).
        where: the folder or archive that was read, for messages.
        places: the place of each class, such as its folder, for messages.
        ordered: whether the labels are in the official order. If not, the classes may have their numbers of images in
            any order.

    Raises:
        InvalidDataError: a label is out of range, a class has another number of images, or all have together.
    """
    classes = len(places)
    if not len(labels):
        raise InvalidDataError(f"{where}: {title} must have images ({split}), got none; copy or fetch it again")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise InvalidDataError(
            f"{where} is not {title}: {split} must have labels 0..{classes - 1}, got {labels.min()}..{labels.max()}"
        )
    found = np.bincount(labels, minlength=classes)
    if not ordered and isinstance(counts.per_class, tuple):
        if sorted(found) != sorted(counts.per_class):
            raise InvalidDataError(
                f"{where}: the classes of {title} must have {sorted(counts.per_class)} images in some order "
                f"({split}), got {sorted(found.tolist())}; copy or fetch it again"
            )
        return
    for label, number in enumerate(found.tolist()):
        least, most = counts.of_class(label)
        if number < least or (most is not None and number > most):
            wanted = str(least) if most == least else f"{least} to {most}" if most else f"at least {least}"
            raise InvalidDataError(
                f"{where}: {title} must have {wanted} images in {places[label]} ({split}), got {number}; "
                "copy or fetch it again"
            )
    if counts.total is not None and len(labels) != counts.total:
        raise InvalidDataError(
            f"{where}: {title} must have {counts.total} images ({split}), got {len(labels)}; copy or fetch it again"
        )
