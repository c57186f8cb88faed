"""``clreplay condense``: a data set into a memory, one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from clreplay.command.base import SettingsCommand, common_options, dataset_words, memory_option, works


class _Quality(click.ParamType):  # type: ignore[type-arg]  # generic in some versions only
    name = "quality"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """``auto`` or a number."""
        if value == "auto" or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        if not str(value).isdigit():
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return int(value)


def _count(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, type=int, metavar="N", help=text)


@click.command("condense", cls=SettingsCommand)
@click.argument("dataset", shell_complete=dataset_words)
@click.option(
    "--out", "-o", default="memory.safetensors", metavar="FILE", help="the memory (default: memory.safetensors)"
)
@memory_option("ddm")
@_count("--images-per-class", "images kept of every class (default: 20; 5 for digits)")
@_count("--mem-size", "total budget in images instead")
@_count("--bytes-per-class", "budget in bytes of every class instead, all that is stored")
@_count("--mem-bytes", "total budget in bytes instead")
@click.option(
    "--store",
    default="uint8",
    metavar="NAME",
    help="how images are kept: uint8, float32 (condensed ones), 4bit, 2bit, png, jpeg, webp, avif (default: uint8)",
)
@click.option(
    "--quality", type=_Quality(), metavar="N", help="of jpeg, webp or avif; auto: the highest at which all fit"
)
@_count("--pixels", "keep images at N x N pixels and enlarge them again to be trained on")
@common_options("the memory, such as iterations=500")
@click.option("--cache", metavar="DIR", help="where condensed classes are kept (default: ~/.cache/clreplay)")
@click.option("--no-cache", is_flag=True, help="condense everything anew and keep nothing for other runs")
@click.option("--force", is_flag=True, help="replace a file that is there")
@works(goes_on=True)
def command(**options: Any) -> int:
    """Condense all classes of DATASET into a memory, one file.

    DATASET is a name (digits, cifar10, tinyimagenet, ...), or a folder or archive of your own with train/ and test/
    (or val/), each with a folder a class: my/plants, or my/plants@32 to resize its images to 32 x 32. Killed or
    stopped, the same command goes on.

    \b
      clreplay condense digits --memory dm --images-per-class 3 --preset smoke
      clreplay condense my/plants@64 --store avif --mem-bytes 100000 -o plants.safetensors
    """
    from clreplay.data.load import dataset_name
    from clreplay.incremental.one_memory import MemoryFile
    from clreplay.incremental.settings import ContinualSettings
    from clreplay.recipes.overrides import parse_set
    from clreplay.runtime.files import user_cache
    from clreplay.runtime.progress import Reporter

    budgets = {name: options[name] for name in ("images_per_class", "mem_size", "bytes_per_class", "mem_bytes")}
    if not any(value is not None for value in budgets.values()) and options["dataset"] == "digits":
        budgets["images_per_class"] = 5
    settings = ContinualSettings(
        dataset=dataset_name(options["dataset"]),
        memories=(options["memory"],),
        **budgets,
        store=options["store"],
        quality=options["quality"],
        pixels=options["pixels"],
        preset=None if options["preset"] == "auto" else options["preset"],
        device=None if options["device"] == "auto" else options["device"],
        seed=options["seed"],
        channels=None if options["channels"] is None else int(options["channels"]),
        data_root=options["data_root"],
        cache=None if options["no_cache"] else options["cache"] or user_cache(),
        overrides=parse_set(options["overrides"]),
    )
    made = MemoryFile.planned(settings, options["out"], options["force"])
    reporter = Reporter(None if options["quiet"] else click.echo)
    made.make(reporter)
    reporter.line(f"Score it: clreplay evaluate {options['out']} --dataset {options['dataset']}")
    return 0
