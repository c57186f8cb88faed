"""The order of the house: imports go down only, without circles, and a room's files pass by the room's own face."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "clreplay").rglob("*.py") if path.name != "__init__.py")


def test_imports_keep_the_contract():
    # In a process of its own: the linter sets logging up for the whole process.
    code = "import sys; from importlinter import cli; sys.exit(cli.lint_imports('setup.cfg', no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(tree):
    """Modules that a file imports from, and names it imports that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def faces_used(path, tree, root=ROOT):
    """Faces of rooms that a file stands in, of whose names it imports some."""
    inside = [".".join(parent.relative_to(root).parts) for parent in path.parents if parent.is_relative_to(root)]
    inside.remove("")
    for module, names in imported(tree):
        folder = root / module.replace(".", "/")
        files = {name for name in names if (folder / f"{name}.py").is_file() or (folder / name).is_dir()}
        if module in inside and set(names) - files:
            yield module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_imports_its_own_room_s_face(path):
    found = list(faces_used(path, ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"import from the files of {found[0]}, not from its face"


def test_a_file_that_does_is_found(tmp_path):
    room = tmp_path / "clreplay" / "losses"
    room.mkdir(parents=True)
    (room / "style.py").touch()
    path = room / "mean.py"
    tree = ast.parse("from clreplay.losses import gram\nfrom clreplay.losses import style")
    assert list(faces_used(path, tree, tmp_path)) == ["clreplay.losses"]
