"""Data sets as plain tensors: loading, normalisation, and where data is looked for."""

from clreplay.data.digits import load_digits
from clreplay.data.errors import DataNotFoundError, InvalidDataError
from clreplay.data.imageset import Dataset, ImageSet
from clreplay.data.loading import DATASETS, data_root, load_dataset
from clreplay.data.normalization import NORMALIZATIONS, Normalization, pixel_codes, recognise_pixels

__all__ = [
    "DATASETS",
    "NORMALIZATIONS",
    "DataNotFoundError",
    "Dataset",
    "ImageSet",
    "InvalidDataError",
    "Normalization",
    "data_root",
    "load_dataset",
    "load_digits",
    "pixel_codes",
    "recognise_pixels",
]
