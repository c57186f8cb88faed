"""Accuracy and forgetting by domain, against a slow reference; the picture."""

import math

import pandas as pd
import pytest

from clreplay.analysis import domain_accuracy, domain_forgetting, domains_figure

VALUES = {0: [90, 80, 85], 1: [70, 75], 2: [60]}  # of a domain, from the step that brought it on


def rows(memories=("ddm",), networks=2):
    found = [
        {"memory": m, "dataset": "d", "class_order": 0, "network": n, "step": domain + i, "domain": domain,
         "domain_name": f"rotate:{domain}", "accuracy": float(value - 4 * n + 2 * n * (i == 0))}
        for m in memories for n in range(networks) for domain, values in VALUES.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(found)


def slow_forgetting(table, domain):
    """Best before the end minus the end, network by network."""
    lost = []
    for network in sorted(set(table.network)):
        mine = [row for row in table.itertuples() if row.domain == domain and row.network == network]
        last = [row.accuracy for row in mine if row.step == 2]
        before = [row.accuracy for row in mine if row.step < 2]
        lost.append(max(before) - last[0] if before else math.nan)
    return sum(lost) / len(lost)


def test_forgetting_is_the_best_before_the_end_minus_the_end():
    table = rows().sample(frac=1, random_state=0)
    found = domain_forgetting(table).set_index("domain")
    for domain in (0, 1):
        assert found.forgetting[domain] == pytest.approx(slow_forgetting(table, domain))
    assert found.forgetting[1] < 0 and math.isnan(found.forgetting[2])
    assert found.accuracy.to_dict() == {0: 83, 1: 73, 2: 59}


def test_memories_are_told_apart_and_an_unfinished_one_counts_as_far_as_it_is():
    both = pd.concat([rows(("ddm",)), rows(("dm",))[lambda table: table.step < 2]])
    found = domain_forgetting(both).set_index(["memory", "domain"])
    assert found.forgetting["ddm", 0] == pytest.approx(6) and found.forgetting["dm", 0] == pytest.approx(11)
    assert ("dm", 2) not in found.index


def test_accuracy_by_domain_and_step():
    found = domain_accuracy(rows()).set_index(["domain", "step"])
    assert found.accuracy[0, 0] == 89 and found["std"][0, 0] == 1 and len(found) == 6


def test_the_picture_has_a_line_a_memory_and_a_line_a_domain(tmp_path):
    table = rows(("random", "ddm"))
    results = table.groupby(["memory", "class_order", "network", "step"]).accuracy.mean().reset_index()
    figure = domains_figure(results, table, labels={"ddm": "DDM"}, title="digits", path=tmp_path / "a.png")
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["all domains seen", "random", "DDM"] or len(panels) == 3
    assert [len(axes.get_lines()) for axes in panels] == [2, 3, 3]
    assert panels[1].get_lines()[1].get_xdata().tolist() == [2, 3]
    assert (tmp_path / "a.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="at least one row"):
        domains_figure(results[:0], table)
