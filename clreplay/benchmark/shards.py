"""Condensed sets made in several places at once, each making some of the classes.

The losses of most methods separate over classes, and chance is keyed by class, so a class comes out the same whatever
other classes are condensed with it (on a GPU to float rounding). What is finished is stored class by class, so a run
that is stopped, or loses a machine, continues with the classes that are left, in whatever shards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from clreplay.benchmark.units import SetUnit


def shards_of(units: Sequence[SetUnit], jobs: int, shards: int | None = None) -> list[SetUnit]:
    """The units of some sets, each set cut into as many as keep all jobs busy.

    Args:
        units: of sets that are not finished.
        jobs: units of work at a time.
        shards: of every set; None chooses, see :func:`even_parts`. Methods that mix classes are never cut.
    """
    wanted = even_parts(len(units), jobs) if shards is None else shards
    found = []
    for unit in units:
        of = wanted if wanted > 1 and unit.spec.configured().separable() else 1
        found += [replace(unit, number=number, of=of) for number in range(of)]
    return found


def even_parts(units: int, jobs: int) -> int:
    """The fewest parts of each of some equal units with which jobs end together, to within a tenth of the time."""
    ideal = units / jobs
    return next(parts for parts in count(1) if math.ceil(units * parts / jobs) / parts <= 1.1 * ideal)
