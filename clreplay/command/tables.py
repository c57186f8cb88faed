"""``clreplay tables``: the DDM paper's static tables."""

from __future__ import annotations

from clreplay.command.run import SCRIPTS, ScriptCommand

command = ScriptCommand("tables", SCRIPTS["static-tables"][0])
