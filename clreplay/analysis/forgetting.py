"""What is forgotten: accuracy of every class and of every step's classes, and how old and new ones are confused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clreplay.analysis.summary import population_std

if TYPE_CHECKING:
    import pandas as pd

NETWORK = ["run", "memory", "class_order", "network"]


def accuracy_by_class(confusions: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every class after every step since it came.

    Args:
        confusions: of ``read_confusion``; of several runs, one below the other.

    Returns:
        one row a run, memory, step and ``label``: ``accuracy`` in percent, mean over class orders and networks, ``std``
        (population) over them, and how many ``networks`` there are.
    """
    each = _share_right(confusions, [*NETWORK, "step", "label"])
    return _over_networks(each, ["run", "memory", "step", "label"])


def accuracy_by_task(confusions: pd.DataFrame) -> pd.DataFrame:
    """The same of the classes that came in one step together, which the literature calls a task.

    Returns:
        as :func:`accuracy_by_class`, with ``arrived``, the step of the classes, in the place of ``label``.
    """
    each = _share_right(confusions, [*NETWORK, "step", "arrived"])
    return _over_networks(each, ["run", "memory", "step", "arrived"])


def forgetting(confusions: pd.DataFrame) -> pd.DataFrame:
    """Average forgetting after every step: how far the accuracy of each earlier step's classes is below their best.

    After step k it is the mean over the steps j < k of ``max over l in j..k-1 of a(l, j) - a(k, j)``, where a(l, j) is
    the accuracy after step l on the test images of the classes that came in step j, of one network of one class order;
    negative where classes are known better than ever. Networks are counted by their number: those of one number share
    their seed, and, where training starts from scratch, nothing else.

    Returns:
        one row a run, memory and step from the second on: ``forgetting`` in percentage points, mean over class orders
        and networks, ``std`` (population), ``networks``.

    Source: Chaudhry et al., Riemannian Walk (ECCV 2018), eq. 3, with class-incremental outputs.
    """
    return forgetting_of(_share_right(confusions, [*NETWORK, "step", "arrived"]))


def forgetting_of(each: pd.DataFrame) -> pd.DataFrame:
    """:func:`forgetting` from accuracies.

    Args:
        each: one row a run, memory, class_order, network, step and ``arrived``, the step of a task (classes or a domain
            that came together): ``accuracy`` on it in percent.
    """
    each = each.sort_values("step", kind="stable")
    earlier = each.assign(value=below_best(each, [*NETWORK, "arrived"]))[each["arrived"] < each["step"]]
    means = earlier.groupby([*NETWORK, "step"], sort=False)["value"].mean().reset_index(name="accuracy")
    return _over_networks(means, ["run", "memory", "step"]).rename(columns={"accuracy": "forgetting"})


def below_best(each: pd.DataFrame, task: list[str]) -> pd.Series:
    """By how much every accuracy is below the best of the same task and network after any earlier step; NaN at first.

    Args:
        each: rows with ``accuracy``, sorted by step.
        task: columns that tell tasks and networks apart.
    """
    accuracies = each.groupby(task, sort=False)["accuracy"]
    found: pd.Series = accuracies.transform(lambda of: of.cummax().shift()) - each["accuracy"]
    return found


def old_and_new(confusions: pd.DataFrame) -> pd.DataFrame:
    """What becomes of the test images of old classes and of those that came last.

    Returns:
        one row a run, memory, step and ``of`` (``old`` or ``new``; the first step has no old ones): shares in percent,
        ``right``, ``other_old``, ``other_new`` and ``unseen`` (a class that has not come yet), which add up to 100.
    """
    new = confusions["arrived"] == confusions["step"]
    right = confusions["label"] == confusions["taken_for"]
    unseen, as_new = confusions["taken_for_arrived"] < 0, confusions["taken_for_arrived"] == confusions["step"]
    outcome = right.map({True: "right", False: "other_old"})
    outcome = outcome.mask(~right & as_new, "other_new").mask(~right & unseen, "unseen")
    rows = confusions.assign(of=new.map({True: "new", False: "old"}), outcome=outcome)
    place = ["run", "memory", "step", "of"]
    counts = rows.groupby([*place, "outcome"], sort=False)["count"].sum().unstack("outcome", fill_value=0)
    counts = counts.reindex(columns=["right", "other_old", "other_new", "unseen"], fill_value=0)
    return counts.mul(100).div(counts.sum(axis=1), axis=0).rename_axis(columns=None).reset_index()


def _share_right(confusions: pd.DataFrame, place: list[str]) -> pd.DataFrame:
    """Percent right at every place of one network."""
    right = confusions["count"].where(confusions["label"] == confusions["taken_for"], 0)
    sums = confusions.assign(right=right).groupby(place, sort=False)[["right", "count"]].sum().reset_index()
    return sums.assign(accuracy=100.0 * sums["right"] / sums["count"])


def _over_networks(each: pd.DataFrame, place: list[str]) -> pd.DataFrame:
    table = each.groupby(place, sort=False)["accuracy"].agg(accuracy="mean", std=population_std, networks="size")
    return table.reset_index().sort_values(place, kind="stable", ignore_index=True)
