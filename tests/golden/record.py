"""Golden values: what a rearrangement of the code must leave as it is.

    python tests/golden/record.py --write           # the committed part, beside this file
    python tests/golden/record.py --out DIR         # the whole, on this machine, at one commit
    python tests/golden/record.py --check DIR       # the whole again at another commit: every difference is printed

The committed part is text: settings that recipes resolve to, cells of the tables, flags, columns. Hashes of float
tensors belong to one machine and are recorded in a folder of one's own: memories of every recipe under both hosts
and kernels, networks after every training function, accuracies, pixels of a data set.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = ("seconds", "condense_seconds", "train_seconds", "encoder_seconds", "made_with")
EAGER = ("kernels=eager", "layout=contiguous", "parallel=operators", "classes_at_once=1")
NATIVE = ("kernels=native", "layout=channels_last", "parallel=classes", "classes_at_once=1")


# ---------------------------------------------------------------- the committed part


def settings() -> dict[str, Any]:
    """By recipe, preset and case: the settings it resolves to, by flat names."""
    import yaml

    from clreplay.recipes.cases import read_cases
    from clreplay.recipes.recipe import PRESETS, load_recipe, recipe_names, strategies_dir, training_settings

    found: dict[str, Any] = {}
    for name in (*recipe_names(), "training"):
        if name == "training":
            resolve: Callable[..., Any] = training_settings
            content = yaml.safe_load((strategies_dir() / "training.yaml").read_text(encoding="utf-8"))
            cases = read_cases(content.get("cases"), name)
        else:
            recipe = load_recipe(name)
            resolve, cases = recipe.configured, recipe.cases
        places = [(None, None), *(place for case in cases for place in case.examples())]
        for preset in PRESETS:
            for place in dict.fromkeys(places):
                values = plain(flat(resolve(preset, None, *place)))
                found[f"{name} / {preset} / {place[0]} / {place[1]}"] = values
    return found


def flat(values: Any) -> dict[str, Any]:
    """Settings by the flat names that the command line knows."""
    return values.values() if hasattr(values, "values") else asdict(values)


def tables() -> dict[str, Any]:
    """Every cell of every table."""
    from clreplay.benchmark.cells import published_cells
    from clreplay.benchmark.published import TITLES

    return {table: [plain(asdict(cell)) for cell in published_cells(table)] for table in TITLES}


def flags() -> dict[str, str]:
    """``--help`` of both command lines, of one width everywhere."""
    from clreplay.benchmark.cli import parser
    from clreplay.incremental.cli import continual_parser

    found = {}
    parsers = {
        "continual": continual_parser("digits", ""),
        "domains": continual_parser(None, "", domains=True),
        "static_tables": parser(),
    }
    for name, made in parsers.items():
        made.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=120)
        made.prog = name
        found[name] = made.format_help()
    return found


def columns() -> dict[str, Any]:
    """Columns of the files that people read."""
    from clreplay.benchmark.render import CSV_COLUMNS
    from clreplay.incremental.results_file import COLUMNS, DOMAIN_COLUMNS

    return {"results.csv": list(COLUMNS), "domains.csv": list(DOMAIN_COLUMNS), "table.csv": list(CSV_COLUMNS)}


COMMITTED: dict[str, Callable[[], Any]] = {
    "settings": settings,
    "tables": tables,
    "flags": flags,
    "columns": columns,
}


def plain(value: Any) -> Any:
    """Only what JSON knows."""
    return json.loads(json.dumps(value))


# ---------------------------------------------------------------- what belongs to a machine


def memories(work: Path) -> Iterator[tuple[str, Any]]:
    """Memories of every recipe at ``smoke`` and the accuracies of networks trained on them."""
    import pandas as pd

    from clreplay.recipes.recipe import recipe_names

    ways = {
        "core eager float32": ("none", EAGER, "float32"),
        "core native uint8": ("none", NATIVE, "uint8"),
        "avalanche eager uint8": ("avalanche", EAGER, "uint8"),
    }
    for way, (host, execution, store) in ways.items():
        out = work / way.replace(" ", "-")
        command = [sys.executable, "runs/digits_5step.py", "--preset", "smoke", "--host", host, "--no-cache"]
        command += ["--steps", "2", "--images-per-class", "3", "--networks", "2", "--store", store, "--device", "cpu"]
        command += ["--memory", *recipe_names(), "--set", *execution, "--out", str(out)]
        # A cache of its own: networks that the other commit trained must not be found.
        own = {**os.environ, "CLREPLAY_CACHE": str(work / "cache" / out.name)}
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        for path in sorted(out.glob("memory-*.safetensors")):
            yield f"{way} / {path.stem}", memory_values(path)
        rows = pd.read_csv(out / "results.csv").drop(columns=["condense_seconds", "train_seconds"])
        yield f"{way} / results.csv", rows.to_dict("records")


def memory_values(path: Path) -> dict[str, Any]:
    """All that a memory file holds, less seconds."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        held = json.loads(file.metadata()["clreplay"])
        hashes = {name: digest(file.get_tensor(name)) for name in sorted(file.keys())}
    return {**without_seconds(held), "tensors": hashes}


def without_seconds(value: Any) -> Any:
    """The same without whatever says how long something took, and at which commit."""
    if isinstance(value, Mapping):
        return {name: without_seconds(held) for name, held in value.items() if name not in SECONDS}
    return [without_seconds(held) for held in value] if isinstance(value, list) else value


def trained() -> Iterator[tuple[str, Any]]:
    """Networks after each of the training functions, and the measures of them."""
    import torch

    from clreplay.data import load_digits
    from clreplay.networks import ConvNet, reinitialize
    from clreplay.training.cutmix import CutMixSettings, train_with_cutmix
    from clreplay.training.evaluate import accuracies_together, accuracy, share_right
    from clreplay.training.loop import train, train_further
    from clreplay.training.settings import TrainingSettings
    from clreplay.training.stacked import train_together

    data = load_digits()
    images, labels, normalization = data.train.images[:100], data.train.labels[:100], data.normalization
    small = {"width": 16, "epochs": 4, "batch_size": 32, "lr": 0.05}

    def fresh(seed: int, norm: str = "instance") -> ConvNet:
        network = ConvNet(num_classes=10, channels=1, image_size=32, width=16, norm=norm)
        reinitialize(network, seed)
        return network

    def values(*networks: torch.nn.Module) -> list[dict[str, str]]:
        return [{name: digest(tensor) for name, tensor in network.state_dict().items()} for network in networks]

    for norm in ("instance", "batch"):
        network = fresh(0, norm)
        train(network, images, labels, TrainingSettings(norm=norm, **small), (0, "train"), normalization)
        yield f"train {norm}", values(network)
        yield f"accuracy {norm}", accuracy(network, data.test, normalization, torch.device("cpu"))
        yield f"share_right {norm}", float(share_right(network, normalization.apply(images), labels))
        network = fresh(1, norm)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        shares = [
            train_further(network, images, labels, optimizer, (0, "further", i), normalization=normalization, **length)
            for i, length in enumerate(({"steps": 5, "batch_size": 30}, {"epochs": 2, "augment": "crop+flip"}))
        ]
        yield f"train_further {norm}", [*values(network), *map(float, shares)]
        network = fresh(2, norm)
        settings = CutMixSettings(norm=norm, **small)
        train_with_cutmix(network, images, labels, settings, (0, "cutmix"), normalization)
        yield f"train_with_cutmix {norm}", values(network)
        stack = [fresh(seed, norm) for seed in (3, 4)]
        settings = TrainingSettings(norm=norm, **small)
        train_together(stack, images, labels, settings, [(0, "a"), (0, "b")], normalization)
        yield f"train_together {norm}", values(*stack)
        yield f"accuracies_together {norm}", accuracies_together(stack, data.test, normalization, torch.device("cpu"))


def pixels() -> Iterator[tuple[str, Any]]:
    """Pixels and labels of data sets as they are loaded."""
    from clreplay.data import DataNotFoundError, load_dataset

    for name in ("digits", "cifar10", "cifar100"):
        with contextlib.suppress(DataNotFoundError):
            data = load_dataset(name)
            parts = {"train": data.train, "test": data.test}
            yield (
                name,
                {
                    "classes": list(data.class_names),
                    "normalization": plain(asdict(data.normalization)),
                    **{split: [digest(part.images), digest(part.labels)] for split, part in parts.items()},
                },
            )


def digest(tensor: Any) -> str:
    """Shape, type and hash of a tensor's bytes."""
    array = tensor.detach().contiguous().cpu().numpy()
    return f"{array.dtype}{list(array.shape)} {hashlib.blake2b(array.tobytes(), digest_size=12).hexdigest()}"


PARTS = ["pixels", "trained", "memories", *COMMITTED]


def whole(parts: list[str]) -> dict[str, Any]:
    """Everything of some parts, by name."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for part, make in (("pixels", pixels), ("trained", trained)):
        if part in parts:
            found.update({f"{part} / {name}": value for name, value in make()})
    torch.set_num_threads(threads)
    if "memories" in parts:
        with tempfile.TemporaryDirectory() as work:
            found.update({f"memories / {name}": value for name, value in memories(Path(work))})
    for part, made in COMMITTED.items():
        if part in parts:
            found.update({f"{part} / {key}": value for key, value in made().items()})
    return plain(found)


def differences(before: Any, now: Any, where: str) -> Iterator[str]:
    """What differs, a line each."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if key not in before or key not in now:
                yield f"{where} / {key}: only {'before' if key in before else 'now'}"
            else:
                yield from differences(before[key], now[key], f"{where} / {key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now)):
            yield from differences(*pair, f"{where} / {number}")
    elif before != now:
        yield f"{where}: {str(before)[:100]} -> {str(now)[:100]}"


def text_of(value: Any) -> str:
    """JSON with an entry a line, so that a difference reads well."""
    lines = io.StringIO()
    lines.write("{\n")
    rows = [f"{json.dumps(key)}: {json.dumps(held)}" for key, held in value.items()]
    lines.write(",\n".join(rows) + "\n}\n")
    return lines.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the committed part anew")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--check", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to record or check")
    options = parser.parse_args()
    if options.write:
        for name, make in COMMITTED.items():
            (HERE / f"{name}.json").write_text(text_of(make()), encoding="utf-8")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "golden.json").write_text(text_of(whole(options.only)), encoding="utf-8")
    if options.check:
        before = json.loads((options.check / "golden.json").read_text(encoding="utf-8"))
        before = {name: value for name, value in before.items() if name.split(" / ")[0] in options.only}
        found = list(differences(before, whole(options.only), "golden"))
        print("\n".join(found) or f"{len(before)} golden values are as they were")
        return bool(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
