"""The errors of loading a data set."""


class DataNotFoundError(FileNotFoundError):
    """No copy of the data set was found and none could be downloaded; the message lists what the user can do."""


class InvalidDataError(ValueError):
    """A copy of the data set is there but incomplete, damaged or not the official one."""
