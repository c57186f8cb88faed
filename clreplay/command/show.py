"""``clreplay show X``: what a memory's file, a run's folder, a settings.yaml or a recipe is."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clreplay.command.base import works

if TYPE_CHECKING:
    from clreplay.memory.replay_memory import ReplayMemory
    from clreplay.recipes.recipe import Recipe

WIDTH = 110
MEMORIES = (".safetensors", ".npz", ".parquet")
"""Endings of files that hold a memory; a folder may be one, too."""
Rows = list[tuple[str, str]]


@click.command("show")
@click.argument("what", type=click.Path())
@click.option("--picture", metavar="FILE.png", help="of a memory: also draw its images, one row a class")
@works(goes_on=False)
def command(what: str, picture: str | None) -> int:
    """Say what WHAT is: a memory's file, a run's folder or its settings.yaml, or a recipe by name or file.

    \b
      clreplay show out/digits-5step-ddm-cpu/memory.safetensors --picture memory.png
      clreplay show ddm
    """
    path = Path(what)
    is_memory = what.startswith("hf://") or path.suffix in MEMORIES or (path.is_dir() and not _holds_a_run(path))
    if picture is not None and not is_memory:
        raise ValueError(f"--picture is of a memory, and {what} is none")
    if is_memory:
        from clreplay.memory.replay_memory import ReplayMemory

        memory = ReplayMemory.load(what)
        _print(*_memory(memory, path))
        if picture is not None:
            _draw(memory, path, Path(picture))
            click.echo(f"Picture: {picture}")
    elif path.is_dir() or path.name.endswith("settings.yaml"):
        _print(*_run(path))
    else:
        _print(*_recipe(_loaded(what)))
    return 0


def _holds_a_run(folder: Path) -> bool:
    return (folder / "settings.yaml").is_file()


def _print(title: str, rows: Rows) -> None:
    click.echo(title)
    width = max(len(name) for name, _ in rows) + 2
    for name, text in rows:
        if not text:
            continue
        lines = textwrap.wrap(text, WIDTH - width - 2, break_long_words=False, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            click.echo(f"  {name if number == 0 else '':<{width}}{line}")


# ---------------------------------------------------------------- a memory


def _memory(memory: ReplayMemory, path: Path) -> tuple[str, Rows]:
    from clreplay.runtime.progress import counted, duration, size

    info = memory.info
    rows: Rows = [("method", str(info.get("method", "unknown")))]
    decoded = len(memory.labels)
    more = f", decoded to {decoded}" if decoded != len(memory) else ""
    counts = [len(slot) for slot in memory.slots.values()]
    each = (
        f"{min(counts)} to {max(counts)}" if counts and min(counts) != max(counts) else str(counts[0] if counts else 0)
    )
    rows.append(("images", f"{len(memory)}{more}: {each} of each of {counted(len(counts), 'class')}"))
    if counts:
        channels, height, width = next(iter(memory.slots.values())).shape
        rows.append(("size", f"{counted(channels, 'channel')}, {height} x {width} pixels"))
    kept = memory.store + ("" if memory.quality is None else f" of quality {memory.quality}")
    kept += "" if memory.stored_pixels is None else f" at {memory.stored_pixels} x {memory.stored_pixels} pixels"
    rows.append(("store", kept))
    rows.append(("budget", str(memory.budget)))
    record = f", {counted(len(memory.record), 'row')} of losses among it" if memory.record else ""
    file = ""
    if path.is_file() and path.suffix == ".safetensors":
        beside = path.stat().st_size - memory.memory_bytes
        file = f"; the file holds {size(beside)} more (what it was made by{record})"
    rows.append(("bytes", f"{memory.memory_bytes:,}{file}"))
    if "dataset" in info:
        rows.append(("data", str(info["dataset"])))
    if names := memory.class_names:
        rows.append(("classes", _some(names.get(label, label) for label in memory.classes)))
    elif counts:
        rows.append(("classes", _some(sorted(memory.classes))))
    if memory.normalization is not None:
        mean, std = (
            ", ".join(f"{value:.4g}" for value in v) for v in (memory.normalization.mean, memory.normalization.std)
        )
        rows.append(("normalised", f"mean {mean}; deviation {std}"))
    if info.get("condense_seconds"):
        rows.append(("made in", duration(sum(info["condense_seconds"]))))
    return f"{path}: a memory", rows + _made_by(memory, path)


def _made_by(memory: ReplayMemory, path: Path) -> Rows:
    """By which settings, where the file says so or its run's folder does."""
    from clreplay.condensation.engine.execution import EXECUTION_FIELDS
    from clreplay.incremental.run_folder import read_settings

    info, name = memory.info, memory.info.get("method")
    made: dict[str, Any] = {key: info[key] for key in ("preset", "seed", "device_name") if key in info}
    folder = path.parent.parent if path.parent.name == "checkpoint" else path.parent
    if "preset" not in made and (folder / "settings.yaml").is_file():
        run = read_settings(folder)
        if name in run.get("memories", {}):
            made = {"settings": run["memories"][name]["settings"], **run}
    settings = info.get("settings", made.get("settings", {}))
    rows: Rows = [("preset", f"{made['preset']}, seed {made['seed']}")] if "preset" in made else []
    if settings:
        differing = _beside_preset(name, settings, made.get("preset"), info.get("dataset"), memory.images_per_class)
        rows.append(("settings", differing))
    how = {name: settings[name] for name in EXECUTION_FIELDS if name in settings}
    rows.append(("computed", _values(how)))
    versions = "; ".join(_values(one) for one in info.get("made_with", ()))
    return (
        rows
        + _origin({key: made[key] for key in ("device_name", "created") if key in made})
        + [("made with", versions)]
    )


def _beside_preset(
    name: Any, values: Mapping[str, Any], preset: Any, dataset: str | None, images_per_class: int | None
) -> str:
    """What differs from the recipe's own settings under a preset."""
    from clreplay.condensation.engine.execution import EXECUTION_FIELDS
    from clreplay.recipes.recipe import load_recipe, recipe_names
    from clreplay.recipes.typed_settings import RecipeError
    from clreplay.runtime.files import plain

    if name in recipe_names() and preset is not None:
        try:
            own = plain(load_recipe(name).configured(preset, None, dataset, images_per_class).values())
        except RecipeError:
            return _values(values)
        differing = {k: v for k, v in values.items() if own.get(k) != v and k not in EXECUTION_FIELDS}
        return _values(differing) or f"those of the recipe {name}"
    return _values(values)


def _origin(made: Mapping[str, Any]) -> Rows:
    said = [str(made[key]) for key in ("device_name", "created") if made.get(key)]
    versions = made.get("versions") or {}
    said += [f"{key} {versions[key]}" for key in ("clreplay", "torch") if key in versions]
    if made.get("commit"):
        said.append(f"commit {made['commit']}")
    return [("made on", ", ".join(said))] if said else []


def _draw(memory: ReplayMemory, path: Path, picture: Path) -> None:
    from clreplay.analysis.figures import memory_figure

    names = [str(memory.class_names.get(label, label)) for label in range(max(memory.classes, default=0) + 1)]
    method = str(memory.info.get("method", path.stem))
    most = min(10, max((len(slot) for slot in memory.slots.values()), default=1))
    memory_figure({method: memory}, None, class_names=names, columns=most, path=picture)


# ---------------------------------------------------------------- a run


def _run(path: Path) -> tuple[str, Rows]:
    from clreplay.incremental.run_folder import RunFolder
    from clreplay.incremental.settings_file import load_settings
    from clreplay.runtime.progress import counted

    run = RunFolder(path if path.is_dir() else path.parent)
    file = run.settings_file if path.is_dir() else path
    settings = load_settings(file)
    if settings.get("experiment") not in ("class-incremental", "domain-incremental"):
        raise ValueError(f"{file} does not hold the settings of a class-incremental or domain-incremental run")
    memories = settings["memories"]
    budget = {k: settings.get(k) for k in ("images_per_class", "mem_size", "bytes_per_class", "mem_bytes")}
    rows: Rows = [
        ("data", str(settings["dataset"])),
        ("steps", str(settings["steps"])),
        ("domains", ", ".join(settings.get("domains", ()))),
        ("budget", ", ".join(f"{key} {value:,}" for key, value in budget.items() if value is not None)),
        (
            "store",
            ", ".join(str(settings[key]) for key in ("store", "quality", "pixels") if settings.get(key) is not None),
        ),
        (
            "repeats",
            f"{counted(settings['class_orders'], 'class order')}, {counted(settings['networks'], 'network')} a step",
        ),
        ("preset", f"{settings['preset']}, seed {settings['seed']}, host {settings['host']}"),
    ]
    where = (settings["dataset"], settings.get("images_per_class"))
    for name, one in memories.items():
        rows.append((name, f"{one['label']}: {_beside_preset(name, one['settings'], settings['preset'], *where)}"))
    rows.append(("learner", _learner(settings, *where)))
    rows += _origin(settings)
    results = run.rows() if file == run.settings_file else None
    wanted = settings["class_orders"] * settings["networks"] * settings["steps"]
    for name in memories:
        if results is None:
            break
        mine = results[results.memory == name]
        last = mine[mine.step == settings["steps"] - 1].accuracy
        done = "finished" if len(mine) == wanted else f"{len(mine)} of {counted(wanted, 'network')} trained"
        value = "" if not len(last) else f"; {last.mean():.2f} % after the last step"
        rows.append((f"{name}: results", done + value))
    if settings.get("command"):
        rows.append(("command", settings["command"]))
    return f"{path}: a run", rows


def _learner(settings: Mapping[str, Any], dataset: str | None, images_per_class: int | None) -> str:
    from dataclasses import asdict

    from clreplay.recipes.recipe import idc_settings, training_settings
    from clreplay.runtime.files import plain

    make = idc_settings if settings.get("protocol") == "idc" else training_settings
    own, values = plain(asdict(make(settings["preset"], None, dataset, images_per_class))), settings["training"]
    differing = _values({key: value for key, value in values.items() if own.get(key) != value})
    return differing or f"protocol {settings.get('protocol', 'common')}, as the preset has it"


# ---------------------------------------------------------------- a recipe


def _loaded(what: str) -> Recipe:
    from clreplay.recipes.recipe import load_recipe, recipe_names

    path = Path(what)
    if path.suffix not in (".yaml", ".yml") and what not in recipe_names():
        if path.exists():
            raise ValueError(f"{what} is neither a memory's file (.safetensors), a run's folder nor a recipe (.yaml)")
        close = difflib.get_close_matches(what.lower(), recipe_names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; `clreplay memories` lists all memories"
        raise FileNotFoundError(f"there is no file {what}, and no memory of that name{hint}")
    return load_recipe(path if path.suffix in (".yaml", ".yml") else what)


def _recipe(recipe: Recipe) -> tuple[str, Rows]:
    from clreplay.recipes.content import PRESETS

    defaults = _defaults(recipe)
    presets = {preset: recipe.configured(preset).values() for preset in PRESETS}
    rows: Rows = [("keeps", recipe.summary), ("file", str(recipe.path)), ("method", recipe.method.name)]
    if recipe.source:
        rows.insert(1, ("source", recipe.source))
    if recipe.cost is not None:
        rows.append(("cost", f"an iteration takes {recipe.cost:g} times one of dm (width 128, float32, two cores)"))
    for preset, values in presets.items():
        base = defaults if preset == "paper" else presets["paper"]
        beside = "the code's defaults" if preset == "paper" else "as paper"
        rows.append((preset, _values({k: v for k, v in values.items() if k not in base or base[k] != v}) or beside))
    for case in recipe.cases:
        data = "" if case.datasets is None else " or ".join(case.datasets)
        counts = "" if case.counts is None else "some numbers of images a class"
        rows.append(("case", f"{', '.join(filter(None, (data, counts)))}: {_values(case.settings)}"))
    return f"{recipe.name}: a recipe ({recipe.label})", rows


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """Of the code, by flat name."""
    from dataclasses import MISSING, asdict, fields

    from clreplay.condensation.engine.execution import Execution
    from clreplay.condensation.matching.terms import with_registered

    own = fields(with_registered(recipe.method.settings))
    return {**asdict(Execution()), **{one.name: one.default for one in own if one.default is not MISSING}}


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _some(values: Iterable[Any], most: int = 12) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
