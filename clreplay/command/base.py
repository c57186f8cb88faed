"""What the sub-commands share: groups that import them when they are called, and flags as the scripts have them."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import click

from clreplay.runtime.command_line import exit_code

_SETTING = re.compile(r"[A-Za-z_][\w.+-]*=")


class LazyGroup(click.Group):
    """A group whose sub-commands stand in a table, and are imported when they are called.

    Args:
        table: by name, where the sub-command is (``module:name``) and what it does in one line.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command; None if there is none of that name."""
        if cmd_name not in self.table:
            return None
        module, name = self.table[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; an unknown one gets the nearest."""
        if args and args[0] not in self.table:
            name = args[0].replace("_", "-").removesuffix(".py")
            close = difflib.get_close_matches(name, self.table, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise click.UsageError(f"no command {args[0]!r}{hint} There are {', '.join(self.table)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


class SettingsCommand(click.Command):
    """A command whose ``--set`` takes several settings at once, as in the scripts: ``--set iterations=5 width=8``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every setting a ``--set`` of its own."""
        spread: list[str] = []
        for number, word in enumerate(args):
            follows = spread[-2:-1] == ["--set"] and _SETTING.match(word)
            spread += ["--set", word] if follows else [word]
        return super().parse_args(ctx, spread)


def works(goes_on: bool) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A sub-command's work with errors in one line, exit codes, and signals that stop it as Ctrl-C does.

    Args:
        goes_on: see :func:`clreplay.runtime.command_line.exit_code`.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def command(**options: Any) -> int:
            return exit_code(lambda: function(**options), goes_on)

        return command

    return decorate


def memory_option(default: str) -> Callable[[Any], Any]:
    """``--memory``: a recipe."""
    return click.option(
        "--memory",
        default=default,
        metavar="NAME",
        shell_complete=_memory_names,
        help=f"what to fill it with, see `clreplay memories`; or a .yaml recipe of your own (default: {default})",
    )


def dataset_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Completions of a data set: names, and folders."""
    from clreplay.data import DATASETS

    names = [click.shell_completion.CompletionItem(name) for name in DATASETS if name.startswith(incomplete)]
    return names or [click.shell_completion.CompletionItem(incomplete, type="dir")]


def _memory_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from clreplay.recipes.recipe import recipe_names

    names = [click.shell_completion.CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
    return names or [click.shell_completion.CompletionItem(incomplete, type="file")]


def common_options(work: str) -> Callable[[Any], Any]:
    """Flags that every sub-command has which works on a data set, named as in the scripts.

    Args:
        work: what the preset and the seed are of.
    """
    options = [
        click.option(
            "--preset",
            type=click.Choice(["auto", "paper", "cpu", "smoke"]),
            default="auto",
            help="auto: paper on a GPU, cpu otherwise; cpu: narrow and short; smoke: seconds, no meaning",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"change a setting of {work}; several may follow one --set",
        ),
        click.option("--seed", type=int, default=0, help="of all chance (default: 0)"),
        click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)"),
        click.option("--channels", type=click.Choice(["1", "3"]), help="of grey sets (default: 1) and folders (3)"),
        click.option("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)"),
        click.option("--quiet", "-q", is_flag=True, help="say nothing but errors and the outcome"),
    ]

    def add(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return add
