#!/usr/bin/env python
"""Does a long stream stay cheap? Seconds a step and resident memory over many experiences, on synthetic pictures.

    python runs/streams.py --experiences 60 200 --memory random dm
    python runs/streams.py --experiences 200 --memory dm --stream returning

Every experience brings pictures of two classes, 32 x 32, grey, 40 a class: of two new ones, or, with ``returning``, of
two out of ten, drawn with another brightness each time. A buffer of 400 images condenses them and a small network is
trained on batches of new and remembered pictures. A row is a fifth of a stream: the mean over its experiences.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor

from clreplay import ConvNet, ReplayBuffer
from clreplay.data import Normalization
from clreplay.runtime.command_line import exit_code
from clreplay.runtime.device import device_name
from clreplay.runtime.provenance import provenance
from clreplay.runtime.seeding import generator

SIZE, EACH, BATCH, UPDATES, STORED = 32, 40, 32, 5, 400
QUICK = {"iterations": 10, "width": 16, "depth": 2, "real_batch": 16}
"""Of methods that iterate: what is measured is whether a step costs the same later, not how good a memory is."""


def parser() -> argparse.ArgumentParser:
    """Flags of the script."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    add("--experiences", nargs="+", type=int, default=[60, 200], metavar="N", help="lengths of streams (60 200)")
    add("--memory", nargs="+", default=["random", "dm"], metavar="NAME", help="memories (default: random dm)")
    add("--stream", choices=("new", "returning"), default="new", help="two new classes a step, or two of ten")
    add("--out", metavar="FILE", help="write the rows as CSV, too")
    return arguments


def stream(kind: str, experiences: int) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 pictures (n, 1, 32, 32) and labels (n,) of every experience."""
    for step in range(experiences):
        labels = [2 * step, 2 * step + 1] if kind == "new" else [2 * step % 10, 2 * step % 10 + 1]
        images = []
        for label in labels:
            figure = torch.rand(1, 1, SIZE, SIZE, generator=generator("figure", label)) * 128
            noise = torch.rand(EACH, 1, SIZE, SIZE, generator=generator("noise", label, step)) * 100
            images.append((figure + noise + step % 20).to(torch.uint8))
        yield torch.cat(images), torch.tensor(labels).repeat_interleave(EACH)


def resident() -> float:
    """Resident memory of this process in MB, as Linux tells it."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def measure(memory: str, kind: str, experiences: int) -> pd.DataFrame:
    """A row an experience."""
    settings = QUICK if memory not in ("random", "herding", "kmeans") else {}
    size = max(STORED, 2 * experiences)
    buffer = ReplayBuffer(
        memory, mem_size=size, preset="smoke", normalization=Normalization((0.5,), (0.25,)), device="cpu", **settings
    )
    network = ConvNet(2 * experiences if kind == "new" else 10, channels=1, image_size=SIZE, width=16, depth=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    rows = []
    for step, (images, labels) in enumerate(stream(kind, experiences)):
        begin = time.perf_counter()
        for update in range(UPDATES):
            part = torch.randperm(len(labels), generator=generator("batch", step, update))[:BATCH]
            shown, of = (images[part] / 255 - 0.5) / 0.25, labels[part]
            if not buffer.is_empty():
                shown, of = map(torch.cat, zip((shown, of), buffer.sample(BATCH)))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(shown), of).backward()
            optimizer.step()
        trained = time.perf_counter()
        buffer.observe(images, labels)
        buffer.consolidate()
        seconds = {"train_seconds": trained - begin, "condense_seconds": time.perf_counter() - trained}
        rows.append(
            {"step": step + 1, "classes": len(buffer.classes), "stored": len(buffer), **seconds, "mb": resident()}
        )
    return pd.DataFrame(rows)


def main() -> int:
    """Measure and print."""
    options = parser().parse_args()
    if min(options.experiences) < 5:
        raise ValueError(f"--experiences must be at least 5, got {min(options.experiences)}")
    torch.set_num_threads(1)
    found = []
    for memory in options.memory:
        for experiences in options.experiences:
            rows = measure(memory, options.stream, experiences)
            part = (rows.step - 1) * 5 // experiences
            fifths = rows.groupby(part).agg(
                steps=("step", "max"),
                classes=("classes", "max"),
                stored=("stored", "max"),
                train_seconds=("train_seconds", "mean"),
                condense_seconds=("condense_seconds", "mean"),
                mb=("mb", "max"),
            )
            fifths.insert(0, "experiences", experiences)
            fifths.insert(0, "memory", memory)
            found.append(fifths)
    table = pd.concat(found, ignore_index=True)
    about = provenance(device_name(torch.device("cpu"), threads=True))
    where = f"{about['commit']}, {about['device_name']}, torch {about['versions']['torch']}"
    print(f"{options.stream} classes; commit {where}")
    print(
        table.to_string(
            index=False,
            formatters=dict.fromkeys(["train_seconds", "condense_seconds"], "{:.3f}".format) | {"mb": "{:.0f}".format},
        )
    )
    if options.out:
        table.to_csv(options.out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
