"""Rehearsing: new images and remembered ones in every batch, the same weights all along, condensing afterwards."""

import logging

import pytest
import torch
from avalanche.training import Cumulative
from avalanche.training.plugins import EWCPlugin, FromScratchTrainingPlugin, ReplayPlugin, SupervisedPlugin
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_helpers import (
    AUGMENTING,
    TO_TENSOR,
    GrowingNet,
    HeadedNet,
    Naive,
    SmallNet,
    Spy,
    TinyNet,
    ddm_replay,
    memory_bytes,
    nc,
    plain_benchmark,
    random_replay,
    run,
    stored,
    strategy,
    toy_pixels,
    weights,
)
from torchvision.transforms import Compose, Resize

from clreplay import ConvNet
from clreplay.data import load_dataset
from clreplay.memory.balanced import balanced_rows
from clreplay.plugin.replay import CondensedReplayPlugin, DDMReplayPlugin
from clreplay.runtime.seeding import generator


def rehearse(images_per_class=2, replay=random_replay, **options):
    return replay(images_per_class, mode="rehearse", **options)


def never(real, counts, settings, **rest):
    raise AssertionError("nothing may be condensed")


class NeverTrained(SupervisedPlugin, supports_distributed=True):
    def before_training_epoch(self, strategy, **kwargs):
        raise AssertionError("nothing may be trained")


# ---------------------------------------------------------------- what is trained on


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_the_first_experience_is_trained_on_alone_and_later_ones_beside_the_memory(make):
    spy, plugin = Spy(), rehearse(augment=None)
    trained = run(make(), plugin, spy)
    assert [len(b[0]) for b in spy.batches[0]] == [4] * 5 * 2  # 20 images, two epochs
    assert not any(stored(spy.images(0)[:20], plugin.memory.images[4:]))
    assert [len(b[0]) for b in spy.batches[1]] == [4] * 10 * 2  # two new ones and two remembered ones a batch
    for batch in spy.batches[1]:
        assert set(batch[1][:2].tolist()) <= {2, 3}
        assert sorted(batch[1][2:].tolist()) == [0, 1]
        assert all(stored(batch[0][2:], plugin.memory.of_classes([0, 1])[0]))
    assert plugin.memory.classes == [0, 1, 2, 3] == trained.plugins[0].seen


def test_all_new_images_are_met_once_an_epoch():
    spy = Spy()
    images, labels = toy_pixels()
    run(plain_benchmark((images, labels)), rehearse(), spy, train_epochs=1)
    new = torch.cat([batch[0][:2] for batch in spy.batches[1]])
    real = torch.stack([TO_TENSOR(i.permute(1, 2, 0).numpy()) for i in images[(labels == 2) | (labels == 3)]])
    assert len(new) == len(real) == len(new.flatten(1).unique(dim=0))
    assert all(stored(new, real))


@pytest.mark.parametrize(("share", "size", "remembered"), [(0.5, 4, 2), (0.25, 8, 2), (0.9, 10, 9), (0.1, 10, 1)])
def test_the_memory_has_its_share_of_a_batch(share, size, remembered):
    spy = Spy()
    run(plain_benchmark(), rehearse(memory_share=share), spy, train_mb_size=size, train_epochs=1)
    assert {len(batch[0]) for batch in spy.batches[1][:-1]} <= {size}
    assert all(int((batch[1] < 2).sum()) == remembered for batch in spy.batches[1])


def test_new_images_go_through_the_training_transforms_and_remembered_ones_are_augmented_on_the_device():
    spies = {}
    for augment in (None, "flip"):
        spies[augment] = spy = Spy()
        torch.manual_seed(1)
        plugin = rehearse(augment=augment)
        run(plain_benchmark(train=AUGMENTING), plugin, spy, train_epochs=1)
    plain, flipped = spies[None].batches[1], spies["flip"].batches[1]
    assert all(torch.equal(a[0][:2], b[0][:2]) for a, b in zip(plain, flipped))  # the benchmark's own chance
    kept = plugin.memory.of_classes([0, 1])[0]
    assert all(all(stored(batch[0][2:], kept)) for batch in plain)  # neither cropped nor normalised again
    both = torch.cat([kept, kept.flip(3)])
    served = [batch[0][2:] for batch in flipped]
    assert all(all(stored(images, both)) for images in served)
    assert not all(all(stored(images, kept)) for images in served)


def test_remembered_images_come_with_their_task_labels():
    spy = Spy()
    run(nc(task_labels=True), rehearse(), spy, model=HeadedNet())
    for _, labels, tasks in spy.batches[1]:
        assert torch.equal(tasks, labels // 2)


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 5), min_size=1, max_size=40), st.integers(0, 60), st.integers(0, 5))
def test_classes_take_turns_and_so_do_their_images(labels, count, seed):
    rows = balanced_rows(torch.tensor(labels), count, generator(seed))
    drawn = torch.tensor(labels)[rows]
    by_class = [int((drawn == label).sum()) for label in set(labels)]
    assert len(rows) == count and max(by_class) - min(by_class) <= 1
    for label in set(labels):
        mine = rows[drawn == label]
        each = torch.bincount(mine, minlength=len(labels))[torch.tensor(labels) == label]
        assert int(each.max()) - int(each.min()) <= 1


# ---------------------------------------------------------------- weights go on, condensing comes after


@pytest.mark.parametrize("net", [SmallNet, GrowingNet])
def test_model_and_optimizer_go_on(net):
    class End(Spy):
        def after_training_exp(self, strategy, **kwargs):
            self.end = {"weights": weights(strategy.model), "lr": strategy.optimizer.param_groups[0]["lr"]}

    spy, end = Spy(), End()
    stream = plain_benchmark().train_stream
    trained = strategy(rehearse(), end, spy, model=net())
    trained.train(stream[0])
    trained.optimizer.param_groups[0]["lr"] = 0.01
    before = end.end["weights"]
    trained.train(stream[1])
    start = spy.starts[1]
    if net is SmallNet:
        assert torch.equal(start["weights"], before)
    assert start["optimizer_state"] and start["groups"][0]["lr"] == 0.01


def test_classes_are_condensed_once_they_have_been_trained_on():
    seen = []

    class Watch(SupervisedPlugin, supports_distributed=True):
        def before_training_epoch(self, strategy, **kwargs):
            seen.append(list(strategy.plugins[0].memory.classes))

    plugin = rehearse()
    run(plain_benchmark(), plugin, Watch(), train_epochs=1)
    assert seen == [[], [0, 1]]
    assert plugin.memory.classes == [0, 1, 2, 3] and plugin.experiences == 2


def test_the_memory_is_the_one_that_retraining_makes():
    plugins = [ddm_replay(), rehearse(replay=ddm_replay)]
    for plugin in plugins:
        run(plain_benchmark(), plugin)
    states = [memory_bytes(plugin.memory) for plugin in plugins]
    assert states[0] == states[1]


def test_statistics_of_batch_norm_are_those_of_training():
    class Statistics(Spy):
        def after_training_epoch(self, strategy, **kwargs):
            self.last = {name: b.clone() for name, b in strategy.model.named_buffers()}

    spy = Statistics()
    trained = run(plain_benchmark(), rehearse(), spy, model=TinyNet())
    assert all(torch.equal(b, spy.last[name]) for name, b in trained.model.named_buffers())


@pytest.mark.parametrize("memory", ["random", "dm"])
def test_digits_in_five_steps_are_remembered(memory):
    def accuracy(*plugins):
        torch.manual_seed(0)
        model = ConvNet(10, 1, 32, width=16, depth=3)
        options = {"train_epochs": 2, "train_mb_size": 16, "lr": 0.02}
        trained = run(benchmark, *plugins, model=model, **options)
        model.eval()
        with torch.no_grad():
            right = [int((trained.model(x).argmax(1) == y).sum()) for x, y in test.split_batches()]
        return 100 * sum(right) / len(test.labels)

    data = load_dataset("digits")
    benchmark, test = digits_benchmark(data), Normalised(data)
    naive = accuracy()
    rehearsed = accuracy(CondensedReplayPlugin(memory, 5, mode="rehearse", preset="smoke", dataset="digits"))
    assert naive < 40  # the last two classes and little else
    assert rehearsed > naive + 35


class Normalised:
    def __init__(self, data):
        self.images, self.labels = data.normalization.apply(data.test.images), data.test.labels

    def split_batches(self):
        return zip(self.images.split(512), self.labels.split(512))


def digits_benchmark(data):
    from clreplay.incremental.avalanche_host import PixelDataset, ToInput

    transform = ToInput(data.normalization)
    options = {"task_labels": False, "fixed_class_order": list(range(10))}
    from avalanche.benchmarks import nc_benchmark

    return nc_benchmark(
        PixelDataset(data.train),
        PixelDataset(data.test),
        5,
        train_transform=transform,
        eval_transform=transform,
        **options,
    )


# ---------------------------------------------------------------- checked before any work


def refused(plugin, match, *, make=plain_benchmark, kind=Naive, plugins=(), **options):
    with pytest.raises(ValueError, match=match):
        strategy(plugin, *plugins, NeverTrained(), kind=kind, **options).train(make().train_stream[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "replay"}, "mode must be one of retrain, rehearse, got 'replay'"),
        ({"memory_share": 0.5}, "memory_share is 0.5 and mode 'retrain'.*pass mode='rehearse'"),
        ({"mode": "rehearse", "memory_share": 0}, "memory_share must be a number between 0 and 1.*got 0"),
        ({"mode": "rehearse", "memory_share": 1.0}, "memory_share must be a number between 0 and 1"),
        ({"mode": "rehearse", "memory_share": "half"}, "memory_share must be a number between 0 and 1.*got 'half'"),
        ({"mode": "rehearse", "memory_share": float("nan")}, "memory_share must be a number between 0 and 1.*got nan"),
    ],
)
def test_a_mode_that_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        DDMReplayPlugin(2, **options)


def test_a_batch_without_room_for_both_is_refused():
    refused(rehearse(), "train_mb_size 1, so a batch would hold 0 remembered and 1 new", train_mb_size=1)
    refused(rehearse(memory_share=0.9), "hold 4 remembered and 0 new images; it needs at least one", train_mb_size=4)


def test_what_cannot_be_condensed_is_refused_before_training():
    tiles = {"replay": lambda n, **options: random_replay(n, **options, tiles=3)}
    refused(rehearse(1, **tiles), "random.*1 images a class: .*8 x 8")
    refused(random_replay(mode="rehearse", mem_size=1), "mem_size must be at least the number of classes seen")


def test_training_transforms_that_give_other_images_are_refused():
    smaller = Compose([Resize(6), TO_TENSOR])
    refused(
        rehearse(),
        r"training transforms give torch.float32 images of shape \(3, 6, 6\)",
        make=lambda: plain_benchmark(train=smaller),
    )
    refused(rehearse(), "training transforms must give tensors, got Image", make=lambda: plain_benchmark(train=None))


def test_a_strategy_that_trains_on_earlier_images_is_refused():
    stream = nc().train_stream
    trained = strategy(rehearse(), kind=Cumulative)
    trained.train(stream[0])
    with pytest.raises(ValueError, match=r"Cumulative trains on real images of earlier classes \[0, 1\] as well"):
        trained.train(stream[1])


def test_the_company_is_looked_at(caplog):
    refused(rehearse(), "ReplayPlugin keeps real images of its own", plugins=[ReplayPlugin(20)], make=nc)
    refused(
        rehearse(),
        "FromScratchTrainingPlugin puts the first weights back where rehearsing goes on",
        plugins=[FromScratchTrainingPlugin()],
    )
    with caplog.at_level(logging.WARNING, "clreplay"):
        run(nc(), rehearse(), EWCPlugin(1.0))
    assert caplog.records == []  # holding the last weights has a meaning here


def test_a_last_batch_of_new_images_alone_may_be_left_out():
    spy = Spy()
    run(plain_benchmark(), rehearse(), spy, train_mb_size=6)
    assert [len(b[0]) for b in spy.batches[1]] == ([6] * 6 + [5]) * 2
    stream, trained = plain_benchmark().train_stream, strategy(rehearse(), train_mb_size=64)
    with pytest.raises(ValueError, match="drop_last leaves no batch: the experience has 20 images"):
        trained.train(stream[0], drop_last=True)


def test_looking_at_the_training_transforms_moves_no_chance():
    weights_of = []
    for plugins in ([], [rehearse()]):
        torch.manual_seed(3)
        trained = strategy(*plugins, model=SmallNet())
        torch.manual_seed(4)
        trained.train(plain_benchmark(train=AUGMENTING).train_stream[0])
        weights_of.append(weights(trained.model))
    assert torch.equal(*weights_of)  # on the first experience there is nothing to remember


# ---------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_a_resumed_run_ends_as_an_unbroken_one(replay, tmp_path):
    def script():
        torch.manual_seed(0)
        plugin = rehearse(replay=replay)
        return strategy(plugin, model=SmallNet()), plugin

    stream = plain_benchmark(toy_pixels(4, 8), steps=4).train_stream
    unbroken, plugin = script()
    unbroken.train([stream[0], stream[1]])
    torch.save({"plugin": plugin.state_dict(), "model": unbroken.model.state_dict()}, tmp_path / "state.pt")
    torch.manual_seed(5)  # of the strategy's own loader
    unbroken.train([stream[2], stream[3]])

    resumed, other = script()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(state["plugin"])
    resumed.model.load_state_dict(state["model"])
    torch.manual_seed(5)
    resumed.train([stream[2], stream[3]])
    assert memory_bytes(plugin.memory) == memory_bytes(other.memory)
    assert torch.equal(weights(unbroken.model), weights(resumed.model))


def test_a_state_of_another_mode_is_refused():
    retrained, rehearsed = random_replay(), rehearse()
    run(plain_benchmark(), retrained)
    with pytest.raises(ValueError, match="the state is of a plugin with mode 'retrain' .here 'rehearse'."):
        rehearsed.load_state_dict(retrained.state_dict())
    old = retrained.state_dict()
    del old["made_with"]["mode"], old["made_with"]["memory_share"]
    with pytest.raises(ValueError, match="mode 'retrain'"):
        rehearsed.load_state_dict(old)
    random_replay().load_state_dict(old)


def test_training_that_was_interrupted_can_be_repeated():
    class Interrupt(SupervisedPlugin, supports_distributed=True):
        armed = True

        def before_training_epoch(self, strategy, **kwargs):
            if Interrupt.armed and strategy.clock.train_exp_counter == 1:
                Interrupt.armed = False
                raise KeyboardInterrupt

    plugin, stream = rehearse(), plain_benchmark().train_stream
    trained = strategy(plugin, Interrupt())
    trained.train(stream[0])
    with pytest.raises(KeyboardInterrupt):
        trained.train(stream[1])
    assert plugin.seen == [0, 1]
    trained.train(stream[1])
    assert plugin.seen == [0, 1, 2, 3] and len(plugin.memory) == 8


@pytest.mark.parametrize("budget", [{"mem_bytes": 2000}, {"bytes_per_class": 500}, {"mem_size": 6}])
def test_any_budget_is_rehearsed_from(budget):
    plugin = CondensedReplayPlugin("random", mode="rehearse", **budget)
    run(plain_benchmark(), plugin)
    assert plugin.memory.classes == [0, 1, 2, 3]
    assert plugin.memory.memory_bytes <= 2000
