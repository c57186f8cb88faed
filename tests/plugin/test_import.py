"""Avalanche costs seconds and a writable home: only who asks for the plugin pays for it."""

import importlib.util
import os
import subprocess
import sys

LAZY = [
    "clreplay",
    "clreplay.condensation",
    "clreplay.data",
    "clreplay.memory.replay_memory",
    "clreplay.networks",
    "clreplay.recipes.recipe",
    "clreplay.training.settings",
    *(
        name
        for name in ("clreplay.incremental.run", "clreplay.incremental.cli", "clreplay.analysis.figures")
        if importlib.util.find_spec(name)
    ),
]

PROGRAM = f"""
import importlib, sys
for name in {LAZY}:
    importlib.import_module(name)
    assert "avalanche" not in sys.modules, f"importing {{name}} imports avalanche"
from clreplay import ReplayMemory, condense
assert "avalanche" not in sys.modules, "a name of the core imports avalanche"
from clreplay import DDMReplayPlugin
assert "avalanche" in sys.modules
import clreplay.plugin.replay
assert DDMReplayPlugin is clreplay.plugin.replay.DDMReplayPlugin
print("lazily")
"""


def test_only_the_plugin_imports_avalanche(tmp_path):
    # In a process of its own: this one has imported everything already.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "lazily"
