"""Distribution matching: DM, DDM, DataDAM and every composition of their terms; IDM on top."""

from clreplay.condensation.matching.dm import condense_by_matching
from clreplay.condensation.matching.idm import condense_by_idm

__all__ = [
    "condense_by_idm",
    "condense_by_matching",
]
