"""The ``clreplay`` command itself: its table of sub-commands, and what it says when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import clreplay
from clreplay.command.base import LazyGroup

COMMANDS = {
    "run": "Run an experiment: CIFAR-100 in five steps, a data set of your own, ...",
    "tables": "Measure the DDM paper's static tables, cell by cell.",
    "condense": "Condense a data set into a memory, one file.",
    "evaluate": "Score a memory: train networks on it and test them.",
    "report": "Write one page about a run, or about several side by side.",
    "show": "Say what a memory, a run's folder or a recipe is.",
    "export": "Write a memory's images as pictures, arrays or a data set.",
    "push": "Put a memory on the Hugging Face hub.",
    "memories": "List all memories there are.",
}
"""Sub-commands with what they do; NAME is ``command`` of ``clreplay.command.NAME``, imported when it is called."""

EPILOG = """\b
Examples:
  clreplay run digits-5step --memory random ddm
  clreplay condense digits --memory dm --images-per-class 3 --preset smoke -o digits.safetensors
  clreplay evaluate digits.safetensors --dataset digits --preset smoke
"""


@click.group(
    cls=LazyGroup,
    table={name: (f"clreplay.command.{name}:command", line) for name, line in COMMANDS.items()},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
@click.version_option(clreplay.__version__, prog_name="clreplay")
@click.pass_context
def command(context: click.Context) -> None:
    """Replay memories of condensed images for continual learning."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run.

    Args:
        argv: arguments; None takes the process's.

    Returns:
        the exit code, see :func:`clreplay.runtime.command_line.exit_code`: a user's error is one line on standard
        error, and 2.
    """
    try:
        result = command.main(None if argv is None else list(argv), prog_name="clreplay", standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = "" if context is None else f" (see {context.command_path} --help)"
        print(f"error: {error.format_message().rstrip('.')}{where}", file=sys.stderr)
        return 2
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0
