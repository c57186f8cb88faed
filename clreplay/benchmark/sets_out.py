"""Sets of the store as memory files, to look at, to train on or to hand on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clreplay.benchmark.datasets import load_cached
from clreplay.benchmark.sets import from_bytes
from clreplay.benchmark.store import Store

KEPT = "float32"
"""The sets as they were condensed; stores of learners code them anew."""


def given_out(planned: Iterable[Any], store: Store, folder: Path, data_root: str | None = None) -> Iterator[Path]:
    """Write every finished set of some cells: ``cifar10-ipc10-ddm-set1.safetensors``.

    Args:
        planned: cells with their sets, in their order.
        store: which has them.
        folder: made if need be; files of the same sets are replaced.
        data_root: where the data is, whose normalisation the memories have.

    Yields:
        the path of every file, once.
    """
    known, written = store.read().sets, set()
    for cell in planned:
        for number, spec in enumerate(cell.specs, start=1):
            if spec.key not in known or spec.key in written:
                continue
            written.add(spec.key)
            data = load_cached(spec.dataset, data_root).set
            memory = from_bytes(store.images(spec.key), data, KEPT)
            memory.info.update(method=cell.cell.recipe, dataset=spec.dataset, set=spec.key[:12])
            dataset = re.sub("[#=/:]", "-", spec.dataset)
            path = folder / f"{dataset}-ipc{spec.images_per_class}-{cell.cell.recipe}-set{number}.safetensors"
            memory.save(path)
            yield path
