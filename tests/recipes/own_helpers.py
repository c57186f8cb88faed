"""Recipes with a method of their own, for tests of what the house does around methods: quick, and floats like DDM's."""

import textwrap

NOISY = """
from dataclasses import dataclass

import torch

from clreplay.runtime.seeding import generator
from clreplay.condensation import Condensed, register


@dataclass(frozen=True)
class NoisySettings:
    noise: float = 0.5
    rank: int = 0


@register("noisy", NoisySettings{options})
def noisy(real, counts, settings, *, seed, device, progress=None, keep=None):
    images, record = {{}}, []
    for label in real.classes:
        chance = generator(seed, real.keys[label], "noise")
        first = real.normalised(label)[: counts[label]]
        images[label] = first + settings.noise * torch.randn(first.shape, generator=chance)
    return Condensed(images, [{{"iteration": 1, "noise": settings.noise, "rank": settings.rank}}]{result})
"""
"""Float images: the first ones of every class with noise on them. The record tells the settings."""


def own_recipe(folder, *, code=None, name="noisy", yaml="", options="", result=""):
    """Write ``noisy.py`` and a recipe of it; gives the recipe's path.

    Args:
        code: another text for the Python file.
        yaml: more lines of the recipe.
        options: more arguments of ``@register``.
        result: more arguments of ``Condensed``.
    """
    text = NOISY.format(options=options, result=result) if code is None else textwrap.dedent(code)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(f"method: noisy\ncode: {name}.py\n{textwrap.dedent(yaml)}", encoding="utf-8")
    return path


def tiled_recipe(folder, **options):
    """A recipe whose stored images are each four images to train on."""
    declared = ", decoding=lambda settings: 'tiles2'"
    return own_recipe(folder, options=declared, result=", decoding='tiles2'", **options)
