"""ImageNet-1K (ILSVRC 2012) at 64x64, and the two subsets of ten of its classes at 128x128."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from clreplay.data.dataset import Dataset
from clreplay.data.errors import InvalidDataError
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers.counts import Counts, even
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.layouts import class_names_in, folder_pairs, more, split_folders
from clreplay.data.readers.matlab import struct_rows
from clreplay.data.readers.spec import ImageSpec, Layout, Pairs
from clreplay.data.readers.trees import Tree, is_image
from clreplay.data.registry import check_channels, register_dataset

_SOLUTION = "LOC_val_solution.csv"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_WAYS_OUT = (
    "register at https://image-net.org/download and fetch ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz; unpack the first into imagenet/train/ there and each WNID.tar in it into "
    "imagenet/train/WNID/, the second into imagenet/val/, the third into imagenet/",
    "or unpack imagenet-object-localization-challenge.zip, from kaggle.com, there",
)


# --- layouts ----------------------------------------------------------------------------------------------------


def imagenet_layout(tree: Tree, spec: ImageSpec) -> Layout:
    """`train/WNID/` and either `val/WNID/` or `val/ILSVRC2012_val_00000001.JPEG` and so on, with a file of answers.

    That file is Kaggle's `LOC_val_solution.csv` or, from the development kit, `ILSVRC2012_validation_ground_truth.txt`
    with `meta.mat`. It is looked for beside `train`, in `val`, in the kit's folder, and where Kaggle's archive puts it.

    Raises:
        InvalidDataError: a folder, an image or the answers are missing.
    """
    folders = split_folders(tree, spec)
    classes = spec.classes or tuple(class_names_in(tree, folders["train"]))
    train = folder_pairs(tree, folders["train"], classes, spec)
    if tree.folders(folders["test"]):
        test = folder_pairs(tree, folders["test"], classes, spec)
    else:
        test = _flat_pairs(tree, folders["test"], classes, spec)
    return Layout(classes, {"train": train, "test": test}, folders)


def imagenet_titles(tree: Tree, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The first name of each class in Kaggle's `LOC_synset_mapping.txt`; the WordNet ids where it is missing."""
    text = _nearby(tree, "LOC_synset_mapping.txt") or b""
    known = dict(line.split(" ", 1) for line in text.decode(errors="replace").splitlines() if " " in line)
    return tuple(known.get(name, name).split(",")[0].strip() for name in classes)


def _flat_pairs(tree: Tree, folder: str, classes: tuple[str, ...], spec: ImageSpec) -> Pairs:
    paths = [path for path in tree.files(folder) if is_image(path)]
    answers = _answers(tree, folder)
    present = {PurePosixPath(path).stem for path in paths}
    if missing := sorted(name for name, wnid in answers.items() if wnid in classes and name not in present):
        raise InvalidDataError(f"{tree.where}/{folder}/{missing[0]}.JPEG is missing{more(missing)}; copy it again")
    pairs = []
    for path in paths:
        wnid = answers.get(PurePosixPath(path).stem)
        if wnid is None:
            raise InvalidDataError(f"{tree.where}/{path} is not among the answers of {spec.title}; move it away")
        if wnid in classes:
            pairs.append((path, wnid))
    return pairs


def _answers(tree: Tree, folder: str) -> dict[str, str]:
    """The class of every validation image, by its file's name without the ending."""
    solution = _nearby(tree, _SOLUTION, folder)
    if solution is not None:
        rows = [line.split(",") for line in solution.decode(errors="replace").splitlines()[1:] if line.strip()]
        if any(len(row) < 2 or not row[1].split() for row in rows):
            raise InvalidDataError(f"{_SOLUTION} near {tree.where} must have lines ImageId,WNID ...; fetch it again")
        return {name: answer.split()[0] for name, answer, *_ in rows}
    truth, meta = (_nearby(tree, name, folder) for name in (_TRUTH, _META))
    if truth is not None and meta is not None:
        wnids = _wnids_by_id(meta, tree.where)
        try:
            numbers = [int(number) for number in truth.split()]
        except ValueError as error:
            raise InvalidDataError(f"{_TRUTH} near {tree.where} is damaged: {error}; fetch it again") from error
        if unknown := sorted(set(numbers) - set(wnids)):
            raise InvalidDataError(f"{_TRUTH} near {tree.where} has class {unknown[0]}, which {_META} does not know")
        # The kit's numbers are not those of the sorted WordNet ids.
        return {f"ILSVRC2012_val_{row:08d}": wnids[number] for row, number in enumerate(numbers, start=1)}
    raise InvalidDataError(
        f"{tree.where}/{folder} has no class folders, and there is neither {_SOLUTION} nor {_TRUTH} with {_META} "
        "(from ILSVRC2012_devkit_t12.tar.gz) to tell the images' classes; put them beside train"
    )


def _wnids_by_id(meta: bytes, where: str) -> dict[int, str]:
    try:
        rows = struct_rows(meta, "synsets", ("ILSVRC2012_ID", "WNID", "num_children"))
        return {int(number): str(wnid) for number, wnid, children in rows if int(children) == 0}
    except (ValueError, OverflowError) as error:
        raise InvalidDataError(f"{_META} near {where} cannot be read: {error}; fetch it again") from error


def _nearby(tree: Tree, name: str, folder: str = "") -> bytes | None:
    kit = "ILSVRC2012_devkit_t12/data"
    inside = [name, f"{folder}/{name}", f"{kit}/{name}"]
    # Kaggle's archive has the images in ILSVRC/Data/CLS-LOC and its lists at the top.
    above = ["../" * 3 + name] if Path(tree.where).parts[-3:] == ("ILSVRC", "Data", "CLS-LOC") else []
    found = (tree.read(path) for path in [*inside, *above])
    return next((content for content in found if content is not None), None)


# --- the sets ---------------------------------------------------------------------------------------------------

IMAGENET = ImageSpec(
    name="imagenet",
    title="ImageNet-1K",
    target=Target(64, resize=True),
    # The numbers of the single classes are not listed here: bounds and the total are enough to notice a missing file.
    counts={"train": Counts(1_281_167, least=732, most=1300), "test": even(50, 1000)},
    normalization=NORMALIZATIONS["imagenet"],
    folders=(
        "imagenet",
        "ImageNet",
        "imagenet-1k",
        "ILSVRC2012",
        "ILSVRC/Data/CLS-LOC",
        "imagenet/ILSVRC/Data/CLS-LOC",
    ),
    num_classes=1000,
    test_folders=("val", "validation", "valid"),
    layout=imagenet_layout,
    titles=imagenet_titles,
    ways_out=_WAYS_OUT,
)


def _subset(name: str, title: str, classes: tuple[tuple[int, str, str, int], ...]) -> ImageSpec:
    numbers, wnids, names, train = zip(*classes, strict=True)
    return replace(
        IMAGENET,
        name=name,
        title=title,
        target=Target(128, resize=True),
        counts={"train": Counts(sum(train), train), "test": even(50, len(train))},
        num_classes=len(train),
        classes=wnids,
        class_names=names,
        shard_labels=numbers,
    )


# ImageNet's number, WordNet id, name, training images; in the order of MTT's code (Cazenavette et al. 2022), which
# the papers at 128x128 follow.
SUBSETS = {
    "imagenette1k": _subset(
        "imagenette1k",
        "ImageNette from ImageNet-1K",
        (
            (0, "n01440764", "tench", 1300),
            (217, "n02102040", "English springer", 1300),
            (482, "n02979186", "cassette player", 1300),
            (491, "n03000684", "chain saw", 1194),
            (497, "n03028079", "church", 1300),
            (566, "n03394916", "French horn", 1300),
            (569, "n03417042", "garbage truck", 1300),
            (571, "n03425413", "gas pump", 1300),
            (574, "n03445777", "golf ball", 1300),
            (701, "n03888257", "parachute", 1300),
        ),
    ),
    "imagewoof1k": _subset(
        "imagewoof1k",
        "ImageWoof from ImageNet-1K",
        (
            (193, "n02096294", "Australian terrier", 1300),
            (182, "n02093754", "Border terrier", 1300),
            (258, "n02111889", "Samoyed", 1300),
            (162, "n02088364", "beagle", 1300),
            (155, "n02086240", "Shih-Tzu", 1300),
            (167, "n02089973", "English foxhound", 754),
            (159, "n02087394", "Rhodesian ridgeback", 1300),
            (273, "n02115641", "dingo", 1300),
            (207, "n02099601", "golden retriever", 1300),
            (229, "n02105641", "Old English sheepdog", 1300),
        ),
    ),
}


@register_dataset("imagenet")
def load_imagenet(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """ImageNet-1K: 1,281,167 training images, tested on the 50,000 validation images, resized to 64x64.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    check_channels(name, channels, (3,))
    return load_images(IMAGENET, root, download=download)


@register_dataset("imagenette1k", "imagewoof1k")
def load_subset(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """Ten classes cut from a copy of ImageNet-1K, with its split (50 test images a class), resized to 128x128.

    A copy that has only these classes will do. `imagenette` and `imagewoof` are the same classes as fast.ai released
    them, split anew.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    check_channels(name, channels, (3,))
    return load_images(SUBSETS[name], root, download=download)
