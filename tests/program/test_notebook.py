"""The notebooks run offline, from the repository's root and from their own folder, and carry their outputs."""

import base64
import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nbclient", reason="executing notebooks needs nbclient: pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="executing notebooks needs a kernel: pip install ipykernel")
import nbformat

from clreplay.analysis.summary import accuracy_by_step
from clreplay.data import load_dataset
from clreplay.incremental.run_folder import RunFolder, read_results
from clreplay.memory.replay_memory import ReplayMemory

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAME = "01_accuracy_per_step.ipynb"


@pytest.fixture(scope="module")
def refresh():
    """The script ``notebooks/refresh.py`` as a module."""
    spec = importlib.util.spec_from_file_location("refresh", NOTEBOOKS / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def make_run(path, digits, finished=True):
    """A run as the scripts leave it: random and DDM on the digits, 2 classes a step, one image a class."""
    labels = {"random": "Random", "ddm": "DDM"}
    run = RunFolder(path)
    memories = {name: {"label": label} for name, label in labels.items()}
    run.open({"dataset": "digits", "channels": 1, "steps": 5, "images_per_class": 1, "memories": memories})
    costs = {"memory_images": 10, "memory_bytes": 10240, "condense_seconds": 1.0, "train_seconds": 1.0}
    for step in range(5 if finished else 2):
        where = {"dataset": "digits", "class_order": 0, "step": step, "classes_seen": 2 * step + 2, **costs}
        accuracies = [("ddm", 0, 99.0 - step), ("ddm", 1, 97.0 - step), ("random", 0, 90.0 - step), ("random", 1, 80.0)]
        run.append([{"memory": m, "network": n, "accuracy": a, **where} for m, n, a in accuracies])
    for name in labels if finished else ():
        memory = ReplayMemory(images_per_class=1, normalization=digits.normalization)
        record = [{"experience": 0, "iteration": i, "mean_matching": 1 / (i + 1)} for i in range(3)]
        images = {label: digits.train.class_images(label)[:1] for label in range(10)}
        memory.add(images, record=record if name == "ddm" else [])
        memory.save(run.memory_file(name, alone=False))


@pytest.fixture
def place(tmp_path, digits):
    """A folder ``notebooks`` in an empty place, with the notebook and a run."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS / NAME, folder)
    read(folder, "digits_run")
    make_run(folder / "digits_run", digits)
    return folder


def read(folder, *runs):
    """Make these the runs that the notebook reads."""
    notebook = nbformat.read(folder / NAME, as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith("RUNS = [")]
    cell.source = f"RUNS = {list(runs)}\nDATA = {{}}"
    nbformat.write(notebook, folder / NAME)


def outputs_of(path):
    """All outputs; the pictures among them; all text in one piece."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "\n".join(output.get("text", "") + output.get("data", {}).get("text/html", "") for output in outputs)
    return outputs, pictures, text


def test_the_notebook_runs_in_its_own_folder_and_keeps_its_outputs(place, refresh):
    refresh.refresh(place / NAME)
    outputs, pictures, text = outputs_of(place / NAME)
    assert not [output for output in outputs if output.output_type == "error"]
    assert len(pictures) == 5  # accuracy, bytes, drop, images, losses
    assert "digits_run: no record of what images were taken for" in text
    assert "98.0 ± 1.0" in text and "94.0 ± 1.0" in text and "85.0 ± 5.0" in text
    assert sorted(path.name for path in place.iterdir()) == [NAME, "digits_run"]
    nbformat.validate(nbformat.read(place / NAME, as_version=4))


def test_several_runs_one_unfinished_from_the_repository_root(place, refresh, digits):
    make_run(place / "unfinished", digits, finished=False)
    read(place, "digits_run", "unfinished")
    refresh.refresh(place / NAME, folder=place.parent)
    _, pictures, text = outputs_of(place / NAME)
    assert len(pictures) == 5
    assert "unfinished: no picture, the run has not finished" in text


def test_an_error_in_a_cell_leaves_the_file_as_it_was(tmp_path, refresh):
    from nbclient.exceptions import CellExecutionError

    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        refresh.refresh(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_committed_notebook_is_clean_and_carries_its_outputs(path, refresh):
    notebook = nbformat.read(path, as_version=4)
    outputs, pictures, shown = outputs_of(path)
    assert notebook.metadata == {"kernelspec": refresh.KERNEL, "language_info": {"name": "python"}}
    assert not [output for output in outputs if output.output_type == "error"]
    assert all(not cell.metadata for cell in notebook.cells)
    text = path.read_text(encoding="utf-8")
    assert str(NOTEBOOKS.parent) not in text and "/home/" not in text
    refresh_it = f"run: python notebooks/refresh.py notebooks/{path.name}"
    assert len(pictures) >= 1, refresh_it
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), refresh_it
    if path.name != NAME:
        return
    accuracies = accuracy_by_step(read_results(NOTEBOOKS / "digits_run"))["accuracy"]
    assert all(f"<td>{accuracy:.1f}" in shown for accuracy in accuracies), f"outputs of another run; {refresh_it}"


@pytest.mark.parametrize("kind", ["lines", "images"])
def test_pictures_of_a_notebook_are_kept_small_and_look_the_same(kind, refresh):
    chance = np.random.RandomState(0)
    if kind == "lines":
        pixels = np.full((700, 1600, 3), 255, dtype=np.uint8)
        for place, colour in enumerate(((0, 114, 178), (213, 94, 0), (0, 0, 0))):
            pixels[100 + 150 * place : 112 + 150 * place, 100:1500] = colour
    else:
        grey = np.linspace(0, 255, 800).astype(np.uint8)
        pixels = np.broadcast_to(grey[None, :, None], (300, 800, 3)).copy()
        pixels[:, :, 2] = np.clip(pixels[:, :, 2] + chance.randint(-9, 9, (300, 800)), 0, 255)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    before = base64.b64encode(content.getvalue()).decode()
    after = refresh.small(before)
    shown = Image.open(io.BytesIO(base64.b64decode(after)))
    wanted = Image.fromarray(pixels).resize(shown.size, Image.Resampling.LANCZOS)
    assert shown.width == 800 and len(after) < min(len(before), 100_000) and shown.mode == "P"
    apart = np.abs(np.asarray(shown.convert("RGB"), dtype=int) - np.asarray(wanted, dtype=int))
    assert apart.mean() < 5 and np.percentile(apart, 99.5) < 40
    assert refresh.small(before) == after
    if kind == "lines":
        kept = np.asarray(shown.convert("RGB"), dtype=int).reshape(-1, 3)
        for colour in ((0, 114, 178), (213, 94, 0), (0, 0, 0)):
            assert np.abs(kept - colour).max(1).min() < 8, "a line keeps its colour"
