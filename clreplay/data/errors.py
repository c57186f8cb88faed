"""What loading a data set can answer instead of data."""


class DataNotFoundError(FileNotFoundError):
    """No copy of the data set was found and none could be fetched; the message lists every way out."""


class InvalidDataError(ValueError):
    """A copy of the data set is there but incomplete, damaged or not the official one."""
