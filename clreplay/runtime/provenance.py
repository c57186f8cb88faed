"""Versions, commit and device: what a number must have beside it."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance(device_name: str) -> dict[str, Any]:
    """Versions, commit and device: what a number must have beside it."""
    packages = ("clreplay", "torch", "torchvision", "avalanche-lib", "numpy")
    versions = {package: version(package) for package in packages}
    return {"versions": versions, "commit": commit(), "device_name": device_name}


@cache
def made_with() -> dict[str, str]:
    """The version of clreplay and the commit that this process runs, as a memory's file has them."""
    return {"clreplay": version("clreplay"), "commit": commit()}


def version(package: str) -> str:
    """Of a package that is installed; "not installed" of another."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of the checkout the code runs from, ``-dirty`` if files differ; "unknown" outside one."""
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        # Without the lock that git takes to write down what it has seen: if it is ended on the way, the lock stays.
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(here), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return "unknown"  # an installed copy inside another project's checkout
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "clreplay", "strategies", "runs")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
