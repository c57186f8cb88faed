"""Execute the notebooks beside this file in place, and keep out of them what belongs to one machine.

python notebooks/refresh.py                              # all of them
python notebooks/refresh.py notebooks/01_accuracy_per_step.ipynb
"""

from __future__ import annotations

import argparse
import base64
import io
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
WIDEST = 800
"""Pixels of a picture's width in a notebook."""
COLOURS = 64
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main() -> None:
    """Read the command line; execute, clean and write every notebook."""
    parser = argparse.ArgumentParser(description="Execute notebooks in place and strip what is volatile.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook beside this script")
    for path in parser.parse_args().notebooks or sorted(HERE.glob("*.ipynb")):
        refresh(path)
        print(f"executed {path}")


def refresh(path: Path, folder: Path | None = None, timeout: int = 600) -> None:
    """Execute a notebook and write it back with its outputs; an error in a cell leaves the file as it was.

    Args:
        path: the notebook.
        folder: where it is executed; the notebook's own folder by default.
        timeout: seconds a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: an output names a folder of this machine.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]  # a checkout need not be installed
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    resources = {"metadata": {"path": str((folder or path.parent).resolve())}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=resources).execute(env=env)
    clean(notebook)
    text = nbformat.writes(notebook)
    for own in (str(HERE.parent), str(Path.home()) + os.sep):
        if len(own) > 2 and own in text:
            raise ValueError(f"an output of {path} names {own}, a folder of this machine; print relative paths")
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def clean(notebook) -> None:
    """Leave the kernel's name and the outputs, pictures small; drop times, versions and widget states."""
    notebook.metadata = type(notebook.metadata)({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell["id"] = f"cell-{number}"
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata.clear()
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small(output.data["image/png"])


def small(png: str) -> str:
    """A picture (base64) with few colours, and no wider than a page shows it."""
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    white = np.mean(np.asarray(picture).min(2) > 250)
    # Thin coloured lines on white keep their colours by the one way, images their shades by the other.
    way = Image.Quantize.MAXCOVERAGE if white > 0.7 else Image.Quantize.MEDIANCUT
    content = io.BytesIO()
    picture.quantize(COLOURS, way, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


if __name__ == "__main__":
    main()
