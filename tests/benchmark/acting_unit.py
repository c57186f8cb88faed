"""Units for the tests of executors and clusters; other processes cannot import from a test file."""

import os
import signal
import sys
from dataclasses import dataclass

from clreplay.benchmark.rows import Finished
from clreplay.benchmark.units import Unit


@dataclass(frozen=True, eq=False)
class Act(Unit):
    """A unit that does what it is told to, once or always."""

    what: str
    number: int = 0
    counter: str = ""
    kind = "network"
    needs = None

    @property
    def identities(self):
        return {f"{self.what}{self.number}": {}}

    def summary(self):
        return self.what

    def run(self, place, images=None, progress=None):
        if self.counter:
            with open(self.counter, "a", encoding="utf-8") as file:
                file.write(".")
        if self.what == "die":
            os._exit(9)
        if self.what == "bad":
            raise ValueError("this is wrong\nand more")
        if self.what == "full":
            raise RuntimeError("out of memory")
        if self.what == "passing" and os.path.getsize(self.counter) < 2:
            raise RuntimeError("try again")
        return Finished("digits", f"{self.what}{self.number}", 10)


@dataclass(frozen=True, eq=False)
class Odd(Unit):
    """A unit that does what its name says."""

    what: str
    kind = "network"
    needs = "a set"
    identities = {"odd": {}}  # noqa: RUF012

    def summary(self):
        return self.what

    def run(self, place, images=None, progress=None):
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "leave":
            sys.exit(3)
        return Finished("digits", f"{self.what} {os.environ.get('CUDA_VISIBLE_DEVICES')} {sorted(images or {})}", 10)
