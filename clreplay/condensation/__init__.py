"""Condensers: real images of an experience in, exactly the asked number of images a class out."""

from clreplay.condensation.cafe import condense_by_alignment
from clreplay.condensation.distillation import distill
from clreplay.condensation.experience import condense_experience
from clreplay.condensation.gradient_matching import condense_by_gradients
from clreplay.condensation.matching import condense_by_idm, condense_by_matching
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import METHODS, Condensed, Condenser, register
from clreplay.condensation.selection import select_forgetting, select_herding, select_random

__all__ = [
    "Condensed",
    "Condenser",
    "METHODS",
    "RealImages",
    "condense_by_alignment",
    "condense_by_gradients",
    "condense_by_idm",
    "condense_by_matching",
    "condense_experience",
    "distill",
    "register",
    "select_forgetting",
    "select_herding",
    "select_random",
]
