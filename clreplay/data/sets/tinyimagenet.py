"""TinyImageNet (Stanford's CS231n course): 200 classes of ImageNet at 64x64, evaluated on the validation images."""

from __future__ import annotations

from pathlib import Path

from clreplay.data.dataset import Dataset
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers.counts import even
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.layouts import class_names_in, folder_pairs, more, split_folders
from clreplay.data.readers.spec import ImageSpec, Layout, Pairs
from clreplay.data.readers.trees import Tree, is_image
from clreplay.data.registry import check_channels, register_dataset

_ANNOTATIONS = "val_annotations.txt"
_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def tiny_layout(tree: Tree, spec: ImageSpec) -> Layout:
    """The official layout, where all validation images are in one folder beside a list of their classes.

    `wnids.txt` lists the classes, `train/WNID/images/` has the training images, `val/images/` the validation images
    and `val/val_annotations.txt` their classes. Copies whose validation images were sorted into class folders are
    read as such. Classes are in the order of their sorted WordNet ids. `test/` has no labels and is not read.

    Raises:
        InvalidDataError: a folder or an image is missing; it is named.
    """
    folders = split_folders(tree, spec)
    listed = tree.read("wnids.txt")
    classes = tuple(sorted(listed.decode().split() if listed else class_names_in(tree, folders["train"])))
    train = folder_pairs(tree, folders["train"], classes, spec)
    _check_training_files(tree, train, spec)
    annotations = tree.read(f"{folders['test']}/{_ANNOTATIONS}")
    if annotations is None or set(classes) <= set(tree.folders(folders["test"])):
        test = folder_pairs(tree, folders["test"], classes, spec)
    else:
        test = _annotated(tree, folders["test"], annotations.decode(), classes)
    return Layout(classes, {"train": train, "test": test}, folders)


def tiny_titles(tree: Tree, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The first name of each class in `words.txt`, which lists far more than the 200; the ids where it is missing."""
    words = tree.read("words.txt")
    known = dict(line.split("\t", 1) for line in (words or b"").decode().splitlines() if "\t" in line)
    return tuple(known.get(name, name).split(",")[0].strip() for name in classes)


def _annotated(tree: Tree, folder: str, annotations: str, classes: tuple[str, ...]) -> Pairs:
    present = {Path(path).name: path for path in tree.files(folder) if is_image(path)}
    pairs = []
    for number, line in enumerate(annotations.splitlines(), start=1):
        fields = line.split()
        if len(fields) < 2 or fields[1] not in classes:
            raise InvalidDataError(
                f"{tree.where}/{folder}/{_ANNOTATIONS} line {number} must name an image and one of the "
                f"{len(classes)} classes, got {line!r}; fetch it again"
            )
        if fields[0] not in present:
            raise InvalidDataError(
                f"{tree.where}/{folder}/images/{fields[0]} is missing, which {_ANNOTATIONS} lists; copy it again"
            )
        pairs.append((present[fields[0]], fields[1]))
    return pairs


def _check_training_files(tree: Tree, pairs: Pairs, spec: ImageSpec) -> None:
    """Official files are numbered from `n01443537_0.JPEG`, so the message can name a missing one."""
    present: dict[str, set[str]] = {}
    for path, name in pairs:
        present.setdefault(name, set()).add(Path(path).name)
    for name, files in present.items():
        wanted = [f"{name}_{number}.JPEG" for number in range(spec.counts["train"].of_class(0)[0])]
        missing = [file for file in wanted if file not in files]
        # If all are missing, the files have other names, and only their number can be checked, which is done later.
        if missing and len(missing) < len(wanted):
            raise InvalidDataError(
                f"{tree.where}/train/{name} lacks {missing[0]}{more(missing)}; copy or fetch it again"
            )


SPEC = ImageSpec(
    name="tinyimagenet",
    title="TinyImageNet",
    target=Target(64),
    counts={"train": even(500, 200), "test": even(50, 200)},
    normalization=NORMALIZATIONS["tinyimagenet"],
    folders=("tiny-imagenet-200", "tinyimagenet", "tiny-imagenet"),
    num_classes=200,
    archives=("tiny-imagenet-200.zip",),
    test_folders=("val", "valid", "validation"),
    layout=tiny_layout,
    titles=tiny_titles,
    url=_URL,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    ways_out=(f"put tiny-imagenet-200.zip there, from {_URL}; it is read without unpacking",),
)


@register_dataset("tinyimagenet")
def load_tinyimagenet(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """TinyImageNet: 500 training and 50 test images of each of 200 classes; the test images are the validation images.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    check_channels(name, channels, (3,))
    return load_images(SPEC, root, download=download)
