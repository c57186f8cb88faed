"""The page that a run leaves: one file to read anywhere, of one run or of several side by side."""

from clreplay.report.page import MissingLibrary, write_report
from clreplay.report.reported import Reported

__all__ = ["MissingLibrary", "Reported", "write_report"]
