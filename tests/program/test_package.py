"""The wheel: typed, complete, and its recipes found from any folder."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def copy_of_the_source(place: Path) -> Path:
    """What a build needs, so that the checkout stays as it is."""
    source = place / "source"
    source.mkdir()
    for name in ("clreplay", "strategies"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy."""
    place = tmp_path_factory.mktemp("build")
    source = copy_of_the_source(place)
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
    for requirement in ("click", "torch", "torchvision", "avalanche-lib", "safetensors", "pyarrow", "scikit-learn"):
        assert f"Requires-Dist: {requirement}" in metadata


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel installed, alone, into a folder of its own."""
    site = tmp_path_factory.mktemp("installed") / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    return site


def test_installed_recipes_are_found_from_any_folder(site, tmp_path):
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


@pytest.fixture
def clreplay(site, tmp_path):
    """The installed command, in a process of its own outside the checkout: what it prints."""
    # PYTHONPATH goes before an editable install of the checkout.
    environment = {**os.environ, "PYTHONPATH": str(site), "CLREPLAY_CACHE": str(tmp_path / "cache")}

    def command(*words: str) -> str:
        ran = subprocess.run(
            [str(site / "bin" / "clreplay"), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        return ran.stdout

    return command


def test_the_command_is_installed_with_its_recipes(clreplay, site):
    assert "clreplay run digits-5step" in clreplay("--help")
    assert str(site / "clreplay" / "strategies" / "ddm.yaml") in clreplay("show", "ddm")


@pytest.mark.slow
def test_the_installed_command_works_outside_the_checkout(clreplay, tmp_path):
    quick = ["--preset", "smoke", "--device", "cpu"]
    assert "decomposed distribution matching" in clreplay("memories")
    words = ["digits", "--memory", "dm", "--images-per-class", "3", "--set", "iterations=2", "width=4", *quick]
    assert "30 images of 10 classes" in clreplay("condense", *words)
    assert "30: 3 of each of 10 classes" in clreplay("show", "memory.safetensors", "--picture", "memory.png")
    assert (tmp_path / "memory.png").is_file()
    score = clreplay("evaluate", "memory.safetensors", "--dataset", "digits", "--networks", "2", *quick)
    assert re.search(r"Accuracy [0-9.]+ % \(std [0-9.]+ over 2 networks\)", score)
    run = ["--memory", "random", "--host", "none", "--set", "train.updates=1", "--out", "run", *quick]
    assert "Pictures: run/accuracy.png" in clreplay("run", "digits-5step", *run)
    assert "not measured" in clreplay("tables", "--table", "1", "--dataset", "cifar10", "--ipc", "10", "--status")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The project's source archive, built from a copy."""
    place = tmp_path_factory.mktemp("sdist")
    source = copy_of_the_source(place)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(place)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=source, capture_output=True)
    return next(place.glob("*.tar.gz"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "archive"])
def test_what_is_built_works_in_a_clean_environment(kind, request, tmp_path):
    """An environment of its own, in which only what clreplay depends on can be found beside it."""
    built = request.getfixturevalue(kind)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # Paths in such a file are added as they are: an editable clreplay beside the dependencies is not found by them.
    places = [place for place in sys.path if place.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(places) + "\n", encoding="utf-8")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *install, str(built)], check=True)
    code = (
        "import clreplay, torch; from pathlib import Path\n"
        f"assert Path(clreplay.__file__).is_relative_to({str(site)!r}), clreplay.__file__\n"
        "images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)\n"
        "memory = clreplay.condense(images, torch.arange(8) % 2, 'ddm', 2, preset='smoke', iterations=2, width=4)\n"
        "memory.save('m.safetensors'); print(len(clreplay.ReplayMemory.load('m.safetensors')))"
    )
    done = subprocess.run([str(python), "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr
    done = subprocess.run([str(python), "-I", "-m", "clreplay.benchmark", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--table" in done.stdout, done.stderr


def test_the_oldest_versions_that_are_tried_are_the_bounds_that_the_package_names():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    bounds = dict(line.split(">=") for line in config["options"]["install_requires"].split())
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    tried = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name.lower() for name in bounds} == {name.lower() for name in tried}
    for name, version in tried.items():
        bound = next(value for key, value in bounds.items() if key.lower() == name.lower())
        assert version == bound or version == f"{bound}.0", name
