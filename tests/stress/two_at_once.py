"""Starts the same command twice in one folder: ``python tests/stress/two_at_once.py --times 10``.

Of two class-incremental runs the second is told that the first works there; two runs of a static table share the work.
After both the same command must find everything done, and what was made must be what one alone makes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dying import begin, run
from kill_resume import SCRIPTS, prepare

TOLD = "works in"
"""What the second of two runs in a folder is told."""


@dataclass
class Collisions:
    """What was counted."""

    times: int = 0
    told: int = 0
    failed: int = 0
    different: int = 0


def collide(times: int, seed: int = 0, say: Callable[[str], None] = print) -> Collisions:
    """Start two at once so many times."""
    figures, chance = Collisions(), random.Random(seed)
    scripts = [script for script in SCRIPTS if script.name != "plugin script"]  # its folder is the user's own affair
    with tempfile.TemporaryDirectory(prefix="two-") as name:
        place = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        wanted = {}
        for number in range(times):
            script = scripts[number % len(scripts)]
            out, cache = place / f"out {number}", place / f"cache {number}"
            words = script.words(out, cache)
            if script.name not in wanted:
                run(script.words(place / "whole", cache), (), place / "log")
                wanted[script.name] = script.made(place / "whole")
                shutil.rmtree(place / "whole")
                shutil.rmtree(cache, ignore_errors=True)
            logs = [place / f"first {number}", place / f"second {number}"]
            first = begin(words, (), logs[0])
            time.sleep(chance.choice((0.0, 0.02, 0.2, 0.5)))
            endings = [first, begin(words, (), logs[1])]
            codes = [one.wait().code for one in endings]
            told = sum(TOLD in log.read_text(encoding="utf-8") for log in logs)
            again = run(words, (), place / f"third {number}").code
            figures.times += 1
            figures.told += told
            if again or 0 not in codes or any(code and TOLD not in log.read_text() for code, log in zip(codes, logs)):
                figures.failed += 1
                say(f"{script.name}: exit codes {codes}, then {again}")
            elif script.made(out) != wanted[script.name]:
                figures.different += 1
                say(f"{script.name}: what two made is different")
            shutil.rmtree(out)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prepare()
    found = collide(options.times, options.seed)
    print(f"two at once: {found.times}, told: {found.told}, failed: {found.failed}, bytes different: {found.different}")
    return 1 if found.failed or found.different else 0


if __name__ == "__main__":
    sys.exit(main())
