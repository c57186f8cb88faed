"""What the package stands on: dependencies that agree, style, types."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT)


def test_installed_packages_agree():
    """Of what clreplay needs; what else is installed beside it is not its affair."""
    done = run("pip", "check")
    ours = [line for line in done.stdout.splitlines() if line.startswith("clreplay ")]
    assert ours == [] and (done.returncode == 0 or done.stdout), done.stdout + done.stderr


def test_code_keeps_to_the_rules_of_style():
    pytest.importorskip("ruff")
    done = run("ruff", "check", "clreplay", "tests", "runs", "examples", "docs/site_pages.py")
    assert done.returncode == 0, done.stdout
    done = run("ruff", "format", "--check", "clreplay", "tests", "runs", "examples", "docs/site_pages.py")
    assert done.returncode == 0, done.stdout


def test_types_are_strict():
    pytest.importorskip("mypy")
    done = run("mypy", "clreplay")
    assert done.returncode == 0, done.stdout


def test_rooms_that_are_not_strict_are_those_that_were_not():
    """The list may only become shorter."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["mypy"]["strict"] == "true"
    (loose,) = [name for name in config.sections() if config[name].get("ignore_errors") == "true"]
    rooms = {part.removeprefix("clreplay.").removesuffix(".*") for part in loose.removeprefix("mypy-").split(",")}
    assert rooms <= set("analysis condensation incremental networks".split())
