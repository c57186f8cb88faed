"""What a model cannot take is told before condensing; the arguments of the loader hold for the memory."""

import copy

import pytest
import torch
from plugin_helpers import (
    TO_TENSOR,
    GrowingNet,
    SmallNet,
    Spy,
    TinyNet,
    nc,
    one_per_dataset,
    plain_benchmark,
    random_replay,
    run,
    stored,
    strategy,
    toy_pixels,
)
from torch import nn

from clreplay.plugin.replay import CondensedReplayPlugin


def never(real, counts, settings, **rest):
    raise AssertionError("nothing may be condensed")


class Heads(nn.Module):
    """Flattens its images: they must have the size that it was made for."""

    def __init__(self, outputs=4, channels=3, size=8):
        super().__init__()
        self.classifier = nn.Linear(channels * size * size, outputs)

    def forward(self, images):
        return self.classifier(images.flatten(1))


class Normed(nn.Module):
    """Batch norm over vectors, which cannot be trained on a batch of one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))

    def forward(self, images):
        return self.layers(images)


# ---------------------------------------------------------------- one forward pass


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: TinyNet(4, channels=1),
            r"cannot take the images: one of class \d, float32 \(3, 8, 8\).*eval_transform",
        ),
        (lambda: Heads(size=12), r"cannot take the images: one of class \d, float32 \(3, 8, 8\).*RuntimeError"),
        (lambda: TinyNet().half(), "cannot take the images"),
        (lambda: TinyNet().double(), "cannot take the images"),
        (lambda: TinyNet(1), "the model has 1 outputs, too few for class 1; make it with at least 2"),
    ],
    ids=["channels", "size", "half", "double", "outputs"],
)
@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_a_model_that_cannot_take_the_images_is_refused_before_condensing(make, model, message):
    plugin, made = CondensedReplayPlugin(never, 2), model()
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(ValueError, match=message):
        strategy(plugin, model=made).train(make().train_stream[0])
    assert len(plugin.memory) == 0 and plugin.seen == []
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_too_few_outputs_for_a_later_experience_are_told_when_it_comes():
    stream, plugin = plain_benchmark().train_stream, random_replay()
    trained = strategy(plugin, model=TinyNet(3))
    trained.train(stream[0])
    with pytest.raises(ValueError, match="3 outputs, too few for class 3; make it with at least 4"):
        trained.train(stream[1])
    assert plugin.memory.classes == [0, 1]


def test_outputs_are_counted_only_for_losses_that_read_class_numbers():
    # An embedding has as many outputs as it likes.
    loss = lambda outputs, labels: (outputs - labels[:, None]).square().mean()  # noqa: E731
    plugin = random_replay()
    run(plain_benchmark(), plugin, model=TinyNet(1), criterion=loss)
    assert plugin.experiences == 2


def test_the_trial_does_not_touch_a_growing_model(global_chance_untouched):
    seen = []

    class Watching(GrowingNet):
        def forward(self, images):
            seen.append((len(images), self.training))
            return super().forward(images)

    model, plugin = Watching(), random_replay()
    trained = strategy(plugin, model=model)
    hook = plugin.after_train_dataset_adaptation

    def watched(strategy, **kwargs):
        with global_chance_untouched():
            hook(strategy, **kwargs)
        assert model.classifier.classifier.out_features == 1 and model.training

    plugin.after_train_dataset_adaptation = watched
    trained.train(plain_benchmark().train_stream[0])
    assert seen[0] == (1, False)


def test_the_trial_leaves_statistics_modes_and_chance_alone(global_chance_untouched):
    model, plugin = SmallNet(), CondensedReplayPlugin(stop, 2)
    model.norm.eval()
    trained = strategy(plugin, model=model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="enough"), global_chance_untouched():
        trained.train(plain_benchmark().train_stream[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.classifier.training


def stop(real, counts, settings, **rest):
    raise ValueError("enough")


# ---------------------------------------------------------------- images of another shape


def test_a_later_experience_of_another_shape_is_refused_before_condensing():
    first, second = ((images, labels + 2 * i) for i, (images, labels) in enumerate([toy_pixels(2), toy_pixels(2)]))
    small = lambda picture: TO_TENSOR(picture.resize((6, 6)))  # noqa: E731
    plugin = random_replay()
    trained = strategy(plugin)  # averages over all pixels: it can take both
    trained.train(one_per_dataset(first).train_stream[0])
    plugin.configured = CondensedReplayPlugin(never, 2).configured
    with pytest.raises(ValueError, match=r"images of shape \(3, 6, 6\) and the memory holds \(3, 8, 8\)"):
        trained.train(one_per_dataset(second, evaluation=small).train_stream[0])


# ---------------------------------------------------------------- models that cannot be trained or redrawn


@pytest.mark.parametrize("value", [True, False, "yes"])
def test_a_redraw_that_is_no_function_is_refused_in_the_constructor(value):
    with pytest.raises(ValueError, match=f"reinitialize must be a function .*, got {value!r}; leave it out"):
        random_replay(reinitialize=value)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))

    def forward(self, images):
        return self.layers(images)


def test_lazy_layers_are_refused_until_they_have_their_shapes():
    model = Lazy()
    with pytest.raises(ValueError, match=r"lazy layers have no weights yet \(layers.1.weight, layers.1.bias\); run"):
        strategy(CondensedReplayPlugin(never, 2), model=model).train(plain_benchmark().train_stream[0])
    model(torch.zeros(1, 3, 8, 8))
    plugin = random_replay()
    run(plain_benchmark(), plugin, model=model)
    assert plugin.experiences == 2


def test_a_model_of_which_nothing_can_be_trained_is_refused():
    model = TinyNet().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model can be trained; set requires_grad"):
        strategy(CondensedReplayPlugin(never, 2), model=model).train(plain_benchmark().train_stream[0])


# ---------------------------------------------------------------- batches of one, and none


def mem_size(count, condenser="random"):
    return CondensedReplayPlugin(condenser, mem_size=count)


def test_a_last_batch_of_one_that_batch_norm_cannot_be_trained_on_is_refused_before_condensing():
    stream = plain_benchmark().train_stream
    with pytest.raises(ValueError, match="9 images in batches of 4 leave a last batch of one.*drop_last=True"):
        strategy(mem_size(9, never_random()), model=Normed()).train(stream[0])


def never_random():
    """The method that selects at random, but for its work."""
    from dataclasses import replace

    configured = random_replay().configured
    return replace(configured, method=replace(configured.method, condense=never))


def test_the_same_batch_is_told_of_a_budget_in_bytes_before_training():
    plugin = CondensedReplayPlugin("random", mem_bytes=5 * 192)
    with pytest.raises(ValueError, match="leave a last batch of one"):
        strategy(plugin, model=Normed(), train_mb_size=3).train(plain_benchmark().train_stream[0])


def test_drop_last_leaves_the_batch_of_one_out():
    spy = Spy()
    strategy(mem_size(9), spy, model=Normed()).train(plain_benchmark().train_stream[0], drop_last=True)
    assert [len(batch[1]) for batch in spy.batches[0]] == [4, 4] * 2


def test_a_batch_of_one_is_no_matter_where_the_model_can_be_trained_on_it():
    spy, model = Spy(), SmallNet()  # batch norm over maps of nine values
    strategy(mem_size(9), spy, model=model).train(plain_benchmark().train_stream[0])
    assert [len(batch[1]) for batch in spy.batches[0]] == [4, 4, 1] * 2
    assert spy.starts[0]["buffers"]["norm.num_batches_tracked"] == 0


def test_drop_last_of_all_is_refused_before_condensing():
    plugin = CondensedReplayPlugin(never_random(), images_per_class=1)
    with pytest.raises(ValueError, match="drop_last leaves no batch: the memory has 2 images.*train_mb_size is 4"):
        strategy(plugin).train(plain_benchmark().train_stream[0], drop_last=True)


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_without_shuffling_batches_come_in_the_memory_s_order(make):
    plugin, spy = random_replay(augment=None), Spy()
    trained = strategy(plugin, spy)
    for experience in make().train_stream:
        trained.train(experience, shuffle=False)
    assert spy.labels(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    assert torch.equal(spy.images(1)[:8], plugin.memory.images)


def test_without_shuffling_batches_are_augmented_all_the_same():
    plugin, spy = random_replay(), Spy()
    strategy(plugin, spy).train(plain_benchmark().train_stream[0], shuffle=False)
    assert not all(stored(spy.images(0), plugin.memory.images))
