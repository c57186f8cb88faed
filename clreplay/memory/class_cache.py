"""A cache of condensed classes, addressed by content: what was condensed once is not condensed again.

Chance is keyed by (seed, class key, iteration), so a class condensed with given settings comes out the same
in every step, class order and run. The address is a hash of all that decides the outcome; a changed image,
setting, seed, kind of device or version of the arithmetic is another address, so it never hits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clreplay.runtime.checksum import DamagedFile, read_tensors, tensor_bytes, write_bytes
from clreplay.runtime.seeding import content_address

logger = logging.getLogger(__name__)

ARITHMETIC = 2
"""Raised whenever a change of the code changes condensed images."""


class CachedClass(NamedTuple):
    """A class from the cache: images as they are stored, and the name of their decoder."""

    images: Tensor
    decoding: str


class ClassCache:
    """Condensed classes in a folder, one file each; safe with several processes.

    Args:
        folder: created when the first class is stored.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def address(
        self,
        method: str,
        settings: Any,
        class_key: str,
        count: int,
        seed: int,
        device: torch.device,
        company: Sequence[Any] | None = None,
    ) -> str:
        """Hash of all that decides how one class comes out.

        Args:
            method: name of the registered condenser; with a hash of its file if it is not part of the library.
            settings: its settings dataclass (or a mapping).
            class_key: hash of the class's real images.
            count: images condensed.
            seed: of all chance.
            device: its kind counts; so does the version of PyTorch.
            company: where a class depends on those beside it, the key and the count of every class of the experience.
        """
        values = dict(settings) if isinstance(settings, Mapping) else asdict(settings)
        parts = [method, values, class_key, count, seed, torch.device(device).type]
        return content_address(ARITHMETIC, *parts, *([] if company is None else [list(company)]))

    def get(self, address: str, shape: tuple[int, ...]) -> CachedClass | None:
        """The class at an address, its images of ``shape``, or None; a damaged file counts as absent."""
        path = self._path(address)
        if not path.is_file():
            return None
        try:
            tensors, texts = read_tensors(path, ("decoding",))
            images, decoding = tensors["images"], texts.get("decoding", "none")
        except (DamagedFile, OSError, KeyError) as error:
            logger.warning("ignoring the damaged cache file %s (%s)", path, error)
            return None
        if images.is_floating_point() and not torch.isfinite(images).all():  # none was ever put
            logger.warning("ignoring the damaged cache file %s (it holds NaN or infinity)", path)
            return None
        return CachedClass(images, decoding) if tuple(images.shape) == shape else None

    def put(self, address: str, images: Tensor, decoding: str = "none") -> None:
        """Store images at an address, pixel codes as uint8 and others as float32, with the name of their decoder.

        A full or read-only disk costs a warning, not the run.
        """
        path = self._path(address)
        kind = torch.uint8 if images.dtype == torch.uint8 else torch.float32
        data = tensor_bytes({"images": images.detach().to("cpu", kind)}, {"decoding": decoding})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        except OSError as error:
            logger.warning("cannot cache condensed classes in %s: %s", self.folder, error)

    def _path(self, address: str) -> Path:
        return self.folder / address[:2] / f"{address}.safetensors"
