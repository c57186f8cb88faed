"""Kills runs at random moments and compares how they end: ``python tests/stress/kill_resume.py --kills 50``.

Three kinds of runs, in turn: the class-incremental script on digits, a static table, and a user's script with the
plugin. Each is first run unbroken. Then it is killed (SIGKILL) again and again in one folder, at a change of a file,
checkpoints and cached classes among them, or at any moment between, until it gets through; then everything that it
has made is compared, byte by byte, but for the seconds it took.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dying import Ending, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MOST_IN_A_ROW = 4
"""Kills of one run: after that it may go through, so that something is compared."""


@dataclass(frozen=True)
class Script:
    """A kind of runs.

    Attributes:
        name: of it.
        words: its command line, for its folder and for that of its cache.
        made: all that it made, as plain values.
    """

    name: str
    words: Callable[[Path, Path], list[str]]
    made: Callable[[Path], Any]


def _rows(path: Path, but: tuple[str, ...]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name not in but} for row in csv.DictReader(file)]


def _memory(path: Path) -> Any:
    from clreplay.memory.replay_memory import ReplayMemory

    memory = ReplayMemory.load(path)
    state = memory.state_dict()
    settings = json.loads(state.pop("settings"))
    settings["info"].pop("condense_seconds", None)
    return settings, {name: part.numpy().tobytes() for name, part in state.items()}


def _made_by_digits(out: Path) -> Any:
    left = sorted(path.name for path in out.rglob("*") if path.suffix in (".progress", ".finished"))
    rows = _rows(out / "results.csv", ("condense_seconds", "train_seconds"))
    return rows, [_memory(path) for path in sorted(out.glob("memory*.safetensors"))], left


def _made_by_tables(out: Path) -> Any:
    from clreplay.benchmark.store import Store

    store = Store(out / "store.sqlite")
    contents = store.read()
    images = {key: store.images(key) for key in contents.sets}
    (table,) = out.glob("table1-*.csv")
    rows = _rows(table, ("condense_seconds", "train_seconds", "commit"))
    left = sorted(path.name for path in (out / "work").iterdir() if path.suffix in (".progress", ".finished"))
    return rows, images, left


def _made_by_plugin(out: Path) -> Any:
    return _memory(out / "memory.safetensors"), (out / "weights.json").read_text(encoding="utf-8")


SCRIPTS = (
    Script(
        "digits run",
        lambda out, cache: [
            str(ROOT / "runs" / "digits_5step.py"), "--memory", "random", "ddm", "--preset", "smoke", "--host", "none",
            "--steps", "5", "--images-per-class", "2", "--device", "cpu", "--out", str(out), "--cache", str(cache),
            "--set", "ddm.iterations=4", "ddm.width=4", "train.width=4", "train.updates=4",
        ],
        _made_by_digits,
    ),
    Script(
        "static table",
        lambda out, cache: [
            str(ROOT / "runs" / "static_tables.py"), "--table", "1", "--dataset", "digits", "--ipc", "1", "--method",
            "random", "ddm", "whole", "--preset", "smoke", "--sets", "2", "--networks", "2", "--device", "cpu",
            "--out", str(out), "--set", "width=4", "iterations=4",
        ],
        _made_by_tables,
    ),
    Script("plugin script", lambda out, cache: [str(HERE / "plugin_run.py"), str(out)], _made_by_plugin),
)  # fmt: skip


@dataclass
class Figures:
    """What was counted."""

    kills: int = 0
    runs: int = 0
    failed: int = 0
    different: int = 0


def kill(kills: int, seed: int = 0, say: Callable[[str], None] = print, scripts: Sequence[Script] = SCRIPTS) -> Figures:
    """Kill so many times.

    Args:
        kills: in all.
        seed: of the moments.
        say: gets a line for every run that came through, or did not.
        scripts: which, in turn.
    """
    figures, chance = Figures(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        place = Path(name)
        os.environ.update(CLREPLAY_SAVE_SECONDS="0", XDG_CACHE_HOME=str(place / "cache"))
        unbroken = {script.name: _unbroken(script, place) for script in scripts}
        number = 0
        while figures.kills < kills:
            script = scripts[number % len(scripts)]
            number += 1
            whole, wanted = unbroken[script.name]
            before = figures.kills
            ending = _broken(script, place / "broken", whole, chance, figures, kills)
            figures.runs += 1
            if ending.code:
                figures.failed += 1
                say(f"{script.name}: exit code {ending.code}; {_last_line(place / 'broken.log')}")
            elif (made := script.made(place / "broken")) != wanted:
                figures.different += 1
                say(f"{script.name}: what it made is different: {difference(wanted, made)}")
            else:
                say(f"{script.name}: killed {figures.kills - before} times, the same bytes")
            for left in ("broken", "broken cache"):
                shutil.rmtree(place / left, ignore_errors=True)
            (place / "broken.log").unlink(missing_ok=True)
    return figures


def difference(wanted: Any, made: Any, where: str = "") -> str:
    """The first place where two plain values differ."""
    if isinstance(wanted, dict) and isinstance(made, dict) and wanted.keys() == made.keys():
        pairs = [(f"{where}.{key}", wanted[key], made[key]) for key in wanted]
    elif isinstance(wanted, (list, tuple)) and isinstance(made, (list, tuple)) and len(wanted) == len(made):
        pairs = [(f"{where}[{number}]", *pair) for number, pair in enumerate(zip(wanted, made))]
    else:
        return f"{where}: {str(wanted)[:100]} and {str(made)[:100]}"
    return next((difference(one, other, place) for place, one, other in pairs if one != other), "")


def _unbroken(script: Script, place: Path) -> tuple[Ending, Any]:
    out, cache, log = place / "whole", place / "whole cache", place / "whole.log"
    ending = run(script.words(out, cache), (out, cache), log)
    if ending.code:
        raise RuntimeError(f"{script.name} failed unbroken: {log.read_text(encoding='utf-8')[-2000:]}")
    made = script.made(out)
    for left in (out, cache):
        shutil.rmtree(left, ignore_errors=True)
    log.unlink()
    return ending, made


def _broken(script: Script, out: Path, whole: Ending, chance: random.Random, figures: Figures, most: int) -> Ending:
    cache, log = out.with_name(f"{out.name} cache"), out.with_name(f"{out.name}.log")
    for _ in range(min(MOST_IN_A_ROW, most - figures.kills)):
        at, after = (chance.randrange(1, whole.changes + 1), 0.0) if chance.random() < 0.7 else (0, whole.seconds)
        ending = run(script.words(out, cache), (out, cache), log, at, after * chance.random())
        if ending.code != -9:
            return ending
        figures.kills += 1
    return run(script.words(out, cache), (out, cache), log)


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8").strip().splitlines() or ["nothing was said"])[-1]


def prepare() -> None:
    """Import what takes long, once for all runs."""
    import torch

    names = ("avalanche.training.supervised", "sklearn.datasets", "clreplay.benchmark.run", "clreplay.incremental.run")
    for name in names:
        importlib.import_module(name)
    torch.set_num_threads(1)
    logging.getLogger().handlers.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", nargs="+", help="only these: digits run, static table, plugin script")
    options = parser.parse_args()
    prepare()
    chosen = [script for script in SCRIPTS if not options.script or script.name in options.script]
    figures = kill(options.kills, options.seed, scripts=chosen)
    if figures.failed:
        print(f"runs that could not go on: {figures.failed}")
    print(f"kills survived: {figures.kills}, bytes different: {figures.different}")
    return 1 if figures.failed or figures.different else 0


if __name__ == "__main__":
    sys.exit(main())
