"""The wheel: typed, complete, and its recipes found from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy so that the checkout stays as it is."""
    import shutil

    place = tmp_path_factory.mktemp("build")
    source = place / "source"
    source.mkdir()
    for name in ("clreplay", "strategies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(place),
            str(source),
        ],
        check=True,
    )
    return next(place.glob("*.whl"))


def test_wheel_holds_every_module_the_recipes_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "clreplay").rglob("*.py")}
    recipes = {f"clreplay/strategies/{p.name}" for p in (ROOT / "strategies").glob("*.yaml")}
    published = {p.relative_to(ROOT).as_posix() for p in (ROOT / "clreplay").glob("*/published/*.csv")}
    assert modules | recipes | published | {"clreplay/py.typed", "clreplay/networks/kernels/block.c"} <= names
    assert not [name for name in names if name.startswith(("tests/", "runs/"))]


def test_wheel_names_its_licence_python_and_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    assert "License" in metadata and "MIT" in metadata
    assert "Requires-Python: >=3.10" in metadata
    for extra in ("test", "notebooks"):
        assert f"Provides-Extra: {extra}" in metadata
    for requirement in ("torch", "torchvision", "avalanche-lib", "safetensors", "pyarrow", "scikit-learn"):
        assert f"Requires-Dist: {requirement}" in metadata


def test_installed_recipes_are_found_from_any_folder(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import clreplay, clreplay.recipes.recipe as r\n"
        "assert clreplay.__file__.startswith(sys.argv[1]), clreplay.__file__\n"
        "assert str(r.strategies_dir()).startswith(sys.argv[1]), r.strategies_dir()\n"
        "print(r.load_recipe('ddm').settings('paper').iterations)"
    )
    ran = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code, str(site)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == "20000", ran.stderr
