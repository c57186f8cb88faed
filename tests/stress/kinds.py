"""All kinds of files that are read, each with what makes a whole one and what reads it."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzing import Kind

RANDOM = np.random.RandomState(0)


def memory() -> Any:
    from clreplay.data import NORMALIZATIONS
    from clreplay.memory.replay_memory import ReplayMemory

    filled = ReplayMemory(images_per_class=2, normalization=NORMALIZATIONS["cifar10"])
    chance = torch.Generator().manual_seed(0)
    filled.add({0: torch.randn(2, 3, 8, 8, generator=chance)}, record=[{"iteration": 1, "loss": 0.5}])
    filled.add({3: torch.randint(0, 256, (2, 3, 8, 8), generator=chance).to(torch.uint8)})
    filled.info = {"dataset": "cifar10", "class_names": ["a", "b"]}
    return filled


def load_memory(path: Path) -> Any:
    from clreplay.memory.replay_memory import ReplayMemory

    return ReplayMemory.load(path).state_dict()


def make_class_cache(folder: Path) -> None:
    from clreplay.memory.class_cache import ClassCache

    ClassCache(folder).put("abcd", torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), "none")


def load_class_cache(path: Path) -> Any:
    from clreplay.memory.class_cache import ClassCache

    return ClassCache(path.parents[1]).get("abcd", (2, 3, 8, 8))


class _WeightFile:
    """A weight file at a place of its own."""

    def __new__(cls, path: Path) -> Any:
        from clreplay.condensation.engine.weight_file import WeightFile

        found = object.__new__(WeightFile)
        found.path, found.traced = path, True
        return found


def make_weights(folder: Path) -> None:
    from clreplay.condensation.engine.weight_file import Saved

    chance = torch.Generator().manual_seed(0)
    weights, current = torch.randn(3, 50, generator=chance), torch.randn(50, generator=chance)
    _WeightFile(folder / "w.safetensors").save(Saved(weights, 2, 1.5, current, current + 1, {"mean": torch.zeros(4)}))


def load_weights(path: Path) -> Any:
    found = _WeightFile(path).load(50)
    return None if found is None else [found.weights, found.epoch, found.seconds, found.current, dict(found.buffers)]


def make_progress(folder: Path) -> None:
    from clreplay.runtime.progress_file import _save

    state = {"iteration": 3, "record": [{"iteration": 1}], "tensors": {"0.image": torch.zeros(2, 3, 8, 8)}}
    _save(folder / "work.progress", "this", state, 2.5)


def load_progress(path: Path) -> Any:
    from clreplay.runtime.progress_file import load_progress

    found = load_progress(path, "this")
    return None if found is None else list(found)


def _training(path: Path) -> tuple[Any, Any]:
    """A training of a small module with a buffer, kept in the file."""
    from clreplay.training.going_on import Training
    from clreplay.training.loop import changed_by_training

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return Training(path, "this", (torch.zeros(2, 4),)), changed_by_training(network)


def make_training(folder: Path) -> None:
    training, tensors = _training(folder / "network.training")
    optimizer = torch.optim.SGD([tensor for tensor in tensors.values() if tensor.requires_grad], lr=0.1, momentum=0.9)
    training.begin(tensors, optimizer)
    with training.saved():
        sum(tensor.square().sum() for tensor in tensors.values() if tensor.requires_grad).backward()
        optimizer.step()
        training.update_ends(torch.ones(()))


def load_training(path: Path) -> Any:
    training, tensors = _training(path)
    optimizer = torch.optim.SGD([tensor for tensor in tensors.values() if tensor.requires_grad], lr=0.1, momentum=0.9)
    training.begin(tensors, optimizer)
    momentum = [slot["momentum_buffer"] for slot in optimizer.state.values()]
    return None if not training.batch else [training.batch, *(one.detach() for one in tensors.values()), *momentum]


def make_finished(folder: Path) -> None:
    from clreplay.condensation.engine.finished_file import Finished, save_finished
    from clreplay.condensation.registry import Condensed

    save_finished(folder / "work.progress", "this", Finished(Condensed({0: torch.ones(2, 3, 4, 4)}, [{"a": 1}]), 1.0))


def load_finished(path: Path) -> Any:
    from clreplay.condensation.engine.finished_file import load_finished

    found = load_finished(path.with_suffix(""), "this")
    return None if found is None else [found.condensed.images, found.condensed.record, found.seconds]


def make_results(folder: Path) -> None:
    from clreplay.incremental.results_file import append_rows

    for step in range(3):
        row = {"memory": "ddm", "dataset": "digits", "class_order": 0, "network": 0, "step": step, "classes_seen": 2}
        row |= {"memory_images": 4, "memory_bytes": 4000, "accuracy": 91.25, "condense_seconds": 1.5}
        append_rows(folder / "results.csv", [{**row, "train_seconds": 0.5}])


def load_results(path: Path) -> Any:
    from clreplay.incremental.results_file import read_rows

    return read_rows(path).to_dict("list")


def make_settings(folder: Path) -> None:
    text = "dataset: digits\nsteps: 5\nmemories:\n  ddm: {method: matching, settings: {lr_img: 1.0, width: 16}}\n"
    (folder / "settings.yaml").write_text(text + "class_names: ['0', '1']\ncreated: 2026-01-01\n", encoding="utf-8")


def load_settings(path: Path) -> Any:
    from clreplay.incremental.settings_file import load_settings

    return load_settings(path)


def make_recipe(folder: Path) -> None:
    from clreplay.recipes.recipe import strategies_dir

    shutil.copy(strategies_dir() / "dm.yaml", folder / "mine.yaml")


def load_recipe(path: Path) -> Any:
    from clreplay.recipes.recipe import load_recipe

    return load_recipe(str(path)).settings("paper", {})


def make_store(folder: Path) -> None:
    from clreplay.benchmark.rows import Finished, FinishedImages, NetworkRow, Origin
    from clreplay.benchmark.sets import to_bytes
    from clreplay.benchmark.store import Store

    here = Origin(3.0, "cpu", "abc", "torch")
    images = to_bytes(memory_of_floats())
    rows = [
        NetworkRow(f"{n:040x}", "digits", "set", "t", "float32", 0, (0, n), 90.5, None, False, 10, here)
        for n in range(4)
    ]
    part = FinishedImages("set", "s", 2, 0, images, dict.fromkeys(images, 2), dict.fromkeys(images, 2), {}, {}, here)
    Store(folder / "store.sqlite").add(Finished("digits", "f", 2, rows, part, ("e", "cpu", {"a": 1}), {"t": {"b": 2}}))


def memory_of_floats() -> Any:
    from clreplay.memory.replay_memory import ReplayMemory

    filled = ReplayMemory(images_per_class=2, store="float32")
    filled.add({label: torch.full((2, 1, 4, 4), float(label)) for label in (0, 1)})
    return filled


def load_store(path: Path) -> Any:
    """Results, and images as a learner gets them."""
    from types import SimpleNamespace

    from clreplay.benchmark.sets import from_bytes
    from clreplay.benchmark.store import Store
    from clreplay.data import NORMALIZATIONS

    store = Store(path)
    contents = store.read()
    if set(contents.networks) != {f"{n:040x}" for n in range(4)} or set(contents.sets) != {"set"}:
        return None  # what is missing is measured again
    try:
        learned = from_bytes(store.images("set"), SimpleNamespace(normalization=NORMALIZATIONS["mnist"]), "float32")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error  # the run names the unit and the cell
    return [sorted(contents.networks.items()), learned.images, learned.labels]


# ---------------------------------------------------------------- data sets


def picture(number: int, kind: str = "PNG") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(number).randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def pets(folder: Path, kind: str = "PNG") -> Path:
    for number in range(8):
        path = (
            folder / "pets" / ("train", "test")[number // 4] / ("cat", "dog")[number % 2] / f"{number}.{kind.lower()}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, kind))
    return folder / "pets"


def make_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(pets(folder / "made").rglob("*.png")):
            archive.write(path, path.relative_to(folder / "made"))
    shutil.rmtree(folder / "made")


def make_tar(folder: Path, name: str, mode: str) -> None:
    with tarfile.open(folder / name, mode) as archive:
        archive.add(pets(folder / "made"), "pets")
    shutil.rmtree(folder / "made")


def make_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split in ("train", "test"):
        images = pa.array([{"bytes": picture(n), "path": None} for n in range(6)], kind)
        table = pa.table({"image": images, "label": pa.array([0, 1, 2] * 2, pa.int64())})
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=4)


def load_images_of(place: Path) -> Any:
    from clreplay.data import load_dataset

    found = load_dataset(f"folder:{place}@8")
    return [found.train.images, found.train.labels, found.test.images, found.test.labels]


def make_idx(folder: Path) -> None:
    data = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (5, 4, 4)) + bytes(range(80))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))


def load_idx(path: Path) -> Any:
    from clreplay.data.sets.torchvision_sets import read_idx

    return read_idx(path, 3)


def make_matlab(folder: Path) -> None:
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(1, "n02119789", "kit fox", 0), (2, "n02100735", "English setter", 0), (1001, "n00001740", "entity", 9)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})


def load_matlab(path: Path) -> Any:
    from clreplay.data.sets.imagenet import _wnids_by_id

    return _wnids_by_id(path.read_bytes(), str(path.parent))


def make_pixel_cache(folder: Path) -> None:
    from clreplay.data.readers import pixel_cache

    images = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.uint8, shape=(6, 3, 8, 8))
    images[:] = np.arange(6 * 3 * 8 * 8, dtype=np.int64).reshape(images.shape) % 256
    images.flush()
    with (folder / "x.npy").open("ab") as file:
        file.write(pixel_cache._seal(torch.from_numpy(images)))


def load_pixel_cache(path: Path) -> Any:
    from clreplay.data.readers.pixel_cache import map_images

    return map_images(path, (6, 3, 8, 8))


def image_kind(name: str, kind: str) -> Kind:
    file = f"pets/train/cat/0.{kind.lower()}"
    return Kind(name, file, lambda folder: pets(folder, kind) and None, lambda path: load_images_of(path.parents[2]))


KINDS = (
    Kind(
        "memory", "memory.safetensors", lambda folder: memory().save(folder / "memory.safetensors"), load_memory, True
    ),
    Kind("class cache", "ab/abcd.safetensors", make_class_cache, load_class_cache, True),
    Kind("weight cache", "w.safetensors", make_weights, load_weights, True),
    Kind("pixel cache", "x.npy", make_pixel_cache, load_pixel_cache, True),
    Kind("progress", "work.progress", make_progress, load_progress, True),
    Kind("finished", "work.progress.finished", make_finished, load_finished, True),
    Kind("training", "network.training", make_training, load_training, True),
    Kind("table store", "store.sqlite", make_store, load_store, True),
    Kind("results.csv", "results.csv", make_results, load_results),
    Kind("settings.yaml", "settings.yaml", make_settings, load_settings),
    Kind("recipe", "mine.yaml", make_recipe, load_recipe),
    Kind("zip", "pets.zip", make_zip, load_images_of),
    Kind("tar", "pets.tar", lambda folder: make_tar(folder, "pets.tar", "w:"), load_images_of),
    Kind("tar.gz", "pets.tgz", lambda folder: make_tar(folder, "pets.tgz", "w:gz"), load_images_of),
    Kind("Parquet", "train.parquet", make_parquet, lambda path: load_images_of(path.parent)),
    Kind("MNIST .gz", "train-images-idx3-ubyte.gz", make_idx, load_idx),
    Kind("MATLAB", "meta.mat", make_matlab, load_matlab, share=0.2),
    image_kind("PNG", "PNG"),
    image_kind("JPEG", "JPEG"),
)
