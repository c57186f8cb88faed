"""The command line of accuracy over bytes and updates; it only parses, the library works."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clreplay.incremental.cli import recorded_command
from clreplay.runtime.command_line import exit_code, started_as

DESCRIPTION = """Which memory for so many bytes, and so many minutes to retrain? Accuracy over bytes and over updates.

    %(prog)s --memory random dm --store uint8 avif --mem-bytes 307200 6144000 --updates 1500 6000
    %(prog)s --dataset digits --preset smoke --memory random dm --mem-bytes 4000 8000 --updates 20

Every combination of a memory, a store, a number of bytes and a number of updates is one run of the class-incremental
experiment (--steps 1 is the static one), in a folder of its own below --out; what is finished is not run again. Writes
rows.csv (a row a network), bytes.png and updates.png, and prints the best memory for every budget.
A store may have a quality and a size in pixels: avif:30, avif:auto, avif:16px.
"""


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/rate_accuracy.py``."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("--dataset", default="cifar100", metavar="NAME", help="(default: cifar100)")
    add("--memory", nargs="+", default=["random", "best"], metavar="NAME", help="memories (default: random best)")
    add("--store", nargs="+", default=["uint8", "avif"], metavar="STORE", help="stores (default: uint8 avif)")
    add("--mem-bytes", nargs="+", type=int, required=True, metavar="N", help="bytes of the whole memory")
    add("--updates", nargs="+", type=int, required=True, metavar="N", help="updates of the learner")
    add("--steps", type=int, default=1, help="experiences that the classes come in (default: 1, all at once)")
    add("--networks", type=int, default=3, metavar="N", help="networks a point (default: 3)")
    add("--preset", choices=("auto", "paper", "cpu", "smoke"), default="auto", help="as of the other scripts")
    add("--protocol", choices=("common", "idc"), default="common", help="how all networks are trained")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--seed", type=int, default=0, help="of all chance (default: 0)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides", help="change a setting")
    add("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)")
    add("--cache", metavar="DIR", help="where condensed classes are kept for other points (default: ~/.cache/clreplay)")
    add("--out", default="out/rate_accuracy", metavar="DIR", help="(default: out/rate_accuracy)")
    add("--render", action="store_true", help="only draw what is finished")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Measure and draw; 2 for a user's error, printed in one line."""
    arguments = parser(program)
    options = arguments.parse_args(argv)
    command = recorded_command(arguments, program or sys.argv[0], sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: _run(options, command))


def _run(options: argparse.Namespace, command: str) -> int:
    from clreplay.analysis.rates import best_within, rate_figures, summary
    from clreplay.incremental.rate_accuracy import finished, measure, points
    from clreplay.incremental.settings import ContinualSettings
    from clreplay.memory.kept import Kept
    from clreplay.recipes.overrides import parse_set
    from clreplay.runtime.files import user_cache
    from clreplay.runtime.progress import Reporter, duration, size

    for name in ("mem_bytes", "updates"):
        if min(getattr(options, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {min(getattr(options, name))}")
    out, reporter = Path(options.out), Reporter()
    common = ContinualSettings(
        dataset=options.dataset,
        steps=options.steps,
        networks=options.networks,
        preset=None if options.preset == "auto" else options.preset,
        device=None if options.device == "auto" else options.device,
        host="none",
        protocol=options.protocol,
        seed=options.seed,
        data_root=options.data_root,
        cache=Path(options.cache) if options.cache else user_cache() / "condensed",
        overrides=parse_set(options.overrides),
    )
    kept = [Kept.parse(text) for text in options.store]
    wanted = points(options.memory, kept, options.mem_bytes, options.updates)
    rows = finished(out) if options.render else measure(wanted, common, out, reporter, command)
    if not len(rows):
        reporter.line("nothing is finished")
        return 0
    learners = rows[["dataset", "steps", "protocol", "network", "width", "preset"]].drop_duplicates()
    if len(learners) > 1:
        raise ValueError(f"{out} holds points of different learners or data sets; take an --out for each")
    (one,) = learners.itertuples(index=False)
    steps = "all classes at once" if one.steps == 1 else f"{one.steps} steps, after the last"
    note = f"{one.dataset}, {steps}; {one.network} of width {one.width}, protocol {one.protocol}, preset {one.preset}"
    rate_figures(rows, out, note)
    reporter.line(note)
    for row in best_within(summary(rows)).itertuples():
        spread = "" if row.networks == 1 else f" +- {row.std:.1f}"
        said = (
            f"{row.memory} kept as {row.kept}, {row.accuracy:.1f}{spread} % ({row.images_trained_on:,} images to train "
            f"on; made in {duration(row.condense_seconds)}, trained in {duration(row.train_seconds)})"
        )
        reporter.line(f"  at most {size(row.at_most_bytes)} and {row.at_most_updates:,} updates: {said}")
    reporter.line(f"{out / 'rows.csv'}, {out / 'bytes.png'}, {out / 'updates.png'}")
    return 0
