"""A condensation in progress in a file: saved now and then and when interrupted, gone on from, removed at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clreplay.condensation.engine.finished_file import DAMAGED
from clreplay.runtime.files import replacing

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_SAVES = 180.0


class UnderWay(NamedTuple):
    """A condensation in a file: its state on the CPU, and the seconds that were spent on what the state holds."""

    state: dict[str, Any]
    seconds: float


@contextmanager
def saving(
    path: Path | None, identity: str, state: Callable[[], dict[str, Any]], before: float = 0.0
) -> Iterator[Callable[[], None]]:
    """Keep the state of the work in the block in a file; call what is given after every piece of work.

    The call saves every few minutes. Ctrl-C saves too. ``state`` must therefore be of between two pieces of
    work at any moment, also in the middle of one. The file is removed once the block is through.

    Args:
        path: the file; None keeps nothing.
        identity: names this very condensation, see :func:`load_progress`.
        state: gives a dictionary of plain values and tensors.
        before: seconds that processes before this one spent on it.
    """
    began = saved = time.monotonic()

    def save_if_due() -> None:
        nonlocal saved
        if path is not None and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            _save(path, identity, state(), before + time.monotonic() - began)
            saved = time.monotonic()

    try:
        yield save_if_due
    except KeyboardInterrupt:
        if path is not None:
            _save(path, identity, state(), before + time.monotonic() - began)
        raise
    if path is not None:
        path.unlink(missing_ok=True)


def load_progress(path: Path | None, identity: str) -> UnderWay | None:
    """What is in the file; None if there is no file or it is of another condensation.

    Raises:
        ValueError: the file is truncated or something else.
    """
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["what"] == identity:
            return UnderWay(content["state"], float(content.get("seconds", 0.0)))
    except DAMAGED as error:
        raise ValueError(f"{path} is truncated or not a condensation in progress; delete it to start anew") from error
    logger.warning("%s is of another condensation; starting anew", path)
    return None


def _save(path: Path, identity: str, state: dict[str, Any], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        torch.save({"what": identity, "state": state, "seconds": seconds}, partial)
