"""How a budget is shared among classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clreplay.memory.budget import Budget


@given(st.integers(1, 40), st.integers(0, 400))
def test_a_total_budget_is_spent_whole_and_evenly(classes, more):
    quotas = Budget(mem_size=classes + more).quotas(classes)
    assert sum(quotas) == classes + more
    assert max(quotas) - min(quotas) <= 1
    assert min(quotas) >= 1
    assert quotas == sorted(quotas, reverse=True)  # the earlier classes get the remainder


@given(st.integers(2, 40), st.integers(0, 400))
def test_no_quota_grows_as_classes_arrive(classes, more):
    before, after = Budget(mem_size=classes + more).quotas(classes - 1), Budget(mem_size=classes + more).quotas(classes)
    assert all(late <= early for early, late in zip(before, after))


@given(st.integers(0, 40), st.integers(1, 50))
def test_a_fixed_quota_is_the_same_for_every_class(classes, each):
    assert Budget(each).quotas(classes) == [each] * classes


def test_a_budget_smaller_than_the_classes_is_an_error():
    with pytest.raises(ValueError, match=r"mem_size must be at least the number of classes seen \(3\), got 2; "):
        Budget(mem_size=2).quotas(3)
