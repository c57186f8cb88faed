"""``clreplay export``: a memory's images for others, as pictures, arrays or a data set."""

from __future__ import annotations

import click

from clreplay.command.base import works


@click.command("export")
@click.argument("memory", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--to",
    metavar="FORMAT",
    help="png (a folder of pictures by class), npz (arrays, exact) or parquet (a data set as the Hugging Face hub has "
    "it); default: what the target's ending says, png where it says none",
)
@click.option(
    "--outside",
    type=click.Choice(["scale", "clip"]),
    default="scale",
    help="pixels beyond the range of a picture: scale keeps them by a scale an image, clip cuts them (default: scale)",
)
@click.option("--force", is_flag=True, help="replace what is there")
@works(goes_on=False)
def command(memory: str, target: str, to: str | None, outside: str, force: bool) -> int:
    """Write the images that one trains on of MEMORY to TARGET, a folder or a file.

    \b
      clreplay export memory.safetensors pictures
      clreplay export memory.safetensors memory.npz
    """
    from clreplay.memory.replay_memory import ReplayMemory

    click.echo(str(ReplayMemory.load(memory).export(target, to, overwrite=force, outside=outside)))
    return 0
