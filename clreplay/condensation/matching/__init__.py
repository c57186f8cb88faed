"""Distribution matching: DM, DDM, DataDAM and every composition of their terms; IDM on top."""

from clreplay.condensation.matching.dm import MATCHING_EXECUTION
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.idm import IDM

__all__ = [
    "IDM",
    "MATCHING_EXECUTION",
    "MatchingEngine",
]
