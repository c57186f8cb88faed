"""What a run says at its beginning and end, and its pictures."""

from __future__ import annotations

import numpy as np

from clreplay.incremental.forecast import Forecast, forecast
from clreplay.incremental.plan import ExperimentPlan
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
    reporter.line(f"Class-incremental {s.dataset}: {plan.data.num_classes} classes in {steps}, {budget}")
    orders = counted(s.class_orders, "class order") if s.class_order is None else "a class order of your own"
    memories = ", ".join(recipe.label for recipe in plan.recipes)
    reporter.line(f"  memories  {memories}; {orders}, {counted(s.networks, 'network')} a step")
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
    """``accuracy.png``: accuracy against classes seen, as far as it is measured."""
    from clreplay.analysis.figures import accuracy_figure

    labels = {recipe.name: recipe.label for recipe in plan.recipes}
    s = plan.settings
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


def memory_picture(plan: ExperimentPlan, folder: RunFolder, memories: dict[str, ReplayMemory]) -> None:
    """``memory.png``: real images beside those of every memory."""
    from clreplay.analysis.figures import memory_figure

    memory_figure(
        memories,
        plan.data.train,
        class_names=plan.data.class_names,
        labels={recipe.name: recipe.label for recipe in plan.recipes},
        path=folder.path / "memory.png",
    )


def print_summary(plan: ExperimentPlan, folder: RunFolder, reporter: Reporter) -> None:
    """The accuracies after the last step, and where everything is."""
    rows = folder.rows()
    last = rows[rows.step == plan.settings.steps - 1].groupby("memory").accuracy
    reporter.line()
    reporter.line(f"Accuracy after the last step, all {plan.data.num_classes} classes, last epoch:")
    for recipe in plan.recipes:
        values = last.get_group(recipe.name)
        reporter.line(f"  {recipe.label:<10} {values.mean():5.2f} %{spread_text(values.to_numpy())}")
    reporter.line(f"Pictures: {folder.path / 'accuracy.png'} and {folder.path / 'memory.png'}")
    reporter.line(f"Numbers:  {folder.results_file}")


def spread_text(values: np.ndarray) -> str:
    """The spread over networks in words."""
    return f" (std {values.std():.2f}, {len(values)} networks)" if len(values) > 1 else " (1 network)"
