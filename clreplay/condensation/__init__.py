"""Condensers: real images of an experience in, exactly the asked number of images a class out."""

from clreplay.condensation import (  # noqa: F401  (they enter themselves in METHODS)
    cafe,
    forgetting,
    gradients,
    idm,
    matching,
    selection,
    unrolled,
)
from clreplay.condensation.api import condense, condense_experience, default_device
from clreplay.condensation.methods import METHODS, Condensed, Condenser, Progress, register
from clreplay.condensation.real import RealImages

__all__ = [
    "METHODS",
    "Condensed",
    "Condenser",
    "Progress",
    "RealImages",
    "condense",
    "condense_experience",
    "default_device",
    "register",
]
