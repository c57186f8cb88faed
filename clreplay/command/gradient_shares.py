"""How strongly each term of a memory's loss pulls at the images, beside mean matching: a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

from clreplay.runtime.command_line import exit_code, started_as

DESCRIPTION = """How strongly each term of a memory's loss pulls at the images at first, beside mean matching.

    %(prog)s --memory ddm dm+sm-second --width 32 128
    %(prog)s --memory dm+patch --dataset digits --ipc 1 10 --width 16

A row is a term of a memory at one width and number of images a class: the length of its weighted gradient over that
of mean matching, mean and standard deviation over networks and classes, and the cosine between the two. Weights are
made for the paper's width; use this to choose them for another.
"""


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/gradient_shares.py``."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("--memory", nargs="+", default=["ddm"], metavar="NAME", help="memories that match distributions, or recipes")
    add("--dataset", default="cifar10", metavar="NAME", help="default: cifar10")
    add("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)")
    add("--ipc", nargs="+", type=int, default=[10], metavar="N", help="images a class (default: 10)")
    add("--width", nargs="+", type=int, default=[128], metavar="N", help="of the network (default: 128)")
    add("--classes", type=int, default=3, metavar="N", help="the first so many classes (default: 3)")
    add("--networks", type=int, default=3, metavar="N", help="random networks (default: 3)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides", help="change a setting")
    add("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    add("--out", metavar="FILE", help="also write every row, by network and class, as CSV")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Measure and print; 2 for a user's error, printed in one line."""
    options = parser(program).parse_args(argv)
    return exit_code(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> int:
    import pandas as pd

    from clreplay.condensation import RealImages
    from clreplay.condensation.matching.gradient_shares import gradient_shares
    from clreplay.data import load_dataset
    from clreplay.recipes.overrides import parse_set, split_overrides
    from clreplay.recipes.recipe import load_recipe
    from clreplay.runtime.device import default_device

    device = default_device(None if options.device == "auto" else options.device)
    data = load_dataset(options.dataset, options.data_root)
    part = data.train.of_classes(list(range(min(options.classes, data.num_classes))))
    real = RealImages(part.images, part.labels, data.normalization)
    recipes, found = [load_recipe(name) for name in options.memory], []
    _, overrides = split_overrides(parse_set(options.overrides), recipes)
    for recipe, width, count in product(recipes, options.width, options.ipc):
        mine = {**overrides[recipe.name], "width": width}
        settings = recipe.settings("paper", mine, options.dataset, count)
        counts = dict.fromkeys(real.classes, count)
        rows = gradient_shares(real, counts, settings, device=device, networks=options.networks)
        found.append(rows.assign(memory=recipe.name, width=width, images_per_class=count))
    rows = pd.concat(found)
    if options.out:
        rows.to_csv(options.out, index=False)
    groups = rows.groupby(["memory", "width", "images_per_class", "term", "weight"], sort=False)
    table = groups.agg(share=("share", "mean"), spread=("share", "std"), cosine=("cosine", "mean")).round(3)
    print(table.reset_index().to_string(index=False))
    return 0
