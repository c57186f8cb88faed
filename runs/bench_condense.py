#!/usr/bin/env python
"""How fast the matching engine is, beside a faithful loop over classes, in one process on the same data.

    python runs/bench_condense.py --method ddm-paper --classes 20 --ipc 20 --real 64 --width 32
    python runs/bench_condense.py --memories dm ddm-paper dm+sm-second dm+patch --classes 10 --ipc 10
    python runs/bench_condense.py --retrain 20 --width 128
    python runs/bench_condense.py --suite --out bench.json

Engine and reference take turns; every time is the median of the repeats, after warming up. With --memories, engines
of several memories that match distributions take turns instead: what their terms cost beside the first. Speed is a
property of the machine: a row says which one, and only the ratio travels. All run with the memory allocator tuned
(clreplay/runtime/allocator.py), which helps the reference as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from typing import Any

import torch
from reference_loop import ReferenceLoop

from clreplay.condensation import RealImages
from clreplay.condensation.engine.execution import EXECUTION_FIELDS
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.data import NORMALIZATIONS
from clreplay.networks import reinitialize
from clreplay.recipes.recipe import load_recipe
from clreplay.runtime.device import default_device, device_name
from clreplay.runtime.provenance import provenance
from clreplay.training.loop import train
from clreplay.training.settings import TrainingSettings
from clreplay.training.stacked import train_together

METHODS = ("dm", "ddm-paper")
"""What the reference loop computes."""
SUITE = [
    {"method": method, "classes": classes, "ipc": ipc, "width": width}
    for method in METHODS
    for classes, ipc, width in [
        (20, 20, 32),
        (20, 20, 128),
        (5, 20, 32),
        (100, 20, 32),
        (20, 1, 32),
        (20, 10, 32),
        (20, 50, 32),
    ]
]


RETRAIN = [{"networks": networks, "width": width} for networks in (1, 20) for width in (32, 128)]
UPDATES = {"cpu": 2, "cuda": 50}
"""Updates of a network when retraining is measured."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--method", choices=METHODS, default="ddm-paper")
    made.add_argument("--memories", nargs="+", metavar="NAME", help="compare these with one another instead")
    made.add_argument("--classes", type=int, default=20)
    made.add_argument("--ipc", type=int, default=20, help="synthetic images a class")
    made.add_argument("--real", type=int, help="real images a class and iteration (default: 256 on a GPU, 64 on a CPU)")
    made.add_argument("--width", type=int, default=128)
    made.add_argument("--device", help="default: a GPU if there is one")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--retrain", type=int, metavar="NETWORKS", help="measure training this many networks instead")
    made.add_argument(
        "--suite",
        action="store_true",
        help="classes 5/20/100, images 1/10/20/50, widths 32/128, and retraining of 1 and 20 networks",
    )
    made.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="settings of the engine, e.g. precision=bfloat16",
    )
    made.add_argument("--out", metavar="FILE.json", help="write the rows here as well")
    return made


def measure(row: dict[str, Any], device: torch.device, repeats: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """One row: medians of engine and reference, taking turns on the same data."""
    engine, values = _engine(row, device, overrides)
    real, settings = engine.real, engine.settings
    floats = [real.normalised(label).to(device) for label in real.classes]
    reference = ReferenceLoop(floats, row["ipc"], row["width"], row["real"], row["method"])
    reuse = settings.network_reuse  # iterations that share a network are timed together

    def steps() -> None:
        for _ in range(reuse):
            engine.step()

    for step in (steps, reference.step):
        _timed(step, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: dict[str, list[float]] = {"engine": [], "reference": []}
    for _ in range(repeats):
        times["engine"].append(_timed(steps, device) / reuse)
        times["reference"].append(_timed(reference.step, device))
    engine.close()
    engine_ms, reference_ms = (1000 * statistics.median(times[name]) for name in ("engine", "reference"))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else kilobytes / 1e3
    gflop = _gigaflop(row, reuse)
    return {
        "method": row["method"],
        "device": device.type,
        "classes": row["classes"],
        "images_per_class": row["ipc"],
        "real_batch": row["real"],
        "width": row["width"],
        "engine_ms": round(engine_ms, 2),
        "reference_ms": round(reference_ms, 2),
        "ratio": round(reference_ms / engine_ms, 2),
        "peak_mb": round(peak),
        "gflop": round(gflop, 2),
        "gflop_per_s": round(gflop / engine_ms * 1000, 1),
        "images_per_second": round(row["classes"] * (row["real"] + row["ipc"]) / engine_ms * 1000),
        "settings": overrides,
        "chosen": {name: values[name] for name in EXECUTION_FIELDS},
    }


def _engine(row: dict[str, Any], device: torch.device, overrides: dict[str, Any]) -> tuple[MatchingEngine, Any]:
    """The engine of a row on images that are noise, and all its settings."""
    chance = torch.Generator().manual_seed(0)
    per_class = max(row["real"], row["ipc"]) + 50
    images = torch.randint(0, 256, (row["classes"] * per_class, 3, 32, 32), generator=chance, dtype=torch.uint8)
    labels = torch.arange(row["classes"]).repeat_interleave(per_class)
    real = RealImages(images, labels, NORMALIZATIONS["cifar10"])
    given = {"width": row["width"], "real_batch": row["real"], **overrides}
    configured = load_recipe(row["method"]).configured("paper", given, "cifar10", row["ipc"])
    counts = dict.fromkeys(real.classes, row["ipc"])
    configured = configured.with_execution(lambda: (real, counts), device)
    return MatchingEngine(real, counts, configured.settings, 0, device, configured.execution), configured.values()


def measure_memories(
    names: list[str], row: dict[str, Any], device: torch.device, repeats: int, overrides: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row a memory: the median time of its iteration, all taking turns on the same data."""
    engines = {name: _engine({**row, "method": name}, device, overrides) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):  # the first is to warm up
        for name, (engine, _) in engines.items():
            seconds = _timed(engine.step, device)
            if repeat:
                times[name].append(seconds)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    rows = []
    for name, (engine, values) in engines.items():
        engine.close()
        chosen = {field: values[field] for field in EXECUTION_FIELDS}
        cost = {"engine_ms": round(medians[name], 2), "beside_first": round(medians[name] / medians[names[0]], 2)}
        rows.append({**row, "method": name, "device": device.type, **cost, "settings": overrides, "chosen": chosen})
    return rows


def _gigaflop(row: dict[str, Any], reuse: int) -> float:
    """What an iteration of ConvNet-3 at 32 pixels cannot do without: convolutions, and Gram products for ddm-paper.

    The gradient of the images costs the convolutions once more (weights want none), and a Gram product once; the
    real side is computed once for all iterations that share a network.
    """
    width, real, synthetic = row["width"], row["real"], row["ipc"]
    pixels = [32 * 32, 16 * 16, 8 * 8]
    conv = sum(2 * 9 * p * width * inputs for p, inputs in zip(pixels, (3, width, width)))
    gram = sum(2 * p * width * width for p in pixels) if row["method"] == "ddm-paper" else 0
    return row["classes"] * (real / reuse + 2 * synthetic) * (conv + gram) / 1e9


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product: what the device can do at its best.

    The matrices grow until a product takes long enough to be timed: a CPU without the format may be a thousand
    times slower than one with it.
    """
    n, seconds, largest = 128, 0.0, 8192 if device.type == "cuda" else 2048
    while seconds < 0.05 and n < largest:
        n *= 2
        one, other = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        _timed(lambda: one @ other, device)
        seconds = _timed(lambda: one @ other, device)
    return 2 * n**3 / min(_timed(lambda: one @ other, device) for _ in range(5)) / 1e9


def measure_retraining(row: dict[str, Any], device: torch.device, repeats: int) -> dict[str, Any]:
    """Training networks on a memory of 400 images, batch 256: all together, and one after another."""
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(400, 3, 32, 32, generator=chance).to(device)
    labels = torch.arange(20, device=device).repeat_interleave(20)
    settings = TrainingSettings(width=row["width"], updates=UPDATES[device.type], batch_size=256)

    def networks() -> list[torch.nn.Module]:
        made = [settings.build(20, 3, 32) for _ in range(row["networks"])]
        for number, network in enumerate(made):
            reinitialize(network, number)
        return [network.to(device) for network in made]

    def together() -> None:
        train_together(networks(), images, labels, settings, [(n, "train") for n in range(row["networks"])])

    def one_by_one() -> None:
        for number, network in enumerate(networks()):
            train(network, images, labels, settings, (number, "train"))

    times: dict[str, list[float]] = {"together": [], "one_by_one": []}
    for repeat in range(repeats + 1):  # the first is to warm up
        for name, work in (("together", together), ("one_by_one", one_by_one)):
            seconds = _timed(work, device)
            if repeat:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "device": device.type,
        **row,
        "updates": settings.updates,
        "together_s": round(medians["together"], 3),
        "one_by_one_s": round(medians["one_by_one"], 3),
        "ratio": round(medians["one_by_one"] / medians["together"], 2),
    }


def _timed(step: Any, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    from clreplay.recipes.overrides import parse_set

    options = parser().parse_args(argv)
    device = default_device(options.device)
    real = options.real or (256 if device.type == "cuda" else 64)
    one = {"method": options.method, "classes": options.classes, "ipc": options.ipc, "width": options.width}
    rates = {str(dtype)[6:]: float(f"{matrix_rate(device, dtype):.3g}") for dtype in (torch.float32, torch.bfloat16)}
    print("matrix product: " + ", ".join(f"{rate:g} GFLOP/s in {name}" for name, rate in rates.items()))
    rows = []
    if options.memories:
        rows += measure_memories(
            options.memories, {**one, "real": real}, device, options.repeats, parse_set(options.overrides)
        )
        for row in rows:
            print(_memory_line(row), flush=True)
    elif options.retrain is None:
        for row in SUITE if options.suite else [one]:
            rows.append(measure({**row, "real": real}, device, options.repeats, parse_set(options.overrides)))
            print(_line(rows[-1]), flush=True)
    retraining = [{"networks": options.retrain, "width": options.width}] if options.retrain else []
    for row in RETRAIN if options.suite else retraining:
        rows.append(measure_retraining(row, device, min(options.repeats, 3)))
        print(_retraining_line(rows[-1]), flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            beside = {"matrix_gflop_per_s": rates, **provenance(device_name(device, threads=True))}
            json.dump([{**row, **beside} for row in rows], file, indent=1)
    return 0


def _line(r: dict[str, Any]) -> str:
    return (
        f"{r['method']:>9}  {r['classes']:>3} classes x {r['images_per_class']:>2} images, {r['real_batch']} real, "
        f"width {r['width']:>3}:  engine {r['engine_ms']:>8.1f} ms  reference {r['reference_ms']:>8.1f} ms  "
        f"ratio {r['ratio']:.2f}  {r['images_per_second']} images/s  {r['gflop_per_s']:.0f} GFLOP/s  "
        f"{r['peak_mb']} MB  ({r['chosen']['kernels']}, {r['chosen']['parallel']}, {r['chosen']['precision']})"
    )


def _memory_line(r: dict[str, Any]) -> str:
    return (
        f"{r['method']:>14}  {r['classes']} classes x {r['ipc']} images, {r['real']} real, width {r['width']}:  "
        f"{r['engine_ms']:>8.1f} ms an iteration, {r['beside_first']:.2f} times the first  "
        f"({r['chosen']['kernels']}, {r['chosen']['parallel']}, {r['chosen']['precision']})"
    )


def _retraining_line(r: dict[str, Any]) -> str:
    return (
        f"retraining {r['networks']:>2} networks of width {r['width']:>3}, {r['updates']} updates:  "
        f"together {r['together_s']:.2f} s  one by one {r['one_by_one_s']:.2f} s  ratio {r['ratio']:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
