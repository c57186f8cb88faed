"""Condensers: from the real images of an experience to exactly the requested number of images of every class."""

from clreplay.condensation.cafe import CafeEngine
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.distillation import DistillationEngine
from clreplay.condensation.experience import condense_experience
from clreplay.condensation.gradient_matching import GradientMatchingEngine
from clreplay.condensation.matching import IDM, MatchingEngine
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import METHODS, Condensed, Condenser, register
from clreplay.condensation.selection import select_forgetting, select_herding, select_kmeans, select_random

__all__ = [
    "CafeEngine",
    "Condensed",
    "Condenser",
    "ConfiguredMethod",
    "DistillationEngine",
    "GradientMatchingEngine",
    "IDM",
    "METHODS",
    "MatchingEngine",
    "RealImages",
    "condense_experience",
    "register",
    "select_forgetting",
    "select_herding",
    "select_kmeans",
    "select_random",
]
