"""The queue of networks that train beside a condensation: who joins, who leaves, who is chosen, what is kept."""

import copy

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clreplay.condensation.matching.network_queue import NetworkQueue, QueueSettings
from clreplay.networks import ConvNet


def queue(settings=QueueSettings(queue_steps=1, batch_net=4), images=None, seed=0, norm="instance"):
    chance = torch.Generator().manual_seed(1)
    images = torch.randn(9, 1, 4, 4, generator=chance) if images is None else images
    network = ConvNet(3, 1, 4, width=4, depth=1, norm=norm)
    return NetworkQueue(network, images, torch.arange(9) % 3, settings, seed)


def same_member(one, other):
    tensors = zip((one.weights, one.momentum, one.shares), (other.weights, other.momentum, other.shares))
    buffers = all(torch.equal(one.buffers[name], other.buffers[name]) for name in one.buffers)
    return one.trainings == other.trainings and buffers and all(torch.equal(a, b) for a, b in tensors)


def same_members(one, other):
    return len(one) == len(other) and all(map(same_member, one, other))


SIZES = st.fixed_dictionaries(
    {
        "queue_start": st.integers(1, 4),
        "queue_every": st.integers(1, 5),
        "queue_size": st.integers(4, 7),
        "queue_trained": st.integers(1, 5),
        "queue_steps": st.integers(0, 2),
        "accuracy_every": st.integers(1, 9),
    }
)


@hypothesis.settings(max_examples=20)
@given(SIZES, st.integers(0, 3), st.integers(1, 12))
def test_the_queue_grows_to_its_size_and_the_oldest_leave(sizes, seed, numbers):
    settings = QueueSettings(batch_net=4, **sizes)
    some = queue(settings, seed=seed)
    for number in range(numbers):
        before = some.members(number)
        made = settings.queue_start + number // settings.queue_every
        assert len(before) == min(made, settings.queue_size)
        assert 0 <= some.chosen(number) < len(before)
        some.take(number)
        assert not some.network.training and not any(p.requires_grad for p in some.network.parameters())
        assert torch.equal(some.parameters.buffer, before[some.chosen(number)].weights)
        assert some.accuracy == before[some.chosen(number)].accuracy and 0 <= some.accuracy <= 100
        some.advance(number)
        after = some.members(number + 1)
        joined = settings.queue_start + (number + 1) // settings.queue_every - made
        stayed = after[: len(after) - joined]
        left = len(before) - len(stayed)
        assert joined in (0, 1) and left == max(0, len(before) + joined - settings.queue_size)
        moved = [not torch.equal(one.weights, other.weights) for one, other in zip(before[left:], stayed)]
        trained = min(settings.queue_trained, len(before)) if settings.queue_steps else 0
        assert trained - left <= sum(moved) <= trained
        forgotten = (number + 1) % settings.accuracy_every == 0
        for one, other, has_moved in zip(before[left:], stayed, moved):
            assert other.trainings == (0 if forgotten else one.trainings + has_moved)
        for fresh in after[len(stayed) :]:
            assert fresh.trainings == 0 and not fresh.momentum.any() and fresh.accuracy == 0


@hypothesis.settings(max_examples=20)
@given(SIZES, st.integers(0, 8))
def test_advancing_twice_is_advancing_once_and_the_state_before_is_still_known(sizes, number):
    settings = QueueSettings(batch_net=4, **sizes)
    some, other = queue(settings), queue(settings)
    for earlier in range(number):
        some.advance(earlier), other.advance(earlier)
    state, before = some.state_dict(number), some.members(number)
    kept = copy.deepcopy(state)
    some.advance(number)
    once = some.members(number + 1)
    some.advance(number)
    assert same_members(some.members(number + 1), once)
    assert same_members(some.members(number), before)
    some.take(number)
    assert torch.equal(some.parameters.buffer, before[some.chosen(number)].weights)
    again = some.state_dict(number)
    for one in (again, state):  # nor did what came later reach the state
        assert one["number"] == number and one["trainings"] == kept["trainings"]
        assert all(torch.equal(one[name], kept[name]) for name in ("weights", "momentum", "shares"))
    fresh = queue(settings, seed=0)
    fresh.load_state_dict(again)
    fresh.advance(number)
    assert same_members(fresh.members(number + 1), once)
    other.advance(number)
    assert same_members(other.members(number + 1), once)


def test_every_place_of_the_queue_is_chosen_and_trained_about_equally_often():
    some = queue(QueueSettings(queue_start=5, queue_every=10**6, accuracy_every=10**6, queue_steps=1, batch_net=2))
    chosen, trained = torch.zeros(5), torch.zeros(5)
    for number in range(200):
        chosen[some.chosen(number)] += 1
        before = some.members(number)
        some.advance(number)
        trained += torch.tensor([b.trainings - a.trainings for a, b in zip(before, some.members(number + 1))])
    assert trained.sum() == 400
    for counts, expected in ((chosen, 40), (trained, 80)):
        assert float(((counts - expected) ** 2 / expected).sum()) < 18.5  # chi squared, 4 degrees, p = 0.001


def test_the_queue_depends_on_the_seed():
    one, other = queue(seed=0), queue(seed=1)
    assert not torch.equal(one.members(0)[0].weights, other.members(0)[0].weights)
    assert [one.chosen(0)] * 8 != [queue(seed=s).chosen(0) for s in range(8)]


def test_momentum_waits_with_its_network():
    """Two trainings of three steps, with a stranger in between, are one of six steps on the same batches."""
    images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))  # one batch: no order to speak of
    labels = torch.tensor([0, 1, 2, 0])
    made = [
        NetworkQueue(
            ConvNet(3, 1, 4, width=4, depth=1), images, labels, QueueSettings(queue_steps=steps, batch_net=4), 0
        )
        for steps in (3, 6)
    ]
    parts, whole = (some.members(0)[0] for some in made)
    parts = made[0]._trained(parts, (0, "a"))
    made[0]._trained(made[0].members(0)[1], (0, "b"))
    parts = made[0]._trained(parts, (0, "c"))
    whole = made[1]._trained(whole, (0, "d"))
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.momentum, whole.momentum, rtol=1e-5, atol=1e-6)


def test_statistics_of_batch_norm_belong_to_their_network():
    some = queue(norm="batch")
    some.advance(0)
    seen = [m.buffers["blocks.0.norm.running_mean"] for m in some.members(1)]
    assert sum(bool(mean.any()) for mean in seen) == 2
    for number in range(1, 12):
        some.take(number)
        member = some.members(number)[some.chosen(number)]
        assert torch.equal(some.network.blocks[0].norm.running_mean, member.buffers["blocks.0.norm.running_mean"])
        some.advance(number)


def test_a_number_the_queue_is_not_at_is_an_error():
    some = queue()
    some.advance(0)
    some.advance(1)
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"number must be that of the queue, 2, or the one before, got {number}"):
            some.take(number)


def test_a_state_of_another_network_changes_nothing():
    some, other = queue(), queue(images=torch.randn(9, 1, 4, 4))
    state = other.state_dict(0)
    state["weights"] = state["weights"][:, :-1]
    before = some.members(0)
    with pytest.raises(ValueError, match=r"the state does not fit: its weights are \(4, \d+\), a network here has \d+"):
        some.load_state_dict(state)
    assert some.members(0) is before
