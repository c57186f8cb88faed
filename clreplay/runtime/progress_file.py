"""Work in progress in a file: saved now and then and when interrupted, gone on from, removed at the end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clreplay.runtime.state_file import DAMAGED, load_state, save_state

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_SAVES = 60.0
"""What a process that is killed loses at most; ``$CLREPLAY_SAVE_SECONDS`` changes it."""


class UnderWay(NamedTuple):
    """Work in a file: its state on the CPU, and the seconds that were spent on what the state holds."""

    state: dict[str, Any]
    seconds: float


def seconds_between_saves() -> float:
    """``$CLREPLAY_SAVE_SECONDS``, or :data:`SECONDS_BETWEEN_SAVES`.

    Raises:
        ValueError: it is no number of seconds.
    """
    text = os.environ.get("CLREPLAY_SAVE_SECONDS")
    if not text:
        return SECONDS_BETWEEN_SAVES
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"CLREPLAY_SAVE_SECONDS must be a number of seconds of at least 0, got {text!r}")
    return seconds


@contextmanager
def saving(
    path: Path | None,
    identity: str,
    state: Callable[[], dict[str, Any] | None],
    before: float = 0.0,
    keep_finished: bool = False,
) -> Iterator[Callable[[], None]]:
    """Keep the state of the work in the block in a file; call what is given after every piece of work.

    The call saves once a minute (:func:`seconds_between_saves`). Whatever ends the block early saves too: Ctrl-C, a
    signal that is taken like it, an error. ``state`` must therefore be of between two pieces of work at any moment,
    also in the middle of one, or None where it is not: then the file stays as it was. It is removed once the block is
    through. A disk that cannot take the state costs a warning, not the work.

    Args:
        path: the file; None keeps nothing.
        identity: names this very work, see :func:`load_progress`.
        state: gives a dictionary of plain values and tensors.
        before: seconds that processes before this one spent on it.
        keep_finished: save the last state too and leave the file; the caller removes it when what came of the work is
            in a safe place.
    """
    began = saved = time.monotonic()
    between = seconds_between_saves()
    if path is not None:
        _make_folder(path)  # now only: if somebody removes it later, it is not for us to make a part of it again

    def save() -> None:
        if path is not None and (now := state()) is not None:
            _save(path, identity, now, before + time.monotonic() - began)

    def save_if_due() -> None:
        nonlocal saved
        if time.monotonic() - saved > between:
            save()
            saved = time.monotonic()

    try:
        yield save_if_due
    except BaseException:
        save()
        raise
    if keep_finished:
        save()
    elif path is not None:
        path.unlink(missing_ok=True)


def load_progress(path: Path | None, identity: str) -> UnderWay | None:
    """What is in the file; None if there is no file, it is damaged, or of other work.

    An autosave is there to save time: a damaged one costs that time and a warning, and never stops a run.
    """
    if path is None or not path.is_file():
        return None
    try:
        content = load_state(path)
        what, state, seconds = content["what"], content["state"], float(content.get("seconds", 0.0))
        if not isinstance(state, dict):
            raise ValueError("its state is none")
    except DAMAGED as error:
        logger.warning("starting anew, because the work in progress %s is damaged (%s)", path, error)
        return None
    if what != identity:
        logger.warning("%s is of other work; starting anew", path)
        return None
    return UnderWay(state, seconds)


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("work in progress cannot be kept in %s: %s", path.parent, error)


def _save(path: Path, identity: str, state: dict[str, Any], seconds: float) -> None:
    try:
        save_state(path, {"what": identity, "state": state, "seconds": seconds})
    except OSError as error:
        logger.warning("work in progress is not kept: %s", error)
