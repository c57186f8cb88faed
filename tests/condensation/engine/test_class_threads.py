"""Classes side by side in threads: order, errors, single-threaded operators, and what stays as it was outside."""

import threading
import time

import pytest
import torch

from clreplay.condensation.engine.class_threads import ClassThreads


@pytest.fixture
def two_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_operator_inside_runs_on_one_core_and_outside_on_as_many_as_before(two_outside):
    threads = ClassThreads(3)
    seen = threads.map(lambda _: (time.sleep(0.02), threading.get_ident(), torch.get_num_threads())[1:], range(12))
    assert {count for _, count in seen} == {1}
    assert len({who for who, _ in seen}) == 3
    assert torch.get_num_threads() == 2
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2]
    threads.close()
    assert torch.get_num_threads() == 2


def test_outcomes_come_in_the_order_of_the_items():
    threads = ClassThreads(2)
    assert threads.map(lambda i: (time.sleep(0.01 * (5 - i)), i)[1], range(5)) == [0, 1, 2, 3, 4]
    threads.close()


def test_after_an_error_no_item_is_left_half_done():
    threads, begun, ended = ClassThreads(2), [], []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("item 1")
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match="item 1"):
        threads.map(work, range(20))
    assert set(begun) - {1} == set(ended)
    assert len(begun) < 20
    threads.close()


def test_as_many_threads_as_pytorch_has_by_default(two_outside):
    threads = ClassThreads()
    assert threads.count == 2
    threads.close()
