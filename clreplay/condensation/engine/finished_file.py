"""A finished condensation in a file, until the memory that takes it in is saved.

Between the end of a condensation and the file of its memory lie the coding of images and the writing of cached
classes. A process that is killed there leaves classes in the cache, but their record is of all of them together: from
this file it comes back as it was, with what it cost.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from clreplay.condensation.registry import Condensed
from clreplay.runtime.state_file import DAMAGED, load_state, save_state

logger = logging.getLogger(__name__)


class Finished(NamedTuple):
    """What was made, and the seconds that all processes together took."""

    condensed: Condensed
    seconds: float


def save_finished(keep: Path, identity: str, finished: Finished) -> None:
    """Write it beside the file of the work in progress; a full disk costs a warning: nothing is lost yet."""
    condensed, path = finished.condensed, _path(keep)
    content = {
        "what": identity,
        "images": {label: images.detach().cpu() for label, images in condensed.images.items()},
        "record": condensed.record,
        "chosen": condensed.chosen,
        "decoding": condensed.decoding,
        "seconds": finished.seconds,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_state(path, content)
    except OSError as error:
        logger.warning("cannot keep a finished condensation in %s: %s", path, error)


def load_finished(keep: Path, identity: str) -> Finished | None:
    """What is there of this very condensation; None if nothing is, or it is damaged."""
    path = _path(keep)
    if not path.is_file():
        return None
    try:
        found = load_state(path)
        if found["what"] != identity:
            return None
        condensed = Condensed(found["images"], found["record"], found["chosen"], found["decoding"])
        return Finished(condensed, float(found["seconds"]))
    except DAMAGED as error:
        logger.warning("ignoring the damaged file of a finished condensation %s (%s)", path, error)
        return None


def forget_finished(keep: Path) -> None:
    """Remove it: its memory is saved."""
    _path(keep).unlink(missing_ok=True)


def _path(keep: Path) -> Path:
    return keep.with_name(f"{keep.name}.finished")
