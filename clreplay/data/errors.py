"""The errors of loading a data set."""


class DataNotFoundError(FileNotFoundError):
    """No copy of the data set was found and none could be downloaded; the message lists what the user can do."""


class InvalidDataError(ValueError):
    """A copy of the data set is there but incomplete, damaged or not the official one."""


class BadImages(InvalidDataError):
    """Images that cannot be used: what is wrong with the first, and the names of all that were found."""

    def __init__(self, reason: str, names: tuple[str, ...]) -> None:
        super().__init__(reason, names)  # as it is pickled
        self.reason, self.names = reason, names

    def __str__(self) -> str:
        others = self.names[1:]
        if not others:
            return self.reason
        shown = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
        return f"{self.reason}; the same with {shown}"


SHOWN = 19
"""Names of bad images in a message, after the first."""
