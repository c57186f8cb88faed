"""The process that reads a MATLAB file for :mod:`clreplay.data.readers.matlab`; it may crash without harm.

It is run as a script and imports nothing of clreplay. Arguments: bytes of memory, seconds, variable, fields; the file
comes from standard input, rows go to standard output as JSON.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any


def main(memory: int, seconds: int, name: str, fields: list[str]) -> int:
    """Read and print; 1 if the file cannot be read."""
    from scipy.io import loadmat  # before the limits: libraries take room of their own

    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with open("/proc/self/statm", encoding="utf-8") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    except (ImportError, OSError, ValueError):
        pass  # not every system has limits; the seconds hold everywhere
    try:
        content: Any = io.BytesIO(sys.stdin.buffer.read())
        elements = loadmat(content, squeeze_me=True, variable_names=[name])[name]
        rows = [[_plain(element[field]) for field in fields] for element in elements]
    except BaseException as error:  # SciPy raises many kinds on damaged bytes
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows))
    return 0


def _plain(value: object) -> object:
    text = getattr(value, "item", lambda: value)()
    if not isinstance(text, (str, int, float)):
        raise TypeError(f"a field is neither a number nor a text: {type(text).__name__}")
    return text


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
