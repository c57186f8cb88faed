"""The Avalanche plugin: a strategy trains on a condensed memory instead of the data it is given."""

from clreplay.plugin.replay import CondensedReplayPlugin, DDMReplayPlugin

__all__ = [
    "CondensedReplayPlugin",
    "DDMReplayPlugin",
]
