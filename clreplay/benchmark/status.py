"""Where a grid stands: done, missing, failed and why, and how long the rest may take. Needs no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.results import FAILED, MEASURED, PARTLY, TableRow, lines_of
from clreplay.benchmark.store import Contents, key_of
from clreplay.runtime.progress import duration


def status_line(line: TableRow) -> str:
    """One line of a table as a sentence."""
    cell = line.cell
    count = "all real images" if cell.images_per_class is None else f"IPC {cell.images_per_class}"
    networks = (
        cell.test_network
        if cell.train_network == cell.test_network
        else (f"{cell.train_network} -> {cell.test_network}")
    )
    variant = "".join(f", {name} {value}" for name, value in line.variant)
    metric = "" if cell.metric == "accuracy" else f", {cell.metric.replace('_', ' ')}"
    what = f"{cell.method} on {cell.dataset}, {count}, {networks}{variant}{metric}"
    published = f", published {cell.published}" if cell.published else ""
    if line.ours is None:
        said = [text for text in (line.state if line.state != MEASURED else "", line.reason) if text]
        return f"{what}: {': '.join(said)}"
    spread = "" if line.spread is None else f" +- {line.spread:.2f}"
    missing = f" ({line.done} of {line.wanted} networks)" if line.state == PARTLY else ""
    return f"{what}: {line.ours:.2f}{spread}{published}{missing}"


def status_lines(planned: Sequence[PlannedCell], contents: Contents, device_type: str, jobs: int) -> list[str]:
    """The state of every cell and of the whole, without touching data."""
    lines = lines_of(planned, contents, device_type)
    texts = [f"  {line.done:>5} of {line.wanted:<5}{status_line(line)}" for line in lines]
    states = [line.state for line in lines]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    texts.append(", ".join(f"{count} {state}" for state, count in counts.items()) + f" of {len(lines)} cells")
    left = [line for line in lines if line.state not in (MEASURED, FAILED)]
    if left:
        texts.append(_remaining(planned, contents, device_type, jobs))
    return texts


def _remaining(planned: Sequence[PlannedCell], contents: Contents, device_type: str, jobs: int) -> str:
    """Expected time of what is missing, from the time that the same took before."""
    known, unknown = 0.0, 0
    sets, networks = _mean_seconds(contents)
    seen: set[str] = set()
    for one in planned:
        for spec in one.specs:
            settled = spec.with_execution(contents, device_type)
            key = spec.key if settled is None else settled.key
            if key in contents.units or key in seen:
                continue
            seen.add(key)
            seconds = sets.get((spec if settled is None else settled).asked_key)
            known, unknown = known + (seconds or 0.0), unknown + (seconds is None)
        for trained in (*one.trained, *one.real):
            unit = trained.unit(contents, device_type)
            if unit is None:
                unknown += len(trained.draws)
                continue
            for key, identity in unit.identities.items():
                if key in contents.units or key in seen:
                    continue
                seen.add(key)
                seconds = networks.get(_like(identity, trained.spec is not None and trained.spec.images_per_class))
                known, unknown = known + (seconds or 0.0), unknown + (seconds is None)
    if not known:
        return f"left: {unknown} unit(s), none of a kind that was timed yet"
    more = f", and {unknown} unit(s) of a kind that was not timed yet" if unknown else ""
    return f"left: about {duration(known / jobs)} with {jobs} job(s){more}"


def _mean_seconds(contents: Contents) -> tuple[dict[str, float], dict[str, float]]:
    """Mean seconds of sets by what was asked, and of networks by training, data and images a class."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in contents.units.values():
        if row.kind == "set":
            name = key_of({name: value for name, value in row.settings.items() if name != "seed"})
        elif row.kind == "network":
            made = contents.units.get(row.settings["set"] or "")
            name = _like(row.settings, made is not None and made.settings["images_per_class"])
        else:
            continue  # a shard: its set counts when it is whole
        found.setdefault((row.kind, name), []).append(row.seconds)
    means = {key: sum(seconds) / len(seconds) for key, seconds in found.items()}
    return tuple(
        {name: mean for (kind, name), mean in means.items() if kind == wanted} for wanted in ("set", "network")
    )


def _like(identity: dict[str, Any], images_per_class: int | bool) -> str:
    same = {name: identity[name] for name in ("dataset", "training")}
    return key_of({**same, "images_per_class": int(images_per_class)})
