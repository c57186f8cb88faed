"""``clreplay report RUN ...``: one page about a run, or about several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from clreplay.command.base import dataset_words, works


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), metavar="FILE",
    help="the page (default: report.html, in the run's folder where there is one run)",
)  # fmt: skip
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=dataset_words,
    help="where the real images are, such as folder:PATH@64 (default: the run's)",
)  # noqa: E501
@click.option("--data-root", metavar="DIR", help="where data sets are looked for; none is downloaded")
@works(goes_on=False)
def command(runs: tuple[Path, ...], out: Path | None, dataset: str | None, data_root: str | None) -> int:
    """Write one self-contained HTML page about the RUNs, folders that a class-incremental run has left.

    \b
      clreplay report out/digits-5step-random-ddm-cpu
      clreplay report out/first out/second -o both.html
    """
    from clreplay.data.load import dataset_name, load_dataset
    from clreplay.incremental.report_page import FILE, reported
    from clreplay.report import write_report

    data = None if dataset is None else load_dataset(dataset_name(dataset), data_root, download=False)
    path = out or (runs[0] / FILE if len(runs) == 1 else Path(FILE))
    names = [run.resolve().name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two runs are called {twice[0]}; rename a folder, lines are told apart by its name")
    found = [reported(run, data, data_root) for run in runs]
    write_report(found, path)
    click.echo(f"Report: {path}")
    return 0
