"""The dataset card of an export: a README.md with YAML front matter, as the Hugging Face hub reads it."""

from __future__ import annotations

import bisect
import textwrap
from pathlib import Path
from typing import Any

import yaml

from clreplay.memory.formats.eight_bits import Rounded
from clreplay.memory.formats.pictures import Pictures

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
"""The hub's categories of sizes, by the number of rows that they end at."""


def title(pictures: Pictures) -> str:
    """What a memory is, in a few words: ``cifar10, 10 images of each of 10 classes by ddm``."""
    counts = sorted({one.count for one in pictures.classes})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    data, method = pictures.info.get("dataset"), pictures.info.get("method")
    classes = len(pictures.classes)
    of = f"{each} image{'' if counts == [1] else 's'} of {'each of ' if classes > 1 else ''}"
    of += f"{classes} class{'' if classes == 1 else 'es'}"
    return f"{f'{data}, ' if data else ''}{of}{f' by {method}' if method else ''}"


def write_card(rounded: Rounded, path: Path, shard: str, size: int, address: str) -> None:
    """Write the card.

    Args:
        shard: path of the Parquet file from the card.
        size: its bytes.
        address: that ``ReplayMemory.load`` takes.
    """
    front = yaml.safe_dump(_front_matter(rounded, shard, size), sort_keys=False, allow_unicode=True, width=1000)
    path.write_text(f"---\n{front}---\n\n{_body(rounded, address)}", encoding="utf-8")


def _front_matter(rounded: Rounded, shard: str, size: int) -> dict[str, Any]:
    pictures = rounded.pictures
    names = pictures.table()[1]
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": {str(i): name for i, name in enumerate(names)}}}},
    ]
    if pictures.scale is not None:
        features += [{"name": name, "dtype": "float32"} for name in ("scale", "offset")]
    n = len(pictures.images)
    return {
        "pretty_name": f"A memory of {title(pictures)}",
        "task_categories": ["image-classification"],
        "size_categories": [[*_SIZES.values(), "n>1M"][bisect.bisect_right(list(_SIZES), n)]],
        "tags": ["clreplay", "dataset-condensation", "continual-learning"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": shard}]}],
        "dataset_info": {
            "features": features,
            "splits": [{"name": "train", "num_bytes": size, "num_examples": n}],
            "download_size": size,
            "dataset_size": size,
        },
    }


def _body(rounded: Rounded, address: str) -> str:
    pictures = rounded.pictures
    info, (channels, height, width) = pictures.info, pictures.shape
    lines = [f"# A memory of {title(pictures)}", ""]
    lines += [
        "A small set of images to train a classifier on in the place of the real data set, or as the replay memory of "
        f"a continual learner: {len(pictures.images)} images of {width} x {height} pixels, {channels} "
        f"channel{'' if channels == 1 else 's'}, made with clreplay.",
        "",
        "## How it was made",
        "",
    ]
    lines += [f"- {line}" for line in made_how(info)] or ["- Nothing is recorded."]
    lines += ["", "## How to train with it", ""]
    lines += [*_training(pictures, address), ""]
    if rounded.outside:
        lines += [f"{_sentence(rounded.notice('the columns scale and offset'))}", ""]
    return "\n".join(lines)


def made_how(info: dict[str, Any]) -> list[str]:
    """Where a memory comes from, by what is recorded: a line each."""
    lines = []
    if "dataset" in info:
        lines.append(f"Data set: {info['dataset']}")
    if "method" in info:
        lines.append(f"Recipe: {info['method']}")
    if settings := info.get("settings"):
        lines.append("Settings: " + ", ".join(f"`{name}={value}`" for name, value in settings.items()))
    if made := info.get("made_with"):
        lines.append("Made with: " + "; ".join(f"clreplay {one['clreplay']} at commit {one['commit']}" for one in made))
    return lines


def _training(pictures: Pictures, address: str) -> list[str]:
    ours = f"""
        ```python
        from clreplay import ReplayMemory

        memory = ReplayMemory.load("{address}")
        # One operator a batch; add _flip where a mirrored image means the same.
        for images, labels in memory.loader(batch_size=256, augment="color_crop_cutout_scale_rotate"):
            ...
        ```

        Or without clreplay, network input is made of `image` so:
    """
    pixels = "torch.from_numpy(numpy.array(row['image'])) / 255"
    if pictures.scale is not None:
        pixels += " * row['scale'] + row['offset']"
    if pictures.normalization is None:
        steps = [f"network_input = {pixels}   # channels last"]
    else:
        mean, std = list(pictures.normalization.mean), list(pictures.normalization.std)
        steps = [f"pixels = {pixels}"]
        steps.append(f"network_input = (pixels - torch.tensor({mean})) / torch.tensor({std})   # channels last")
    return [textwrap.dedent(ours).strip(), "", "```python", *steps, "```"]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
