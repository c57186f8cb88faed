"""A user's script: a plugin run of the digits that goes on where it was stopped; ``python plugin_run.py FOLDER``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.supervised import Naive
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from clreplay import CondensedReplayPlugin, ConvNet
from clreplay.runtime.files import replacing, write_text

STEPS = 3


def images() -> TensorDataset:
    found = load_digits(n_class=6)
    data = TensorDataset(torch.from_numpy(found.images).float()[:, None] / 16, torch.from_numpy(found.target).long())
    data.targets = found.target.tolist()  # type: ignore[attr-defined]  # where Avalanche looks
    return data


def main(folder: Path) -> None:
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    data = images()
    stream = nc_benchmark(data, data, STEPS, task_labels=False, shuffle=False, seed=0).train_stream
    plugin = CondensedReplayPlugin(
        "ddm", images_per_class=3, preset="smoke", iterations=6, keep=lambda number: folder / f"{number}.progress"
    )
    model = ConvNet(6, 1, 8, width=4, depth=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    strategy = Naive(model=model, optimizer=optimizer, criterion=torch.nn.CrossEntropyLoss(), train_mb_size=16,
                     train_epochs=3, eval_mb_size=64, plugins=[plugin])  # fmt: skip
    state, done = folder / "state.pt", 0
    if state.is_file():
        found = torch.load(state, weights_only=True)
        plugin.load_state_dict(found["plugin"])
        model.load_state_dict(found["model"])
        done = found["done"]
    for number in range(done, STEPS):
        strategy.train(stream[number])
        with replacing(state) as partial:
            torch.save({"plugin": plugin.state_dict(), "model": model.state_dict(), "done": number + 1}, partial)
    plugin.memory.save(folder / "memory.safetensors")
    weights = {name: values.tolist() for name, values in model.state_dict().items()}
    write_text(folder / "weights.json", json.dumps(weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
