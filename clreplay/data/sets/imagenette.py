"""ImageNette and ImageWoof as fast.ai released them (version 2, Howard 2019), at 128x128."""

from __future__ import annotations

from pathlib import Path

from clreplay.data.dataset import Dataset
from clreplay.data.normalization import NORMALIZATIONS
from clreplay.data.readers.counts import Counts
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.spec import ImageSpec
from clreplay.data.registry import check_channels, register_dataset
from clreplay.data.sets.imagenet import SUBSETS

_SERVER = "https://s3.amazonaws.com/fast-ai-imageclas"
_TEST_IMAGES = 50  # of a class of ImageNet-1K


def _released(name: str, title: str, stem: str, md5: str, counts: dict[str, Counts]) -> ImageSpec:
    part = SUBSETS[f"{name}1k"]
    train = part.counts["train"].per_class
    assert part.classes is not None and part.class_names is not None and isinstance(train, tuple)
    # Class folders in the order of their names, as everybody reads them.
    rows = sorted(zip(part.classes, part.class_names, train, strict=True))
    return ImageSpec(
        name=name,
        title=title,
        target=Target(128, resize=True),
        counts=counts,
        normalization=NORMALIZATIONS["imagenet"],
        folders=(stem, f"{stem}-320", f"{stem}-160", name),
        num_classes=len(rows),
        classes=tuple(wnid for wnid, _, _ in rows),
        class_names=tuple(title for _, title, _ in rows),
        # The release splits ImageNet's training and validation images anew, 70 to 30, and leaves none out.
        whole=tuple(count + _TEST_IMAGES for _, _, count in rows),
        archives=(f"{stem}.tgz", f"{stem}-320.tgz", f"{stem}-160.tgz"),
        test_folders=("val", "validation", "valid"),
        url=f"{_SERVER}/{stem}.tgz",
        md5=md5,
        ways_out=(f"put {stem}.tgz there, from {_SERVER}/{stem}.tgz; it is read without unpacking",),
    )


SPECS = {
    "imagenette": _released(
        "imagenette",
        "ImageNette",
        "imagenette2",
        "fe2fc210e6bb7c5664d602c3cd71e612",
        {
            "train": Counts(9469, (963, 955, 993, 858, 941, 956, 961, 931, 951, 960)),
            "test": Counts(3925, (387, 395, 357, 386, 409, 394, 389, 419, 399, 390)),
        },
    ),
    "imagewoof": _released(
        "imagewoof",
        "ImageWoof",
        "imagewoof2",
        "9aafe18bcdb1632c4249a76c458465ba",
        {"train": Counts(9025), "test": Counts(3929)},
    ),
}


@register_dataset("imagenette", "imagewoof")
def load_released(name: str, root: Path, *, download: bool, channels: int | None) -> Dataset:
    """ImageNette or ImageWoof in fast.ai's split, resized to 128x128; the full-size release is preferred.

    Raises: see `clreplay.data.readers.image_sets.load_images`.
    """
    check_channels(name, channels, (3,))
    return load_images(SPECS[name], root, download=download)
