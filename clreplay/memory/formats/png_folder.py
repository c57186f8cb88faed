"""A folder of PNG files by class, as torchvision's ``ImageFolder`` takes it, with ``memory.json`` beside them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clreplay.data.readers.bounds import read_small
from clreplay.data.readers.image_files import image_side
from clreplay.data.readers.trees import is_image
from clreplay.memory.class_names import folder_names
from clreplay.memory.formats.eight_bits import Rounded
from clreplay.memory.formats.pictures import ExportedClass, Pictures, read_about

ABOUT = "memory.json"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def check_channels(channels: int, to: str) -> None:
    """PNG knows grey pictures, colour, and colour with transparency.

    Raises:
        ValueError: any other number of channels.
    """
    if channels not in MODES:
        raise ValueError(
            f"{to} takes pictures of {', '.join(map(str, MODES))} channels, the memory has {channels}; "
            "export to npz, which takes any"
        )


def encode_png(picture: Tensor) -> bytes:
    """A picture, uint8 (c, h, w), as the bytes of a PNG file."""
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if len(picture) == 1 else pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def decode_picture(data: bytes, where: str, shape: tuple[int, ...] | None) -> Tensor:
    """The picture, uint8 (c, h, w), of a file in any format that Pillow reads.

    Args:
        where: the message calls it so.
        shape: (c, h, w) that it must have, which its header is asked for; None takes grey ones as 1, and all others as
            3 channels.

    Raises:
        ValueError: it cannot be read, or has another size.
    """
    try:
        width, height = image_side(data)  # more pixels than Pillow's bound are refused by the header
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut every value above 255 without a warning
                raise _Unfit(f"{where} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            channels = shape[0] if shape else 1 if image.mode in ("1", "L") else 3
            if shape and (height, width) != tuple(shape[1:]):
                found = (channels, height, width)
                raise _Unfit(f"{where} is a picture of {_size(found)}, the others are of {_size(shape)}")
            pixels = np.array(image.convert(MODES[channels]))
    except _Unfit:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is no picture that can be read ({error})") from error
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1)


class _Unfit(ValueError):
    """A picture that can be read is not of the size that is said, or of more than 8 bits."""


def file_names(pictures: Pictures) -> list[str]:
    """Paths of the pictures' files, ``CLASS/0000.png``, in their order."""
    folders = class_folders(pictures)
    counts = {one.label: one.count for one in pictures.classes}
    width = max(4, len(str(max(counts.values()) - 1)))
    return [f"{folders[label]}/{i:0{width}d}.png" for label, count in counts.items() for i in range(count)]


def class_folders(pictures: Pictures) -> dict[int, str]:
    """Folders by label."""
    labels, names = pictures.table()
    return dict(zip(labels, folder_names(names, labels)))


def read_shape(about: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    """(c, h, w) of the pictures, as an export says it.

    Raises:
        LookupError, TypeError: it is not said.
        ValueError: no picture can have it.
    """
    channels, height, width = (int(side) for side in about["shape"])
    if channels not in MODES or height < 1 or width < 1:
        raise ValueError(f"{where} says pictures of shape {(channels, height, width)}, which none has; it is damaged")
    return channels, height, width


def write(rounded: Rounded, folder: Path) -> None:
    """Fill a folder.

    Raises:
        ValueError: PNG does not know so many channels.
    """
    pictures = rounded.pictures
    check_channels(pictures.shape[0], "png")
    names, folders = file_names(pictures), class_folders(pictures)
    for one in pictures.classes:
        (folder / folders[one.label]).mkdir()
    for name, picture in zip(names, pictures.images):
        (folder / name).write_bytes(encode_png(picture))
    about = pictures.about()
    for one in about["classes"]:
        one["folder"] = folders[one["label"]]
    files: dict[str, list[float]] = {}
    if pictures.scale is not None and pictures.offset is not None:
        ranges = zip(names, pictures.scale.tolist(), pictures.offset.tolist())
        files = {name: [scale, offset] for name, scale, offset in ranges if (scale, offset) != (1.0, 0.0)}
    said = {
        "what": "training images of a clreplay memory: ReplayMemory.load reads this folder. A pixel on the scale from "
        "0 to 1 is code / 255 * scale + offset, with scale and offset of the image in scale_and_offset, or 1 and 0; "
        "network input is (pixel - mean) / std, with mean and std by channel in normalization",
        **about,
        "error": rounded.error,
        "scale_and_offset": files,
    }
    (folder / ABOUT).write_text(_json(said), encoding="utf-8")


def _json(said: dict[str, Any]) -> str:
    """JSON with a line a key, a class and a file."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = []
    for key, value in said.items():
        if isinstance(value, dict) and len(value) > 1:
            inside = ",\n".join(f"  {text(name)}: {text(one)}" for name, one in value.items())
            lines.append(f" {text(key)}: {{\n{inside}\n }}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            inside = ",\n".join(f"  {text(one)}" for one in value)
            lines.append(f" {text(key)}: [\n{inside}\n ]")
        else:
            lines.append(f" {text(key)}: {text(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def is_picture_folder(folder: Path) -> bool:
    """Whether it is such a folder, or any folder of class folders with pictures."""
    return (folder / ABOUT).is_file() or bool(_class_folders(folder))


def read(folder: Path) -> tuple[Pictures, float | None]:
    """The pictures in a folder, and by how much they may differ from what was exported, in pixel codes.

    A folder without ``memory.json`` is read as torchvision's ``ImageFolder`` does: labels are the places of the class
    folders in their order; nobody knows the normalisation and the difference.

    Raises:
        ValueError: pictures are missing, damaged, or of several sizes.
    """
    if not (folder / ABOUT).is_file():
        return _read_plain(folder), None
    where = str(folder / ABOUT)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        said = read_about(about, where)
        folders = [str(one["folder"]) for one in about["classes"]]
        ranges = {
            str(name): (float(scale), float(offset)) for name, (scale, offset) in about["scale_and_offset"].items()
        }
        shape, error = read_shape(about, where), float(about["error"])
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as failed:
        raise ValueError(f"{where} is damaged ({type(failed).__name__}: {failed}); export the memory again") from failed
    names: list[str] = []
    for one, name in zip(said["classes"], folders):
        found = _pictures_in(folder, name)
        if len(found) != one.count:
            raise ValueError(
                f"{folder / name} must have the {one.count} pictures of class {one.label} that {ABOUT} names, got "
                f"{len(found)}; export the memory again, or remove {ABOUT} to read the pictures as they are"
            )
        names += found
    images = _decoded(folder, names, shape)
    pictures = Pictures(images, **said)
    if ranges:
        pairs = torch.tensor([ranges.get(name, (1.0, 0.0)) for name in names])
        pictures = replace(pictures, scale=pairs[:, 0].contiguous(), offset=pairs[:, 1].contiguous())
    return pictures, error


def _read_plain(folder: Path) -> Pictures:
    folders = _class_folders(folder)
    found = {name: _pictures_in(folder, name) for name in folders}
    images = _decoded(folder, [path for paths in found.values() for path in paths], None)
    classes = [ExportedClass(label, len(paths)) for label, paths in enumerate(found.values())]
    return Pictures(images, classes, dict(enumerate(folders)), None)


def _class_folders(folder: Path) -> list[str]:
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [name for name in inside if _pictures_in(folder, name)]


def _pictures_in(folder: Path, name: str) -> list[str]:
    """Paths of the pictures in a class folder, sorted.

    Raises:
        ValueError: the name leads out of the folder.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{folder / ABOUT} names the class folder {name!r}; it is damaged")
    inside = folder / name
    files = sorted(path.name for path in inside.iterdir()) if inside.is_dir() else []
    return [f"{name}/{file}" for file in files if is_image(file)]


def _decoded(folder: Path, names: Sequence[str], shape: tuple[int, ...] | None) -> Tensor:
    def one(name: str) -> Tensor:
        try:
            data = read_small(folder / name)
        except ValueError as error:
            raise ValueError(f"{folder / name} is not read: {error}") from error
        return decode_picture(data, str(folder / name), shape)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        images = list(threads.map(one, names))
    return stacked(images, [str(folder / name) for name in names], shape)


def stacked(images: Sequence[Tensor], names: Sequence[str], shape: Any = None) -> Tensor:
    """Pictures of one shape, (n, c, h, w).

    Raises:
        ValueError: there are several shapes, or another than the given one.
    """
    wanted = tuple(images[0].shape if shape is None else shape)
    for image, name in zip(images, names):
        if tuple(image.shape) != wanted:
            raise ValueError(f"{name} is a picture of {_size(image.shape)}, the others are of {_size(wanted)}")
    return torch.stack(list(images))


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels and {channels} channel{'' if channels == 1 else 's'}"
