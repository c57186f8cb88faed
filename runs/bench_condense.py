#!/usr/bin/env python
"""How fast the matching engine is, beside a faithful loop over classes, in one process on the same data.

    python runs/bench_condense.py --method ddm --classes 20 --ipc 20 --real 64 --width 32
    python runs/bench_condense.py --suite --out bench.json

Engine and reference take turns; every time is the median of the repeats, after warming up. Speed is a
property of the machine: a row says which one, and only the ratio travels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch
from reference_loop import ReferenceLoop

from clreplay.condensation import RealImages, default_device
from clreplay.condensation.matching import Matching
from clreplay.data import NORMALIZATIONS
from clreplay.recipes import load_recipe
from clreplay.runfolder import provenance

SUITE = [
    {"method": method, "classes": classes, "ipc": ipc, "width": width}
    for method in ("dm", "ddm")
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--method", choices=("dm", "ddm"), default="ddm")
    made.add_argument("--classes", type=int, default=20)
    made.add_argument("--ipc", type=int, default=20, help="synthetic images a class")
    made.add_argument("--real", type=int, help="real images a class and iteration (default: 256 on a GPU, 64 on a CPU)")
    made.add_argument("--width", type=int, default=128)
    made.add_argument("--device", help="default: a GPU if there is one")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--suite", action="store_true", help="classes 5/20/100, images 1/10/20/50, widths 32/128")
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
    chance = torch.Generator().manual_seed(0)
    per_class = max(row["real"], row["ipc"]) + 50
    images = torch.randint(0, 256, (row["classes"] * per_class, 3, 32, 32), generator=chance, dtype=torch.uint8)
    labels = torch.arange(row["classes"]).repeat_interleave(per_class)
    real = RealImages(images, labels, NORMALIZATIONS["cifar10"])
    settings = load_recipe(row["method"]).settings(
        "paper", {"width": row["width"], "real_batch": row["real"], **overrides}
    )
    engine = Matching(real, dict.fromkeys(real.classes, row["ipc"]), settings, 0, device)
    floats = [real.normalised(label).to(device) for label in real.classes]
    reference = ReferenceLoop(floats, row["ipc"], row["width"], row["real"], row["method"])
    for step in (engine.step, reference.step):
        _timed(step, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: dict[str, list[float]] = {"engine": [], "reference": []}
    for _ in range(repeats):
        times["engine"].append(_timed(engine.step, device))
        times["reference"].append(_timed(reference.step, device))
    engine_ms, reference_ms = (1000 * statistics.median(times[name]) for name in ("engine", "reference"))
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
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
        "peak_mb": peak,
        "images_per_second": round(row["classes"] * (row["real"] + row["ipc"]) / engine_ms * 1000),
        "settings": overrides,
    }


def _timed(step: Any, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    from clreplay.recipes import parse_set

    options = parser().parse_args(argv)
    device = default_device(options.device)
    real = options.real or (256 if device.type == "cuda" else 64)
    one = {"method": options.method, "classes": options.classes, "ipc": options.ipc, "width": options.width}
    rows = []
    for row in SUITE if options.suite else [one]:
        rows.append(measure({**row, "real": real}, device, options.repeats, parse_set(options.overrides)))
        r = rows[-1]
        print(
            f"{r['method']:>4}  {r['classes']:>3} classes x {r['images_per_class']:>2} images, {r['real_batch']} real, width {r['width']:>3}:  "
            f"engine {r['engine_ms']:>8.1f} ms  reference {r['reference_ms']:>8.1f} ms  ratio {r['ratio']:.2f}  {r['images_per_second']} images/s",
            flush=True,
        )
    if options.out:
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        )
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump([{**row, **provenance(name)} for row in rows], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
