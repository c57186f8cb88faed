"""The paper's figures of style, diversity and texture, for any memories: a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clreplay.analysis.paper_figures import known
from clreplay.runtime.command_line import exit_code, started_as

if TYPE_CHECKING:
    from clreplay.data import Dataset
    from clreplay.memory.replay_memory import ReplayMemory

DESCRIPTION = """The paper's figures of style, diversity and texture, for any memories, with the numbers behind them.

    %(prog)s --dataset digits --memory random=a.safetensors ddm=out/digits-5step-ddm-cpu --figure 1a 5d

A memory is a file (.safetensors), a run's folder (all memories in it), or either with a name of its own before it.
Figures: 1a and 9 (style by t-SNE), 1b, 4a and 4b (embedding by t-SNE), 1c and 1d (accuracy when the style drifts), 4
with 4c to 4e, 7 and 8 (the images), 5d (texture). Each is written as PNG, SVG and CSV, and said in one line. Several
memories of one call stand in one picture, real images beside them. Texture needs scikit-image:
pip install 'clreplay[analysis]'.
"""
UPDATES = {"paper": 20_000, "cpu": 1_500, "smoke": 60}
"""Of the network that is trained on the real images."""


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """Flags of ``runs/analysis.py``."""
    arguments = argparse.ArgumentParser(
        prog=started_as(program), description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("--memory", nargs="+", required=True, metavar="[NAME=]PATH", help="memory files or folders of runs")
    add("--figure", nargs="+", default=["1a", "1b", "4"], metavar="N", help=f"{', '.join(known())} (default: 1a 1b 4)")
    add("--dataset", required=True, metavar="NAME", help="that the memories are of")
    add(
        "--classes",
        nargs="+",
        type=int,
        metavar="N",
        help="labels (default: all that are in every memory); on maps two of them",
    )
    add("--trained-on", default="herding", metavar="NAME", help="of figures 1c and 1d (default: herding)")
    add("--networks", type=int, default=3, metavar="N", help="networks a point of figures 1c and 1d (default: 3)")
    add("--updates", type=int, metavar="N", help="of the network trained on real images (default: by the preset)")
    add("--preset", choices=("auto", "paper", "cpu", "smoke"), default="auto", help="as of the other scripts")
    add(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides", help="train.lr=0.05 ..."
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--seed", type=int, default=0, help="of all chance (default: 0)")
    add("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)")
    add("--out", default="out/analysis", metavar="DIR", help="folder of the pictures (default: out/analysis)")
    return arguments


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Draw the figures; 2 for a user's error, printed in one line."""
    options = parser(program).parse_args(argv)
    return exit_code(lambda: _run(options), goes_on=False)


def _run(options: argparse.Namespace) -> int:
    from clreplay.analysis.study import Study, draw, trained_network
    from clreplay.data import load_dataset
    from clreplay.recipes.overrides import parse_set, split_overrides
    from clreplay.recipes.presets import default_preset
    from clreplay.recipes.recipe import training_settings
    from clreplay.runtime.device import default_device
    from clreplay.runtime.progress import Reporter
    from clreplay.training.evaluate import accuracy

    if strange := [figure for figure in options.figure if figure not in known()]:
        raise ValueError(f"--figure must be among {', '.join(known())}, got {', '.join(strange)}")
    memories: dict[str, ReplayMemory] = {}
    for text in options.memory:
        for name, memory in _memories(text).items():
            if name in memories:
                raise ValueError(f"two memories are called {name}; give one a name of its own: --memory NAME={text}")
            memories[name] = memory
    device = default_device(None if options.device == "auto" else options.device)
    preset = default_preset(device) if options.preset == "auto" else options.preset
    data = load_dataset(options.dataset, options.data_root)
    for name, memory in memories.items():
        _check_fits(name, memory, data)
    common = sorted(set.intersection(*(set(memory.classes) for memory in memories.values())))
    if not common:
        raise ValueError("the memories have no class in common")
    if strange := sorted(set(options.classes or ()) - set(common)):
        raise ValueError(f"--classes must be in every memory, {', '.join(map(str, strange))} is not")
    learner, _ = split_overrides(parse_set(options.overrides), ())
    settings = training_settings(preset, learner, data.name)
    updates = UPDATES[preset] if options.updates is None else options.updates
    with Reporter().task("network on the real images") as task:
        network = trained_network(
            data,
            replace(settings, updates=updates),
            options.seed,
            device,
            lambda done, total: task(done, total, "epochs"),
        )
    found = accuracy(network, data.test, data.normalization, device)
    print(f"network  {settings.summary()}, {updates:,} updates on the real images: {found:.1f} % of test images")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    classes = options.classes or common
    study = Study(
        data,
        memories,
        classes,
        classes[:2],
        network,
        settings,
        seed=options.seed,
        device=device,
        networks=options.networks,
    )
    for figure in options.figure:
        print(draw(study, figure, out, options.trained_on), flush=True)
    print(f"Pictures and tables: {out}")
    return 0


def _memories(text: str) -> dict[str, ReplayMemory]:
    from clreplay.incremental.run_folder import read_memories
    from clreplay.memory.replay_memory import ReplayMemory

    name, equals, path = text.partition("=")
    if not equals:
        name, path = "", text
    place = Path(path)
    if place.is_dir():
        found = read_memories(place)
    elif place.is_file():
        memory = ReplayMemory.load(place)
        found = {str(memory.info.get("method", place.stem)): memory}
    else:
        raise FileNotFoundError(f"--memory: there is no file or folder {path}")
    if name:
        return {name if len(found) == 1 else f"{name} {one}": memory for one, memory in found.items()}
    return found


def _check_fits(name: str, memory: ReplayMemory, data: Dataset) -> None:
    wanted = tuple(data.train.images.shape[1:])
    for slot in memory.slots.values():
        if tuple(slot.shape) != wanted:
            raise ValueError(f"memory {name} has images of {tuple(slot.shape)}, {data.name} of {wanted}")
    if strange := [label for label in memory.classes if not 0 <= label < data.num_classes]:
        raise ValueError(f"memory {name} has classes {strange}, which {data.name} has not")
