"""Files are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def user_cache() -> Path:
    """``$CLREPLAY_CACHE``, or ``$XDG_CACHE_HOME/clreplay``, or ``~/.cache/clreplay``."""
    if own := os.environ.get("CLREPLAY_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clreplay"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it takes the place of ``path`` once the block is through.

    If the block fails (a full disk, Ctrl-C), what was there stays and nothing else is left behind.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file only once its new content is safely on disk (a full disk leaves the old one)."""
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def plain(value: Any) -> Any:
    """Only what YAML and JSON know: mappings, lists, text, numbers."""
    return json.loads(json.dumps(value, default=str))
