"""Accuracy by step and its drop, against numbers made by hand."""

import numpy as np
import pandas as pd
import pytest

from clreplay.analysis.summary import accuracy_by_step, accuracy_drop


def results(rows):
    columns = ["memory", "class_order", "network", "step", "classes_seen", "accuracy"]
    return pd.DataFrame([dict(zip(columns, row)) for row in rows])


TWO_ORDERS = [
    ("ddm", 0, 0, 0, 2, 90.0),
    ("ddm", 0, 1, 0, 2, 80.0),
    ("ddm", 0, 0, 1, 4, 70.0),
    ("ddm", 0, 1, 1, 4, 60.0),
    ("ddm", 1, 0, 0, 2, 50.0),
    ("ddm", 1, 1, 0, 2, 50.0),
]


def test_mean_and_population_spread_over_orders_and_networks():
    table = accuracy_by_step(results(TWO_ORDERS))
    assert table["classes_seen"].tolist() == [2, 4]
    assert table["accuracy"].tolist() == [67.5, 65.0]
    np.testing.assert_allclose(table["std"], [np.std([90, 80, 50, 50]), 5.0])
    counts = table[["orders", "networks", "fewest_an_order", "most_an_order"]]
    assert counts.values.tolist() == [[2, 4, 2, 2], [1, 2, 2, 2]]


def test_a_drop_is_taken_inside_a_class_order():
    """Order 1 has no second step: its low first accuracy must not make the drop of order 0 smaller."""
    table = accuracy_drop(results(TWO_ORDERS))
    assert table["from_first"].tolist() == [0.0, 20.0]
    assert table["from_previous"].tolist()[1] == 20.0 and np.isnan(table["from_previous"][0])
    assert table["orders"].tolist() == [2, 1]


def test_drops_from_first_and_previous_differ_and_spread_over_orders():
    rows = [("dm", order, 0, step, 2 + 2 * step, 90 - (10 + order) * step**2) for order in (0, 1) for step in (0, 1, 2)]
    table = accuracy_drop(results(rows))
    assert table["from_first"].tolist() == [0.0, 10.5, 42.0]
    assert table["from_previous"].tolist()[1:] == [10.5, 31.5]
    assert table["from_first_std"].tolist() == [0.0, 0.5, 2.0]


def test_rows_may_come_in_any_order_and_stay_as_they_were():
    frame = results(TWO_ORDERS)
    shuffled = frame.sample(frac=1, random_state=0)
    before = shuffled.copy()
    pd.testing.assert_frame_equal(accuracy_by_step(shuffled), accuracy_by_step(frame))
    pd.testing.assert_frame_equal(accuracy_drop(shuffled), accuracy_drop(frame))
    pd.testing.assert_frame_equal(shuffled, before)


def test_runs_are_kept_apart():
    frame = pd.concat([results(TWO_ORDERS).assign(run="a"), results(TWO_ORDERS).assign(run="b", accuracy=1.0)])
    table = accuracy_by_step(frame)
    assert table.groupby("run")["accuracy"].max().to_dict() == {"a": 67.5, "b": 1.0}


@pytest.mark.parametrize("summary", [accuracy_by_step, accuracy_drop])
def test_what_cannot_be_summed_up_is_refused_with_a_cure(summary):
    frame = results(TWO_ORDERS)
    with pytest.raises(ValueError, match="at least one row, got none; let the run finish"):
        summary(frame[:0])
    with pytest.raises(ValueError, match="network, accuracy missing: read a results.csv"):
        summary(frame.drop(columns=["network", "accuracy"]))
    with pytest.raises(ValueError, match="accuracy is missing in 1 rows; repeat"):
        summary(frame.assign(accuracy=[1, 2, None, 4, 5, 6]))
    with pytest.raises(ValueError, match="hold ddm, class order 0, network 0, step 0 .* twice; read every folder once"):
        summary(pd.concat([frame, frame]))
