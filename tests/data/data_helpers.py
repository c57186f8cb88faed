"""Small data sets on disk in the layouts of the big ones, for the tests of `clreplay.data`."""

from __future__ import annotations

import functools
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clreplay.data import Dataset, InvalidDataError, load_dataset

PETS = {"train": {"cat": 4, "dog": 3, "emu": 2}, "test": {"cat": 1, "dog": 2, "emu": 1}}
"""Images of each class that the fixture `pets` writes."""


def picture(seed: int, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> Image.Image:
    """A picture of (width, height) that no other seed has."""
    random = np.random.RandomState(seed)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = random.randint(0, 256, (size[1], size[0], bands)).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if bands == 1 else pixels, mode if mode in ("L", "RGB", "RGBA") else None)


def encoded(image: Image.Image, kind: str = "JPEG", **options: bool) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, content: Image.Image | bytes | str) -> Path:
    """A file with everything above it; a picture in the kind its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content = encoded(content, "PNG" if path.suffix == ".png" else "JPEG")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_classes(folder: Path, counts: dict[str, int], first: int = 0, size: tuple[int, int] = (20, 20)) -> None:
    """`counts[name]` pictures in a folder of each name."""
    for number, (name, count) in enumerate(counts.items()):
        for each in range(count):
            write(folder / name / f"{name}_{each}.JPEG", picture(first + 100 * number + each, size))


def zipped(folder: Path, archive: Path) -> Path:
    """A folder, itself on top, as a zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path(folder.name) / path.relative_to(folder))
    return archive


def tarred(folder: Path, archive: Path, mode: str = "w:gz") -> Path:
    """A folder, itself on top, as a tar archive."""
    with tarfile.open(archive, mode) as file:
        file.add(folder, folder.name)
    return archive


def write_shard(
    path: Path,
    data: Sequence[bytes | None],
    labels: Sequence[int | None],
    column: str = "image",
    label: str = "label",
    metadata: dict[str, str] | None = None,
) -> None:
    """A Parquet file in the hub's schema, in several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = pa.array([{"bytes": each, "path": None} for each in data], kind)
    table = pa.table({column: structs, label: pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=5)


def as_torchvision_does(path: Path, size: int) -> np.ndarray:
    """What torchvision's loader and `Resize`, `CenterCrop` make of an image, uint8 (3, size, size)."""
    from torchvision.datasets.folder import pil_loader
    from torchvision.transforms import CenterCrop, Compose, Resize

    return np.asarray(Compose([Resize((size, size)), CenterCrop(size)])(pil_loader(str(path)))).transpose(2, 0, 1)


def assert_holds(dataset: Dataset, split: str, paths: Sequence[Path], size: int) -> None:
    """The split's images are those at `paths`, in this order, as torchvision decodes them."""
    images = getattr(dataset, split).images
    assert np.array_equal(images.numpy(), np.stack([as_torchvision_does(path, size) for path in paths]))


def load_folder(folder: Path, size: str = "", **options: int) -> Dataset:
    """The data set in a folder or archive; `size` is `@` and a number, or nothing."""
    return load_dataset(f"folder:{folder}{size}", **options)


def assert_refused(folder: Path, message: str, name: str = "folder:", size: str = "") -> None:
    """What is in the folder is not read as the data set `name`, with this message, and no image is kept of it."""
    with pytest.raises(InvalidDataError, match=message):
        load_folder(folder, size) if name == "folder:" else load_dataset(name, folder)
    assert not [path for path in cache_files() if path.suffix != ".json"]


def cache_files() -> list[Path]:
    """What the cache of decoded images of this test holds."""
    return sorted(Path(os.environ["XDG_CACHE_HOME"], "clreplay", "images").glob("*"))


@contextmanager
def serving(folder: Path):
    """The address of a server that gives out the files of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()
