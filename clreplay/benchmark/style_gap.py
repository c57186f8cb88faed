"""How far the style of the tables' sets is from that of real images: the command line and its work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clreplay.benchmark.cli import parser as table_parser
from clreplay.benchmark.cli import table_requests
from clreplay.runtime.command_line import exit_code, started_as

if TYPE_CHECKING:
    import torch

    from clreplay.benchmark.sets import SetSpec
    from clreplay.benchmark.store import Store

DESCRIPTION = """How far the style of condensed sets is from real images: contrast, colour, texture, in random networks.

    %(prog)s --table 1 --dataset cifar10 --ipc 10 --method dm ddm --preset cpu

Takes the flags with which the static tables measured the sets, reads them from its store, and prints a line a
method: the standard deviation of the pixels beside the real one, and by layer the relative gaps of channel means,
standard deviations and Gram matrices (0 is alike) and the ratio of standard deviations (above 1: more contrast than
real images), read before the norm. Means over sets, classes and networks.
"""
REAL = 500
"""Real images of a class at most."""
GAPS = ["mean_gap", "std_gap", "gram_gap", "std_ratio"]


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/style_gap.py``: those of the tables, and its own."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program),
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[table_parser(add_help=False)],
        conflict_handler="resolve",
    )
    arguments.add_argument("--draws", type=int, default=5, metavar="N", help="random networks (default: 5)")
    arguments.add_argument("--csv", metavar="FILE", help="also write the table as CSV, every set a line of its own")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Measure and print; 2 for a user's error, printed in one line."""
    options = parser(program).parse_args(argv)
    return exit_code(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> int:
    import pandas as pd

    from clreplay.benchmark.plan import plan
    from clreplay.benchmark.store import Store
    from clreplay.runtime.device import default_device

    device = default_device(None if options.device == "auto" else options.device)
    store = Store(Path(options.out) / "store.sqlite")
    contents, found = store.read(), []
    for request in table_requests(options, str(device), print):
        for cell in plan(request):
            for spec in cell.specs:
                if spec.key in contents.sets:
                    what = {"dataset": spec.dataset, "images_per_class": spec.images_per_class}
                    row = {**what, "method": cell.cell.recipe, "set": spec.key[:12]}
                    found.append({**row, **_of_set(store, spec, options, device)})
    if not found:
        raise ValueError(f"{store.path} holds none of these sets; measure them with the static tables first")
    table = pd.DataFrame(found).drop_duplicates()
    if options.csv:
        table.round(5).to_csv(options.csv, index=False)
    shown = table.drop(columns="set").groupby(["dataset", "images_per_class", "method"], sort=False).mean()
    print(shown.round(3).T.to_string())
    return 0


def _of_set(store: Store, spec: SetSpec, options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    import torch

    from clreplay.analysis.style import style_gap
    from clreplay.benchmark.datasets import load_cached
    from clreplay.benchmark.sets import from_bytes
    from clreplay.networks.settings import NetworkSettings

    loaded = load_cached(spec.dataset, options.data_root)
    memory = from_bytes(store.images(spec.key), loaded.set, options.store)
    images = {label: memory.images[memory.labels == label] for label in memory.labels.unique().tolist()}
    real = {label: loaded.real.normalised(label)[:REAL] for label in images}
    width = spec.settings.get("width", NetworkSettings.width)
    gaps = style_gap(images, real, NetworkSettings(width=width), networks=options.draws, device=device)
    by_layer = gaps.groupby("layer")[GAPS].mean()
    stds = {name: torch.cat(list(some.values())).std().item() for name, some in (("pixels", images), ("real", real))}
    layers = {f"layer{layer}_{name}": by_layer.loc[layer, name] for layer in by_layer.index for name in GAPS}
    return {"image_std": stds["pixels"], "real_image_std": stds["real"], **layers}
