"""One condensed set made in several places: some classes each, which never need to talk, and a row for the whole.

The losses of most methods separate over classes, and chance is keyed by class, so a class comes out the same whatever
stands beside it (on a GPU to float rounding). A finished shard is a row of its own and its images are the set's, so a
run that is stopped, or loses a machine, goes on with the shards that are left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from clreplay.benchmark.datasets import load_cached
from clreplay.benchmark.sets import Place, SetSpec
from clreplay.benchmark.store import Contents, Finished, Row, key_of
from clreplay.benchmark.units import Images, SetUnit, Unit, finished_row
from clreplay.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class ShardUnit(SetUnit):
    """Condense some classes of a set.

    Attributes:
        number: which of the shards, from 0.
        of: how many there are; a class stands in exactly one.
    """

    number: int
    of: int
    kind = "shard"

    @cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """See :class:`Unit`; shards of another number are others."""
        identity = {"kind": self.kind, "set": self.spec.key, "number": self.number, "of": self.of}
        return {key_of(identity): identity}

    @property
    def failing(self) -> dict[str, dict[str, Any]]:
        """The set: without a shard there is none."""
        return {self.spec.key: self.spec.identity}

    def summary(self) -> str:
        """See :class:`Unit`."""
        return f"{super().summary()} shard {self.number + 1} of {self.of}"

    def run(self, place: Place, images: Images | None = None, progress: Progress | None = None) -> Finished:
        """The shard; of more shards than classes some are empty."""
        data = load_cached(self.spec.dataset, place.data_root)
        real = data.shard(self.number, self.of)
        if real is not None:
            return self._condense(data, real, place, progress)
        ((key, identity),) = self.identities.items()
        row = finished_row(key, self.kind, identity, {"images": 0, "images_decoded": 0}, 0.0, place)
        return Finished(self.spec.dataset, data.fingerprint, (row,))


def shards_of(units: Sequence[SetUnit], contents: Contents, jobs: int, asked: int | None = None) -> list[Unit]:
    """The units that make some sets, the sets in shards where that keeps more jobs busy.

    Args:
        units: of sets that are not finished.
        contents: of the store; the number of shards of a set that was begun stays.
        jobs: units of work at a time.
        asked: shards of every set; None chooses, see :func:`even_parts`.
    """
    wanted = even_parts(len(units), jobs) if asked is None else asked
    found: list[Unit] = []
    for unit in units:
        begun = _begun(unit.spec, contents)
        of = begun or (wanted if _separable(unit.spec) else 1)
        shards = [ShardUnit(unit.spec, number, of) for number in range(of)] if of > 1 else [unit]
        found += [shard for shard in shards if shard.keys[0] not in contents.units]
    return found


def even_parts(units: int, jobs: int) -> int:
    """The fewest parts of each of some equal units with which jobs end together, to within a tenth of the time."""
    ideal = units / jobs
    return next(parts for parts in count(1) if math.ceil(units * parts / jobs) / parts <= 1.1 * ideal)


def joined(spec: SetSpec, contents: Contents) -> Row | None:
    """The row of a set whose shards are all finished, once; None if it is there already, or one is missing."""
    of = _begun(spec, contents)
    if not of or spec.key in contents.units:
        return None
    keys = [ShardUnit(spec, number, of).keys[0] for number in range(of)]
    rows = [contents.units[key] for key in keys if key in contents.units]
    if len(rows) < of:
        return None
    chosen = next((row.result["chosen"] for row in rows if "chosen" in row.result), {})
    result = {name: sum(row.result[name] for row in rows) for name in ("images", "images_decoded")}
    return Row(
        key=spec.key,
        kind=SetUnit.kind,
        settings=spec.identity,
        result={**result, "last_record": {}, "chosen": chosen, "shards": of},  # the shards have records of their own
        seconds=sum(row.seconds for row in rows),
        **{name: _all(getattr(row, name) for row in rows) for name in ("device", "commit", "versions")},
    )


def _begun(spec: SetSpec, contents: Contents) -> int:
    """In how many shards a set was begun; 0 if none is finished. Of several ways, the one with least left to do."""
    of_set = (row.settings for row in contents.units.values() if row.kind == ShardUnit.kind)
    done = Counter(settings["of"] for settings in of_set if settings["set"] == spec.key)
    return max(done, key=lambda of: (done[of] / of, -of), default=0)


def _separable(spec: SetSpec) -> bool:
    return spec.built().separable()


def _all(values: Any) -> str:
    return " + ".join(sorted(set(values)))
