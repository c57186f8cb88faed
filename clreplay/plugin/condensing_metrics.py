"""The loss terms of a condensation as metrics of the strategy that it works for, while they come."""

from __future__ import annotations

from functools import partial
from typing import Any

from clreplay.runtime.progress import Progress, Row, Watch, loss_terms


def watched(progress: Progress | None, strategy: Any) -> Progress | None:
    """Progress that hands the loss terms to the loggers of the strategy's evaluation plugin as well.

    Args:
        progress: what is called anyway; returned as it is where nobody listens.
        strategy: its ``evaluator`` has the loggers.
    """
    evaluator = getattr(strategy, "evaluator", None)
    listens = getattr(evaluator, "loggers", None) or getattr(evaluator, "collect_all", False)
    if not listens or not getattr(evaluator, "active", True):
        return progress
    return Watch(progress, partial(log_row, strategy))


def log_row(strategy: Any, row: Row) -> None:
    """One row of the record to all loggers, and to the curves that the evaluation plugin collects.

    Not to its last metrics: ``strategy.eval`` returns those, and they are of what was evaluated.
    """
    evaluator, number = strategy.evaluator, strategy.experience.current_experience
    for term, value in loss_terms(row).items():
        name = f"Condensing/{term}/Exp{number:03d}"
        for logger in evaluator.loggers:
            logger.log_single_metric(name, value, _place(logger, strategy, row))
        if evaluator.collect_all:
            places, values = evaluator.all_metric_results[name]
            places.append(row["iteration"])
            values.append(value)


def _place(logger: Any, strategy: Any, row: Row) -> int:
    """Where a row stands on a logger's axis.

    W&B has one axis for all metrics, of training iterations, and drops what is behind the last point: iterations of
    condensing would hide the training that follows, so there a condensation is the one point that it is for training.
    """
    if type(logger).__name__ == "WandBLogger":
        return int(strategy.clock.train_iterations)
    return int(row["iteration"])
