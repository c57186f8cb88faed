"""Data sets as plain tensors: loading, normalisation, and where data is looked for."""

from clreplay.data.dataset import Dataset, ImageSet
from clreplay.data.errors import DataNotFoundError, InvalidDataError
from clreplay.data.held_out import held_out_name
from clreplay.data.load import data_root, load_dataset
from clreplay.data.normalization import (
    NORMALIZATIONS,
    Normalization,
    measured_normalization,
    pixel_codes,
    recognise_pixels,
)
from clreplay.data.registry import DATASETS, register_dataset
from clreplay.data.sets.digits import load_digits

__all__ = [
    "DATASETS",
    "NORMALIZATIONS",
    "DataNotFoundError",
    "Dataset",
    "ImageSet",
    "InvalidDataError",
    "Normalization",
    "data_root",
    "held_out_name",
    "load_dataset",
    "load_digits",
    "measured_normalization",
    "pixel_codes",
    "recognise_pixels",
    "register_dataset",
]
