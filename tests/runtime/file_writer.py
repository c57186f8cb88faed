"""What another process does in the tests of files; processes cannot import from a test file."""

from pathlib import Path

from clreplay.runtime.files import write_text


def write_many(path: Path, letter: str) -> None:
    for _ in range(200):
        write_text(path, letter * 5000)
