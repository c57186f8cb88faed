"""What a run says at its beginning and end, and its pictures."""

from __future__ import annotations

import numpy as np

from clreplay.incremental.domain_plan import DomainPlan
from clreplay.incremental.experiment_plan import ExperimentPlan
from clreplay.incremental.forecast import Forecast, forecast
from clreplay.incremental.run_folder import RunFolder
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Reporter, counted, roughly


def announce(
    plan: ExperimentPlan, folder: RunFolder, resumed: bool, device_name: str, reporter: Reporter
) -> Forecast | None:
    """Say what will be done and how long it takes; None for a run that goes on, whose forecast would be wrong."""
    s = plan.settings
    budget = str(s.budget)
    budget += (
        ""
        if s.store == "uint8"
        else f", condensed ones stored as {s.store}"
        if s.store == "float32"
        else (f", stored as {s.store}" + ("" if s.quality is None else f" of quality {s.quality}"))
    )
    if s.pixels is not None:
        budget += f" at {s.pixels} x {s.pixels} pixels"
    steps = counted(s.steps, "step")
    steps += "" if s.first_step is None or s.steps == 1 else f" ({s.first_step}, then {plan.sizes[-1]} each)"
    orders = counted(s.class_orders, "class order") if s.class_order is None else "a class order of your own"
    memories, networks = ", ".join(recipe.label for recipe in plan.recipes), f"{counted(s.networks, 'network')} a step"
    if isinstance(plan, DomainPlan):
        domains = f"{plan.data.num_classes} classes in {counted(s.steps, 'domain')}, which share {budget}"
        reporter.line(f"Domain-incremental {s.dataset}: {domains}")
        reporter.line(f"  domains   {', '.join(plan.domain_names)}")
        reporter.line(f"  memories  {memories}; {networks}")
    else:
        reporter.line(f"Class-incremental {s.dataset}: {plan.data.num_classes} classes in {steps}, {budget}")
        reporter.line(f"  memories  {memories}; {orders}, {networks}")
    reporter.line(f"  learner   {plan.learner.summary()}, host {s.host}")
    reporter.line(f"  device    {plan.device} ({device_name}), preset {s.preset}{_PRESET_NOTES[s.preset]}")
    for recipe in plan.recipes:
        if (speed := plan.methods[recipe.name].summary()) is not None:
            reporter.line(f"  speed     {recipe.label}: {speed}")
    reporter.line(f"  data      {plan.data.source}")
    reporter.line(f"  folder    {folder.path}{' (going on with the run in it)' if resumed else ''}")
    if resumed:
        return None
    expected = forecast(plan)
    labels = [recipe.label for recipe in plan.recipes if recipe.name in expected.unknown]
    without = f", not counting to make {', '.join(labels)}: that is known once it runs" if labels else ""
    reporter.line(f"  time      {roughly(expected.total)} (from a short trial on this machine{without})")
    return expected


_PRESET_NOTES = {
    "paper": ": the paper's settings",
    "cpu": ": narrow networks and short runs for a CPU; not the paper's accuracy",
    "smoke": ": a few iterations to see that everything works; accuracies mean nothing",
}


def accuracy_picture(plan: ExperimentPlan, folder: RunFolder) -> None:
    """``accuracy.png``: accuracy against classes seen, or on every domain by step, as far as it is measured."""
    labels = {recipe.name: recipe.label for recipe in plan.recipes}
    s = plan.settings
    if isinstance(plan, DomainPlan):
        from clreplay.analysis.domains import domains_figure

        title = f"{s.dataset}, {counted(s.steps, 'domain')}, {s.budget} ({s.preset} preset)"
        domains_figure(
            folder.rows(), folder.domain_rows(), labels=labels, title=title, path=folder.path / "accuracy.png"
        )
        return
    from clreplay.analysis.figures import accuracy_figure

    title = f"{s.dataset}, {counted(s.steps, 'step')}, {s.budget}"
    accuracy_figure(
        folder.rows(), labels=labels, title=f"{title} ({s.preset} preset)", path=folder.path / "accuracy.png"
    )


def save_memories(plan: ExperimentPlan, folder: RunFolder) -> dict[str, ReplayMemory]:
    """The memories of the first class order beside the results, by name."""
    memories = {}
    for recipe in plan.recipes:
        memories[recipe.name] = ReplayMemory.load(
            folder.checkpoint(recipe.name, 0), dataset=plan.data.name, fingerprint=plan.data.fingerprint
        )
        memories[recipe.name].save(folder.memory_file(recipe.name, alone=len(plan.recipes) == 1))
    return memories


SHOWN = 5
"""Real images of a class and domain that a picture has at most."""


def memory_picture(plan: ExperimentPlan, folder: RunFolder, memories: dict[str, ReplayMemory]) -> None:
    """``memory.png``: real images beside those of every memory."""
    from clreplay.analysis.figures import memory_figure

    memory_figure(
        memories,
        plan.shown_images(SHOWN) if isinstance(plan, DomainPlan) else plan.data.train,
        class_names=plan.data.class_names,
        labels={recipe.name: recipe.label for recipe in plan.recipes},
        path=folder.path / "memory.png",
    )


def print_summary(plan: ExperimentPlan, folder: RunFolder, reporter: Reporter) -> None:
    """The accuracies after the last step, and where everything is."""
    rows = folder.rows()
    last = rows[rows.step == plan.settings.steps - 1].groupby("memory").accuracy
    domains = isinstance(plan, DomainPlan)
    count, what = (plan.settings.steps, "domains") if domains else (plan.data.num_classes, "classes")
    reporter.line()
    reporter.line(f"Accuracy after the last step, all {count} {what}, last epoch:")
    for recipe in plan.recipes:
        values = last.get_group(recipe.name)
        reporter.line(f"  {recipe.label:<10} {values.mean():5.2f} %{spread_text(values.to_numpy())}")
    if isinstance(plan, DomainPlan):
        _print_domains(plan, folder, reporter)
    reporter.line(f"Pictures: {folder.path / 'accuracy.png'} and {folder.path / 'memory.png'}")
    also = f" and {folder.domains_file}" if domains else ""
    reporter.line(f"Numbers:  {folder.results_file}{also}")


def _print_domains(plan: DomainPlan, folder: RunFolder, reporter: Reporter) -> None:
    """Accuracy at the end on every domain, and how far it fell."""
    from clreplay.analysis.domains import domain_forgetting

    table = domain_forgetting(folder.domain_rows())
    reporter.line()
    reporter.line(
        "By domain: accuracy after the last step, and what was forgotten since the best step before (points):"
    )
    width = max(len(name) for name in (*plan.domain_names, *(recipe.label for recipe in plan.recipes)))
    reporter.line(f"  {'':<{width}}  " + "  ".join(f"{recipe.label:>14}" for recipe in plan.recipes))
    for number, name in enumerate(plan.domain_names):
        cells = []
        for recipe in plan.recipes:
            row = table[(table.memory == recipe.name) & (table.domain == number)].iloc[0]
            fell = "" if np.isnan(row.forgetting) else f" ({row.forgetting:+5.1f})"
            cells.append(f"{row.accuracy:5.1f} %{fell:<8}".rjust(14))
        reporter.line(f"  {name:<{width}}  " + "  ".join(cells))


def spread_text(values: np.ndarray) -> str:
    """The spread over networks in words."""
    return f" (std {values.std():.2f}, {len(values)} networks)" if len(values) > 1 else " (1 network)"
