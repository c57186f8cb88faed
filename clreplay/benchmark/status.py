"""The state of a table: done, missing, failed and why, and how long the rest may take. Needs no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clreplay.benchmark.planned import PlannedCell
from clreplay.benchmark.results import FAILED, MEASURED, MISSING, PARTLY, TableRow, lines_of
from clreplay.benchmark.rows import Contents
from clreplay.runtime.progress import counted, duration

FEW = 6
"""Cells of which nothing is measured that still have a line each."""


def status_line(line: TableRow) -> str:
    """One row of a table as a sentence."""
    cell = line.cell
    count = "all real images" if cell.images_per_class is None else f"IPC {cell.images_per_class}"
    networks = _networks(line)
    variant = "".join(f", {name} {value}" for name, value in line.variant)
    metric = "" if cell.metric == "accuracy" else f", {cell.metric.replace('_', ' ')}"
    what = f"{cell.called} on {cell.dataset}, {count}, {networks}{variant}{metric}"
    published = f", published {cell.published}" if cell.published else ""
    if line.ours is None:
        said = [text for text in (line.state if line.state != MEASURED else "", line.reason) if text]
        return f"{what}: {': '.join(said)}"
    spread = "" if line.spread is None else f" +- {line.spread:.2f}"
    missing = f" ({line.done} of {line.wanted} networks)" if line.state == PARTLY else ""
    held_out = "" if line.held_out is None else f", held out {line.held_out:.2f}"
    return f"{what}: {line.ours:.2f}{spread}{held_out}{published}{missing}"


def status_lines(planned: Sequence[PlannedCell], contents: Contents, jobs: int) -> list[str]:
    """The state of the cells and of the whole, in lines of text; reads no data set.

    Cells of which nothing is measured share a line a data set and network, where there are more than a few.
    """
    lines = lines_of(planned, contents)
    untouched = [line for line in lines if line.state == MISSING and not line.done and not line.reason]
    together = len(untouched) > FEW
    texts = [
        f"  {line.done:>5} of {line.wanted:<5}{status_line(line)}"
        for line in lines
        if not together or line not in untouched
    ]
    texts += _untouched_lines(untouched) if together else []
    states = [line.state for line in lines]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    texts.append(", ".join(f"{count} {state}" for state, count in counts.items()) + f" of {len(lines)} cells")
    left = [line for line in lines if line.state not in (MEASURED, FAILED)]
    if left:
        texts.append(_remaining(planned, contents, jobs))
    return texts


def _untouched_lines(lines: Sequence[TableRow]) -> list[str]:
    """A line a data set and network for all cells of which nothing is measured."""
    groups: dict[tuple[str, str], list[TableRow]] = {}
    for line in lines:
        groups.setdefault((line.cell.dataset, _networks(line)), []).append(line)
    texts = []
    for (dataset, networks), some in groups.items():
        methods = ", ".join(dict.fromkeys(line.cell.called for line in some))
        counts = {line.cell.images_per_class for line in some}
        numbers = ", ".join(
            [
                *map(str, sorted(count for count in counts if count is not None)),
                *(["all real images"] if None in counts else []),
            ]
        )
        texts.append(
            f"  {0:>5} of {sum(line.wanted for line in some):<5}{counted(len(some), 'cell')} on {dataset}, {networks}: "
            f"not measured: {methods}; IPC {numbers}"
        )
    return texts


def _networks(line: TableRow) -> str:
    """What is trained, and what on."""
    cell = line.cell
    if cell.train_network == cell.test_network:
        return cell.test_network
    return f"{cell.train_network} -> {cell.test_network}"


def _remaining(planned: Sequence[PlannedCell], contents: Contents, jobs: int) -> str:
    """Expected time of what is missing, from the time that the same took before."""
    missing: dict[str, tuple[Any, ...]] = {}  # by key, what takes equally long
    for one in planned:
        missing.update({spec.key: ("set", spec.condensed_key) for spec in one.specs if spec.key not in contents.sets})
        for trained in (*one.trained, *one.real):
            count = None if trained.spec is None else trained.spec.images_per_class
            like = ("network", trained.dataset, trained.unit.training_key, count)
            missing.update({key: like for key in trained.unit.keys if key not in contents.networks})
    means = _mean_seconds(contents)
    known = sum(means.get(like, 0.0) for like in missing.values())
    unknown = sum(like not in means for like in missing.values())
    if not known:
        return f"left: {counted(unknown, 'unit')}, none of a kind that was timed yet"
    more = f", and {counted(unknown, 'unit')} of a kind that was not timed yet" if unknown else ""
    return f"left: about {duration(known / jobs)} with {counted(jobs, 'job')}{more}"


def _mean_seconds(contents: Contents) -> dict[tuple[Any, ...], float]:
    """Mean seconds of sets by their settings, and of networks by data, training and images a class."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in contents.sets.values():
        found.setdefault(("set", row.condensed), []).append(row.seconds)
    for network in contents.networks.values():
        on = contents.sets.get(network.condensed_set) if network.condensed_set else None
        like = ("network", network.dataset, network.training, None if on is None else on.images_per_class)
        found.setdefault(like, []).append(network.origin.seconds)
    return {like: sum(seconds) / len(seconds) for like, seconds in found.items()}
