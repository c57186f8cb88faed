"""The command line of the static tables; it only parses, the modules beside it work."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clreplay.benchmark.published import TITLES
from clreplay.runtime.command_line import exit_code, signals_as_ctrl_c, started_as
from clreplay.runtime.progress import counted

DESCRIPTION = """Measure the cells of the DDM paper's static tables and set them beside the published numbers.

    %(prog)s --table 1 --dataset cifar10 --ipc 10 --method dm ddm
    %(prog)s --table 1 --status
    %(prog)s --table 8 --dataset digits --ipc 5 --preset smoke

Every finished piece is kept in DIR/store.sqlite: the same command goes on where it was stopped. Presets: paper (the
paper's settings, five condensed sets, twenty networks on each: a GPU), cpu (narrow and short, not the paper's
accuracy), smoke (seconds, a minute or more for large networks; accuracies mean nothing).
"""
SECONDS_BETWEEN_TABLES = 60.0
"""Tables of what is there so far are written no more often than this."""


def parser(add_help: bool = True, program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/static_tables.py``; without ``-h`` they may be those of another script as well."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program),
        description=DESCRIPTION,
        epilog="tables:\n" + "\n".join(f"  {name:<6} {title}" for name, title in TITLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
    )
    add = arguments.add_argument
    add("--table", nargs="+", metavar="NAME", default=[], help=f"{', '.join(TITLES)}, or all")
    add("--dataset", nargs="+", default=[], metavar="NAME", help="only these; others than the table's have no number")
    add("--ipc", nargs="+", type=int, default=[], metavar="N", help="only these numbers of images a class")
    add("--method", nargs="+", default=[], metavar="NAME", help="only these: memories, .yaml recipes, or whole")
    add("--train-network", nargs="+", default=[], metavar="NAME", help="only cells condensed with these")
    add("--test-network", nargs="+", default=[], metavar="NAME", help="only cells tested on these")
    add("--sets", type=int, metavar="N", help="condensed sets of every method (default: 5; fewer in small presets)")
    add("--networks", type=int, metavar="N", help="networks trained on each (default: 20; fewer in small presets)")
    add("--preset", choices=("auto", "paper", "cpu", "smoke"), default="auto", help="auto: paper on a GPU, cpu else")
    add("--protocol", default="common", metavar="NAME", help="common (default), authors or idc; see docs/tables.md")
    add(
        "--store",
        default="float32",
        metavar="STORE",
        help="how images are held for training: float32 (condensed ones, the default), or as a memory would keep them: "
        "uint8, 4bit, avif, avif:30, avif:16px, ...",
    )
    add(
        "--architectures",
        type=int,
        metavar="N",
        help="of the 720 of table 7 (default: all; 40 with preset cpu, 3 with smoke)",
    )
    add(
        "--held-out", type=float, default=0.0, metavar="SHARE", help="of the training images, to choose by (default: 0)"
    )
    add("--seed", type=int, default=0, help="of all chance (default: 0)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides", help="change a setting")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--jobs", type=int, metavar="N", help="units of work at a time (default: 1; on a cluster one a GPU, or a core)")
    add("--cluster", metavar="WHERE", help="a Ray cluster: auto (the one here), local (a new one), or its address")
    add("--shards", type=int, metavar="N", help="parts in which a set is condensed (default: to fill all jobs)")
    add("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)")
    add("--out", metavar="DIR", default="out/static_tables", help="folder of results (default: out/static_tables)")
    add("--merge", nargs="+", default=[], metavar="FILE", help="first take in what other stores hold")
    add("--sets-to", metavar="DIR", help="also write the sets that are finished as memory files into a folder")
    add("--status", action="store_true", help="only say what is done, missing and failed; needs no data")
    add("--render", action="store_true", help="only render what is there; needs no data")
    add("--show", metavar="HASH", help="only say which settings a hash in a rendered table stands for")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Parse and run.

    Args:
        argv: arguments; None takes the process's.
        program: how it was started, where that is not a script of its own.

    Returns:
        0; 1 if cells failed (their reasons are listed); 2 for a user's error, printed in one line; 130 for Ctrl-C, and
        128 + n for signal n, after condensations under way were saved.
    """
    options = parser(program=program).parse_args(argv)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from clreplay.benchmark.cells import SEARCH
    from clreplay.benchmark.executors import JoblibExecutor
    from clreplay.runtime.device import default_device
    from clreplay.runtime.progress import Reporter

    if options.show:
        return _show(Path(options.out) / "store.sqlite", options.show)
    tables = _names(options)
    if not tables and not options.merge:
        raise ValueError(f"--table must name one of {', '.join(TITLES)} (or all)")
    if options.architectures is not None and SEARCH not in tables:
        raise ValueError(f"--architectures belongs to table {SEARCH}; leave it out")
    if not tables or options.status or options.render:
        # Looking must work where measuring does not: the device only names the preset then.
        device = options.device if options.device != "auto" else str(default_device())
        return _tables(options, device, None, Reporter())
    if options.cluster is None:
        reporter = Reporter()
        executor = JoblibExecutor(1 if options.jobs is None else options.jobs, lambda unit: _progress(reporter, unit))
        return _tables(options, str(default_device(_auto(options.device))), executor, reporter)
    from clreplay.benchmark.cluster import RayExecutor, connected, has_gpus

    if options.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda on a cluster, which chooses GPUs, got {options.device!r}")
    with connected(options.cluster), signals_as_ctrl_c(over=True):  # Ray has a handler of its own
        device = options.device if options.device != "auto" else "cuda" if has_gpus() else "cpu"
        reporter, cluster = Reporter(), RayExecutor(device, options.jobs)
        reporter.line(f"Ray cluster: {cluster.share.summary()}")
        return _tables(options, device, cluster, reporter)


def _tables(options: argparse.Namespace, device: str, executor: Any, reporter: Any) -> int:
    """Show, or with an executor measure, all tables."""
    from clreplay.benchmark.plan import plan
    from clreplay.benchmark.store import Store

    grids = table_requests(options, device, reporter.line)
    plans = [plan(grid) for grid in grids]
    store = Store(Path(options.out) / "store.sqlite")
    for other in options.merge:
        reporter.line(f"merged {other}: {counted(store.merge(other), 'new unit')}")
    failed = 0
    for grid, planned in zip(grids, plans):
        if options.status:
            _status(grid, planned, store, options.jobs or 1)
        else:
            failed += _table(grid, planned, store, device, options, executor, reporter)
    return 1 if failed else 0


def _show(path: Path, name: str) -> int:
    import yaml

    from clreplay.benchmark.store import Store

    print(yaml.safe_dump(Store(path).settings_of(name), sort_keys=False), end="")
    return 0


def _status(grid: Any, planned: Any, store: Any, jobs: int) -> None:
    from clreplay.benchmark.status import status_lines

    print(f"{TITLES[grid.table]}; preset {grid.preset}, protocol {grid.protocol}; {store.path}")
    for text in status_lines(planned, store.read(), jobs):
        print(text)


def _table(
    grid: Any, planned: Any, store: Any, device: str, options: argparse.Namespace, executor: Any, reporter: Any
) -> int:
    """Measure (unless only rendering is requested) and render one table; the number of cells that failed."""
    from clreplay.benchmark.page import Page
    from clreplay.benchmark.results import FAILED, lines_of
    from clreplay.benchmark.run import BenchmarkRun
    from clreplay.benchmark.sets import Place
    from clreplay.benchmark.sets_out import given_out
    from clreplay.benchmark.status import status_line
    from clreplay.runtime.provenance import commit

    out, page = Path(options.out), Page(grid, planned)
    if executor is not None:
        reporter.line(f"{TITLES[grid.table]}; preset {grid.preset}, protocol {grid.protocol}, device {device}")
        place = Place(device, options.data_root, str(out / "work"), commit())
        measuring = BenchmarkRun(planned, store, executor, place, reporter, options.shards)
        written = time.monotonic()
        for block in measuring.run():
            for line in block:
                reporter.line(f"  {status_line(line)}")
            if time.monotonic() - written > SECONDS_BETWEEN_TABLES:  # to look at while the rest is measured
                page.write(store.read(), out)
                written = time.monotonic()
        if measuring.tally.elsewhere:
            count = len(measuring.tally.elsewhere)
            are = "is" if count == 1 else "are"
            reporter.line(
                f"  {counted(count, 'unit')} {are} under way in another process; the same command takes up the rest"
            )
    contents = store.read()
    for path in page.write(contents, out):
        reporter.line(f"  wrote {path}")
    failed = [line for line in lines_of(planned, contents) if line.state == FAILED]
    if failed:
        reporter.line(f"  {counted(len(failed), 'cell')} failed; their reasons are above and below the table")
    if options.sets_to:
        for path in given_out(planned, store, Path(options.sets_to), options.data_root):
            reporter.line(f"  wrote {path}")
    return 0 if options.render else len(failed)


@contextmanager
def _progress(reporter: Any, unit: Any) -> Iterator[Any]:
    with reporter.task(unit.summary()) as task:
        yield task


def table_requests(options: argparse.Namespace, device: str, say: Callable[[str], None]) -> list[Any]:
    """The request of every table that has a part of what the flags ask for.

    Args:
        options: parsed by :func:`parser`.
        device: it chooses the preset where the flags do not.
        say: called with a sentence on everything that is left out.

    Raises:
        ValueError: a name is unknown, or a setting that nothing has is changed.
    """
    return [_grid(options, request, device) for request in _requests(_names(options), options, say)]


def _names(options: argparse.Namespace) -> list[str]:
    return list(TITLES) if options.table == ["all"] else options.table


def _requests(tables: Sequence[str], options: argparse.Namespace, say: Callable[[str], None]) -> list[Any]:
    """The request of every table that has a part of it."""
    from clreplay.benchmark.request import CellFilter, split_request
    from clreplay.data import DATASETS

    for table in tables:
        if table not in TITLES:
            raise ValueError(f"--table must be among {', '.join(TITLES)} (or all), got {table!r}")
    if not tables:
        return []
    names = (options.dataset, options.method, options.train_network, options.test_network)
    requests = [CellFilter(table, *map(tuple, names)) for table in tables]
    taken, skipped = split_request(requests, options.protocol, tuple(DATASETS))
    for text in skipped:
        say(text)
    return taken


def _grid(options: argparse.Namespace, request: Any, device: str) -> Any:
    from clreplay.benchmark.cells import SEARCH
    from clreplay.benchmark.request import TableRequest
    from clreplay.recipes.overrides import parse_set
    from clreplay.recipes.presets import default_preset

    preset = options.preset
    if preset == "auto":
        preset = default_preset(device)
    return TableRequest(
        **vars(request),
        images_per_class=tuple(options.ipc),
        sets=options.sets,
        networks=options.networks,
        preset=preset,
        overrides=parse_set(options.overrides),
        protocol=options.protocol,
        store=options.store,
        seed=options.seed,
        held_out=options.held_out,
        architectures=options.architectures if request.table == SEARCH else None,
    )


def _auto(device: str) -> str | None:
    return None if device == "auto" else device
