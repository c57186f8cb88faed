"""What the tests of the benchmark share; other processes cannot import from a test file, but from here they can."""

import os
import signal
import sys
from dataclasses import dataclass

from clreplay.benchmark.plan import plan
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.sets import Place
from clreplay.benchmark.store import Finished
from clreplay.benchmark.units import Unit

HERE = Place("cpu", commit="abc")
QUICK = {"train.updates": 2, "train.width": 4, "train.batch_size": 16}


def planned(*methods, table="1", ipc=(2,), **options):
    """Cells of digits at the smoke preset, with small networks."""
    options = {"sets": 1, "networks": 2, "preset": "smoke", "overrides": QUICK, **options}
    return plan(TableRequest(table, ("digits",), ipc, methods or ("random",), **options))


@dataclass(frozen=True, eq=False)
class Act(Unit):
    """A unit that does what it is told to; ``counter`` is a file with a dot for every time."""

    what: str
    number: int = 0
    counter: str = ""
    kind = "network"
    needs = "a set"

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
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "leave":
            sys.exit(3)
        if self.what == "bad":
            raise ValueError("this is wrong\nand more")
        if self.what == "full":
            raise RuntimeError("out of memory")
        if self.what == "passing" and os.path.getsize(self.counter) < 2:
            raise RuntimeError("try again")
        told = f" {os.environ.get('CUDA_VISIBLE_DEVICES')} {sorted(images)}" if images else ""
        return Finished("digits", f"{self.what}{self.number}{told}")
