"""``clreplay push``: a memory to the Hugging Face hub."""

from __future__ import annotations

import click

from clreplay.command.base import works


@click.command("push")
@click.argument("memory", type=click.Path())
@click.argument("repo", metavar="ORG/NAME")
@click.option("--private", is_flag=True, help="a new data set is seen by its owner only")
@works(goes_on=False)
def command(memory: str, repo: str, private: bool) -> int:
    """Put MEMORY on the Hugging Face hub as the data set ORG/NAME, a new one or the next revision of your own.

    The token is that of `hf auth login`, or $HF_TOKEN.
    """
    from clreplay.memory.replay_memory import ReplayMemory

    click.echo(str(ReplayMemory.load(memory).push(repo, private=private)))
    return 0
