"""``clreplay run NAME``: the scripts of ``runs/``, with exactly their flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import click

from clreplay.command.base import LazyGroup


class Script(NamedTuple):
    """A script's command line.

    Attributes:
        main: called with its arguments and with how it was started.
        parser: makes its parser, given how it was started.
    """

    main: Callable[[Sequence[str], str], int]
    parser: Callable[[str], argparse.ArgumentParser]


class ScriptCommand(click.Command):
    """Hands all words on to a script's own parser, ``--help`` among them."""

    def __init__(self, name: str, load: Callable[[], Script]) -> None:
        super().__init__(
            name,
            callback=self._run,
            params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
            context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
            add_help_option=False,
        )
        self.load = load

    def _run(self, words: tuple[str, ...]) -> int:
        return self.load().main(list(words), click.get_current_context().command_path)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """The script's flags."""
        actions = self.load().parser(ctx.command_path)._actions
        flags = [(flag, action.help) for action in actions for flag in action.option_strings]
        return [
            click.shell_completion.CompletionItem(flag, help=said)
            for flag, said in flags
            if flag.startswith(incomplete)
        ]


def _door(name: str) -> Script:
    from clreplay.incremental.cli import continual_parser
    from clreplay.incremental.doors import DOORS, door_main

    door = DOORS[name]
    return Script(
        partial(door_main, name),
        lambda program: continual_parser(door.dataset, door.description, program, door.domains),
    )


def _module(name: str) -> Script:
    module = import_module(name)
    return Script(module.main, lambda program: module.parser(program=program))


SCRIPTS = {
    "cifar100-5step": (partial(_door, "cifar100-5step"), "CIFAR-100 in five steps of twenty classes."),
    "cifar10-5step": (partial(_door, "cifar10-5step"), "CIFAR-10 in five steps of two classes."),
    "digits-5step": (partial(_door, "digits-5step"), "Handwritten digits in five steps, offline."),
    "class-incremental": (partial(_door, "class-incremental"), "Any data set, in as many steps as you say."),
    "domain-incremental": (partial(_door, "domain-incremental"), "The same classes in one domain after another."),
    "static-tables": (partial(_module, "clreplay.benchmark.cli"), "The paper's static tables (`clreplay tables`)."),
    "rate-accuracy": (
        partial(_module, "clreplay.incremental.rate_accuracy_cli"),
        "Which memory for so many bytes and updates.",
    ),
    "equal-time": (
        partial(_module, "clreplay.incremental.equal_time"),
        "Memories that were each given the same time to condense.",
    ),
    "style-gap": (
        partial(_module, "clreplay.benchmark.style_gap"),
        "How far the style of the tables' sets is from real images.",
    ),
    "analysis": (
        partial(_module, "clreplay.command.analysis"),
        "The paper's figures of style, diversity and texture, for any memories.",
    ),
    "gradient-shares": (
        partial(_module, "clreplay.command.gradient_shares"),
        "How strongly each term of a memory's loss pulls.",
    ),
}
"""By name, how the script's command line is got, and what it does."""


class _Scripts(LazyGroup):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return ScriptCommand(cmd_name, SCRIPTS[cmd_name][0]) if cmd_name in SCRIPTS else None


@click.group(
    "run",
    cls=_Scripts,
    table={name: ("", line) for name, (_, line) in SCRIPTS.items()},
    invoke_without_command=True,
    epilog="The flags of each: clreplay run NAME --help",
)
@click.pass_context
def command(context: click.Context) -> None:
    """Run an experiment; the same command goes on where it was stopped."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
