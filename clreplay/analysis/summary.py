"""Results of runs in a few numbers: accuracy by step, and how far it has dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LINE = ["run", "memory", "step", "classes_seen"]
NETWORK = ["run", "memory", "class_order", "network", "step"]


def accuracy_by_step(results: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy and spread of every memory after every step.

    Args:
        results: rows of ``results.csv`` (``read_results``), one a trained network; the column ``run`` may be absent.

    Returns:
        One row a run, memory and step: ``accuracy`` and ``std`` (population, over all class orders and networks)
        in percent, the numbers of ``orders`` and of trained ``networks`` behind them, and the fewest and most
        networks of one order.

    Raises:
        ValueError: no rows, a column or an accuracy missing, or a network twice.
    """
    rows = checked(results)
    table = rows.groupby(LINE, sort=False).agg(
        accuracy=("accuracy", "mean"),
        std=("accuracy", population_std),
        orders=("class_order", "nunique"),
        networks=("accuracy", "size"),
    )
    an_order = rows.groupby([*LINE, "class_order"], sort=False).size().groupby(LINE)
    table["fewest_an_order"], table["most_an_order"] = an_order.min(), an_order.max()
    return table.reset_index()


def accuracy_drop(results: pd.DataFrame) -> pd.DataFrame:
    """How far accuracy has fallen since the first step and since the step before, in percentage points.

    Accuracy is measured on all classes seen so far, so this is **not** forgetting as the literature has it (the
    loss on old classes alone): a part of it comes from choosing among more classes. Differences are taken inside
    a class order, between the means of its networks; an unfinished order counts at the steps it has.

    Args:
        results: as for :func:`accuracy_by_step`.

    Returns:
        One row a run, memory and step: ``from_first`` and ``from_previous`` (NaN at the first step), positive
        where accuracy fell, each with ``..._std`` (population, over class orders), and the number of ``orders``.

    Raises:
        ValueError: as :func:`accuracy_by_step`.
    """
    order = ["run", "memory", "class_order"]
    means = checked(results).groupby([*order, "step", "classes_seen"], sort=False)["accuracy"].mean().reset_index()
    steps = means.groupby(order, sort=False)["accuracy"]
    means["from_first"] = steps.transform("first") - means["accuracy"]
    means["from_previous"] = -steps.diff()
    table = means.groupby(LINE, sort=False).agg(
        from_first=("from_first", "mean"),
        from_first_std=("from_first", population_std),
        from_previous=("from_previous", "mean"),
        from_previous_std=("from_previous", population_std),
        orders=("class_order", "nunique"),
    )
    return table.reset_index()


def checked(results: pd.DataFrame) -> pd.DataFrame:
    """The results sorted by step, with a column ``run``; nothing else is changed.

    Raises:
        ValueError: no rows, a column or an accuracy missing, or a network twice.
    """
    needed = [*NETWORK[1:], "classes_seen", "accuracy"]
    missing = [column for column in needed if column not in results.columns]
    if missing:
        raise ValueError(
            f"results must have the columns {', '.join(needed)}; {', '.join(missing)} missing: read a results.csv"
        )
    if not len(results):
        raise ValueError("results must have at least one row, got none; let the run finish its first step")
    rows = results if "run" in results.columns else results.assign(run="")
    if rows["accuracy"].isna().any():
        raise ValueError(f"accuracy is missing in {int(rows['accuracy'].isna().sum())} rows; repeat those steps")
    twice = rows[rows.duplicated(NETWORK)]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"results hold {row['memory']}, class order {row['class_order']}, network {row['network']}, step "
            f"{row['step']} of run {row['run']!r} twice; read every folder once, and where two folders have the same "
            "name, change it in the column 'run'"
        )
    return rows.sort_values("step", kind="stable")


def population_std(values: pd.Series) -> float:
    """Of numbers that are all there are."""
    return values.std(ddof=0)
