"""What a release must pass: built, described without a warning, installed alone, and at work from an empty folder.

    python tests/release/release.py                   # dist/*.whl and dist/*.tar.gz; a new environment takes 6 GB
    python tests/release/release.py --beside SITE     # dependencies from a folder of installed packages instead

Needs build and twine (extra ``dist``). Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    ("--help",),
    ("memories",),
    ("show", "ddm"),
    ("condense", "digits", "--memory", "dm", "--images-per-class", "3", "--preset", "smoke", "-o", "m.safetensors"),
    ("show", "m.safetensors", "--picture", "m.png"),
    ("evaluate", "m.safetensors", "--dataset", "digits", "--networks", "1", "--preset", "smoke"),
    ("export", "m.safetensors", "pictures"),
    ("run", "digits-5step", "--memory", "random", "ddm", "--preset", "smoke", "--out", "demo"),
    ("tables", "--table", "1", "--dataset", "digits", "--ipc", "1", "--method", "Random", "--preset", "smoke",
     "--sets", "1", "--networks", "1", "--out", "tables"),
)  # fmt: skip
"""What a stranger tries first, with the wheel alone."""
MADE = ("m.safetensors", "m.png", "pictures", "demo/results.csv", "demo/accuracy.png", "tables/table1-smoke.md")


def main() -> int:
    """Build, check, install, try; say what each step gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where wheel and archive go (default: dist)")
    parser.add_argument("--beside", metavar="SITE", help="folder of installed packages to take dependencies from")
    options = parser.parse_args()
    wheel, archive = built(options.out)
    run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive)])
    with tempfile.TemporaryDirectory(prefix="clreplay-release-") as place:
        python = installed(Path(place) / "venv", wheel, options.beside)
        tried(python, Path(place))
    print(f"ready: {wheel.name} and {archive.name} in {options.out}")
    return 0


def built(out: Path) -> tuple[Path, Path]:
    """Wheel and source archive of a clean copy of what git tracks: the wheel is built from the archive."""
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="clreplay-source-") as source:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (ROOT / name).is_file():
                (Path(source) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(source) / name)
        run([sys.executable, "-m", "build", "--outdir", str(out), source])
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def installed(folder: Path, wheel: Path, beside: str | None) -> Path:
    """The Python of a new environment that has the wheel."""
    run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", *(["--no-deps"] if beside else []), str(wheel)])
    if beside:
        site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        (Path(site) / "beside.pth").write_text(f"{Path(beside).resolve()}\n")
    return python


def tried(python: Path, place: Path) -> None:
    """Every command of :data:`COMMANDS` in an empty folder, and what they should have left."""
    empty = place / "empty"
    empty.mkdir()
    code = "import clreplay, sys; sys.exit(0 if clreplay.__file__.startswith(sys.prefix) else clreplay.__file__)"
    run([str(python), "-c", code], empty)
    for command in COMMANDS:
        run([str(python.with_name("clreplay")), *command], empty)
    if missing := [name for name in MADE if not (empty / name).exists()]:
        raise SystemExit(f"the installed wheel left no {', '.join(missing)}")


def run(command: list[str], folder: Path | None = None) -> None:
    """Say the command, and end with its output if it fails."""
    print(f"  {' '.join(Path(command[0]).name if not i else part for i, part in enumerate(command))[:120]}", flush=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\nfailed with exit code {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
