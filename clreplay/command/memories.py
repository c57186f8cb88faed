"""``clreplay memories``: all recipes that come along."""

from __future__ import annotations

import textwrap

import click

from clreplay.command.base import works

WIDTH = 110


@click.command("memories")
@click.option("--names", is_flag=True, help="names only, one a line")
@works(goes_on=False)
def command(names: bool) -> int:
    """List all memories that --memory knows: what they keep, where they come from, and what they cost."""
    from clreplay.recipes.recipe import load_recipe, recipe_names

    if names:
        click.echo("\n".join(recipe_names()))
        return 0
    recipes = [load_recipe(name) for name in recipe_names()]
    indent = " " * (max(len(recipe.name) for recipe in recipes) + 2)
    kinds = {"Real images that are selected": True, "Images that are made": False}
    for title, selects in kinds.items():
        click.echo(f"{title}:\n")
        for recipe in recipes:
            if recipe.method.selects is not selects:
                continue
            cost = "" if recipe.cost is None else f" [{recipe.cost:g} x dm]"
            click.echo(f"{recipe.name:<{len(indent)}}{recipe.summary}{cost}")
            click.echo(indent + textwrap.shorten(recipe.source, WIDTH - len(indent), placeholder=" ..."))
        click.echo()
    click.echo(
        "[x dm]: time of an iteration beside dm's, where it was measured: width 128, float32, two cores.\n"
        "`clreplay show NAME` has the settings; a .yaml recipe of your own is a memory, too."
    )
    return 0
