"""Memories as files that others read: pictures in folders, arrays, and data sets of the Hugging Face hub; and back.

What goes out are the images that one trains on, decoded, with labels, names and all that is known of them; the memory
itself, as it stores its pictures, is the file of :meth:`clreplay.ReplayMemory.save`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clreplay.memory.formats import npz, parquet_file, png_folder
from clreplay.memory.formats.eight_bits import OUTSIDE, Rounded, read_back, to_eight_bits
from clreplay.memory.formats.pictures import Exportable, Pictures
from clreplay.runtime.files import replacing, replacing_folder

logger = logging.getLogger(__name__)
OWN_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Format:
    """A way out of a memory.

    Attributes:
        name: what ``to`` calls it.
        what: it is, in a few words; the help of a command line may say it.
        suffix: of a target that is a file of this format; empty where it is always a folder.
        write: fills a file, or an empty folder, with pictures; it is told which, and where they can be loaded from.
        folder: whether targets without the suffix are folders.
        exact: whether it takes float images, and any number of channels; others take pictures of 8 bits.
        kept_in: where it keeps an image's scale and offset.
        marks: files in a folder of this format, by which it is known again.
    """

    name: str
    what: str
    suffix: str
    write: Callable[[Rounded, Path, bool, str], None]
    folder: bool = True
    exact: bool = False
    kept_in: str = ""
    marks: tuple[str, ...] = ()


def _write_parquet(rounded: Rounded, path: Path, is_file: bool, address: str) -> None:
    if is_file:
        parquet_file.write_file(rounded, path)
    else:
        parquet_file.write(rounded, path, address)


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "png",
            "a folder of PNG files by class, as torchvision's ImageFolder takes it",
            "",
            lambda rounded, path, *_: png_folder.write(rounded, path),
            kept_in=png_folder.ABOUT,
            marks=(png_folder.ABOUT,),
        ),
        Format(
            "npz",
            "a NumPy archive of images and labels, exact",
            ".npz",
            lambda rounded, path, *_: npz.write(rounded.pictures, path),
            folder=False,
            exact=True,
        ),
        Format(
            "parquet",
            "a folder with a Parquet file, a dataset card and Croissant metadata, as the Hugging Face hub takes it",
            ".parquet",
            _write_parquet,
            kept_in="the columns scale and offset",
            marks=("README.md", "croissant.json"),
        ),
    )
}
"""Formats by name."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote; as a text, the line that says it.

    Attributes:
        path: of the file or folder.
        to: the format's name.
        images, classes, bytes: how many were written.
        outside: pixel values that lie outside the range of a picture.
        error: by how much any value that is read back may differ, in pixel codes (of 255).
        notice: the line about values outside; empty if there are none.
    """

    path: Path
    to: str
    images: int
    classes: int
    bytes: int
    outside: int = 0
    error: float = 0.0
    notice: str = ""

    def __str__(self) -> str:
        images = f"{self.images:,} image{'' if self.images == 1 else 's'}"
        classes = f"{self.classes} class{'' if self.classes == 1 else 'es'}"
        return f"{self.path}: {images} of {classes} as {self.to}, {_size(self.bytes)}, {read_back(self.error)}"


def export(
    memory: Exportable,
    target: str | os.PathLike[str],
    to: str | None = None,
    *,
    overwrite: bool = False,
    outside: str = "scale",
    address: str | None = None,
) -> Exported:
    """Write the training images of a memory; :meth:`clreplay.ReplayMemory.load` reads them back.

    Nothing half-written is ever at the target: it is written beside it and takes its name at the end.

    Args:
        memory: a :class:`clreplay.ReplayMemory`.
        target: the folder, or the file.
        to: one of :data:`FORMATS`; None takes the one that the target's ending says, ``png`` where it says none. A
            target of ``npz`` gets that ending; one of ``parquet`` that ends so is the Parquet file alone.
        overwrite: replace what is there. A folder is replaced only if it is empty or was exported.
        outside: what becomes of pixels outside [0, 1], which condensed images have, in formats of 8 bits: ``scale``
            gives an image that has any a scale and an offset, by which all its pixels are read back to rounding;
            ``clip`` cuts them, so that the pictures can be trained on as they are. It is warned of in one line.
        address: a dataset card tells to load the memory from there, and messages call it so; None stands for the
            target.

    Returns:
        what was written; print it.

    Raises:
        ValueError: the memory is empty, there is no such format, it does not know so many channels, or the folder to
            replace holds something else.
        FileExistsError: there is something at the target and it is not to be replaced.
        OSError: it cannot be written.
    """
    path = Path(target).expanduser()
    form = _find_format(path, to)
    if outside not in OUTSIDE:
        raise ValueError(f"outside must be one of {', '.join(OUTSIDE)}, got {outside!r}")
    if not form.folder and path.suffix.lower() != form.suffix:
        path = path.with_name(path.name + form.suffix)
    is_file = bool(form.suffix) and path.suffix.lower() == form.suffix
    check_target(path, form, is_file, overwrite)
    pictures = Pictures.of(memory)
    if not form.exact:
        png_folder.check_channels(pictures.shape[0], form.name)
    rounded = Rounded(pictures, 0, 0, 0.0, False) if form.exact else to_eight_bits(pictures, outside)
    if is_file:
        path.parent.mkdir(parents=True, exist_ok=True)
    with (replacing if is_file else replacing_folder)(path) as partial:
        form.write(rounded, partial, is_file, address or path.name)
        size = sum(file.stat().st_size for file in [partial, *partial.rglob("*")] if file.is_file())
    notice = rounded.notice(form.kept_in)
    if notice:
        logger.warning("%s: %s", address or path, notice)
    return Exported(
        path, form.name, len(pictures.images), len(pictures.classes), size, rounded.outside, rounded.error, notice
    )


def check_target(path: Path, form: Format, is_file: bool, overwrite: bool) -> None:
    """Whether something may be written there.

    Raises:
        ValueError: a folder to replace holds what no export wrote.
        FileExistsError: there is something and it is not to be replaced.
    """
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists already; choose another target, or pass overwrite=True (--force)")
    if path.is_dir() == is_file:
        raise ValueError(f"{path} is a {'folder' if is_file else 'file'}, the export is none; choose another target")
    marked = any(all((path / name).is_file() for name in one.marks) for one in FORMATS.values() if one.marks)
    if path.is_dir() and any(path.iterdir()) and not marked:
        raise ValueError(f"{path} holds what no export wrote, so it is not replaced; choose another target")


def _find_format(path: Path, to: str | None) -> Format:
    if path.suffix.lower() == OWN_SUFFIX:
        raise ValueError(f"{path} has the ending of a memory's own file, which memory.save writes; choose another")
    if to is None:
        ending = path.suffix.lower()
        to = next((one.name for one in FORMATS.values() if one.suffix and one.suffix == ending), "png")
    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    return FORMATS[to]


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 10_000 else f"{count / 1000:,.0f} kB"


def read_export(path: Path) -> tuple[Pictures, float | None] | None:
    """The pictures at a path, and by how much they may differ from what was exported, in pixel codes; None for the
    second where nobody knows, None alone where it is nothing that is read here.

    Raises:
        ValueError: they are damaged.
    """
    if path.suffix.lower() == ".npz" and path.is_file():
        return npz.read(path)
    if (path.suffix.lower() == ".parquet" and path.is_file()) or (path.is_dir() and parquet_file.shards(path)):
        return parquet_file.read(path)
    if path.is_dir() and png_folder.is_picture_folder(path):
        return png_folder.read(path)
    return None
