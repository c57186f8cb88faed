"""The plugin's promise: every experience starts anew and trains on the memory alone, whatever else happens."""

import warnings

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import SupervisedPlugin
from plugin_helpers import (
    AUGMENTING,
    FIRST,
    SECOND,
    TO_TENSOR,
    Counting,
    GrowingNet,
    Pictures,
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
    transform_groups,
    weights,
)
from torchvision.transforms import Compose, Normalize, ToTensor

from clreplay.data import load_digits

HOOKS = (
    "before_training",
    "before_train_dataset_adaptation",
    "after_train_dataset_adaptation",
    "before_training_exp",
    "after_training_exp",
)


class Spoiler(SupervisedPlugin, supports_distributed=True):
    """Changes the optimizer's settings while training, as a hand-written schedule does."""

    def after_training_epoch(self, strategy, **kwargs):
        for group in strategy.optimizer.param_groups:
            group["lr"] *= 0.5
            group["weight_decay"] = 0.3


# ---------------------------------------------------------------- five steps of real digits, everything fresh


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    transform = Compose([ToTensor(), Normalize(data.normalization.mean, data.normalization.std)])
    train, test = (
        as_classification_dataset(
            Pictures(part.images, part.labels), transform_groups=transform_groups(transform, transform)
        )
        for part in (data.train, data.test)
    )
    return class_incremental_benchmark({"train": train, "test": test}, class_order=range(10), num_experiences=5)


@pytest.fixture(scope="module", params=["random", "ddm"])
def five_steps(request, digits):
    """A whole run: what a spy saw, the plugin, and the model with its weights before the first step."""
    torch.manual_seed(0)
    plugin = {"random": random_replay, "ddm": ddm_replay}[request.param](2)
    model, spy = TinyNet(10, channels=1), Spy()
    at_first = weights(model)
    trained = run(digits, plugin, spy, Spoiler(), model=model)
    return spy, plugin, model, at_first, trained


def test_every_step_starts_with_fresh_batch_norm_statistics(five_steps):
    # Trap: copying named parameters only, as Avalanche's from-scratch plugin does, leaks running statistics.
    spy, _, model, _, _ = five_steps
    assert len(spy.starts) == 5
    for start in spy.starts:
        assert torch.equal(start["buffers"]["norm.running_mean"], torch.zeros(4))
        assert torch.equal(start["buffers"]["norm.running_var"], torch.ones(4))
        assert start["buffers"]["norm.num_batches_tracked"] == 0
    assert model.norm.num_batches_tracked > 0, "the test proves nothing: training left no statistics"


def test_every_step_starts_with_the_optimizer_s_first_settings(five_steps):
    # Trap: resetting the optimizer's state leaves its learning rate where the last experience ended.
    spy = five_steps[0]
    for start in spy.starts:
        assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in start["groups"]] == [(0.1, 0.9, 0)]


def test_every_step_starts_without_optimizer_state(five_steps):
    # Trap: momentum of the last experience's weights would push the new ones.
    spy, _, _, _, trained = five_steps
    assert all(not any(start["optimizer_state"].values()) for start in spy.starts)
    assert any(trained.optimizer.state.values()), "the test proves nothing: training left no state"


def test_every_step_starts_with_a_new_draw_of_the_weights(five_steps):
    # Trap: GDumb goes back to the same initial weights every time.
    spy, _, _, at_first, _ = five_steps
    draws = [at_first, *(start["weights"] for start in spy.starts)]
    for one in range(len(draws)):
        for other in range(one):
            assert not torch.isclose(draws[one], draws[other]).all()


def test_new_weights_come_from_the_layers_own_distribution(five_steps):
    for start in five_steps[0].starts:
        conv = start["weights"][: 4 * 9]
        assert conv.abs().max() <= 1 / 3  # PyTorch's bound, 1 / sqrt(fan in)
        assert conv.std() > 0.1


def test_the_model_and_its_parameters_stay_the_same_objects(five_steps):
    # Trap: GDumb puts a deep copy in the strategy's place, so that the user's own model goes stale.
    spy, _, model, _, trained = five_steps
    assert trained.model is model
    for start in spy.starts:
        assert start["model"] is model
        assert start["parameters"] == {id(p) for p in model.parameters()}


def test_the_optimizer_stays_linked_to_the_model(five_steps):
    spy, _, model, _, trained = five_steps
    assert all(start["optimized"] == start["parameters"] for start in spy.starts)
    assert (weights(model) - spy.starts[-1]["weights"]).abs().max() > 1e-3


def test_every_step_has_its_classes_and_those_before_it(five_steps):
    spy, plugin, _, _, _ = five_steps
    for step in range(5):
        assert set(spy.labels(step).tolist()) == set(range(2 * step + 2))
        assert len(spy.labels(step)) == 2 * (2 * step + 2) * 2  # images a class, classes, epochs
    assert plugin.seen == list(range(10))
    assert plugin.experiences == 5


def test_the_digits_memory_is_balanced(five_steps):
    memory = five_steps[1].memory
    assert memory.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert memory.images.shape == (20, 1, 32, 32)


def test_the_record_tells_each_step_s_losses(five_steps):
    plugin = five_steps[1]
    experiences = [row["experience"] for row in plugin.memory.record]
    assert sorted(set(experiences)) == ([] if plugin.name == "random" else [0, 1, 2, 3, 4])


# ---------------------------------------------------------------- optimizers


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_other_optimizers_start_anew_too(kind):
    model, spy = TinyNet(), Spy()
    optimizer = kind(model.parameters(), lr=0.02)
    run(plain_benchmark(), random_replay(), spy, Spoiler(), model=model, optimizer=optimizer)
    for start in spy.starts:
        assert [(g["lr"], g["weight_decay"]) for g in start["groups"]] == [(0.02, 0)]
        assert not any(start["optimizer_state"].values())


def test_every_parameter_group_gets_its_own_settings_back():
    # Trap: Avalanche's from-scratch plugin fails with more than one parameter group.
    model, spy = TinyNet(), Spy()
    groups = [
        {"params": model.conv.parameters(), "lr": 0.3},
        {"params": [*model.norm.parameters(), *model.classifier.parameters()]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.5)
    run(plain_benchmark(), random_replay(), spy, Spoiler(), model=model, optimizer=optimizer)
    for start in spy.starts:
        assert [g["lr"] for g in start["groups"]] == [0.3, 0.05]
        assert start["optimized"] == start["parameters"]


def test_an_optimizer_of_the_head_alone_gets_all_parameters_as_avalanche_does():
    # Trap: Avalanche's first train call adds every parameter of the model to the optimizer.
    model, spy = TinyNet(), Spy()
    run(
        plain_benchmark(),
        random_replay(),
        spy,
        model=model,
        optimizer=torch.optim.SGD(model.classifier.parameters(), lr=0.1),
    )
    assert all(start["optimized"] == start["parameters"] for start in spy.starts)


def test_avalanche_s_own_reset_of_the_optimizer_does_no_harm():
    spy = Spy()
    trained = strategy(random_replay(), spy, Spoiler())
    for experience in plain_benchmark().train_stream:
        trained.train(experience, reset_optimizer_state=True)
    assert [start["groups"][0]["lr"] for start in spy.starts] == [0.1, 0.1]


# ---------------------------------------------------------------- what the strategy trains on


@pytest.mark.parametrize("benchmark", [plain_benchmark, nc], ids=["plain", "task-aware"])
def test_without_augmentation_batches_are_the_stored_images(benchmark):
    plugin, spy = random_replay(augment=None), Spy()
    run(benchmark(), plugin, spy, train_mb_size=3)
    images, labels, _ = plugin.memory.of_classes(plugin.seen)
    for epoch in range(2):  # 8 images, 3 batches an epoch
        batches = spy.batches[1][3 * epoch : 3 * epoch + 3]
        served, named = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))
        rows = [int((images == one).flatten(1).all(1).nonzero()) for one in served]
        assert sorted(rows) == list(range(8)), "an epoch must serve every image once"
        assert torch.equal(labels[rows], named)


def test_batches_are_shuffled_anew_every_epoch():
    spy = Spy()
    run(plain_benchmark(), random_replay(4, augment=None), spy, train_mb_size=16)
    first, second = (batch[0] for batch in spy.batches[1])
    assert not torch.equal(first, second)
    assert torch.allclose(first.sum(0), second.sum(0), atol=1e-4)


def test_by_default_batches_are_augmented():
    plugin, spy = random_replay(), Spy()
    run(plain_benchmark(), plugin, spy, train_epochs=6, train_mb_size=8)
    unchanged = stored(spy.images(1), plugin.memory.images)
    assert sum(unchanged) < 2 / 3 * len(unchanged)


def test_augmentation_can_be_chosen():
    plugin, spy = random_replay(augment="flip"), Spy()
    run(plain_benchmark(), plugin, spy)
    images = plugin.memory.images
    assert all(stored(spy.images(1), torch.cat([images, images.flip(3)])))
    assert not all(stored(spy.images(1), images))


def test_batches_have_the_strategy_s_size():
    spy = Spy()
    run(plain_benchmark(), random_replay(), spy, train_mb_size=3, train_epochs=1)
    assert [len(batch[1]) for batch in spy.batches[1]] == [3, 3, 2]


def test_real_images_never_reach_training():
    images, labels = toy_pixels()
    real = Counting(TO_TENSOR)
    plugin, spy = ddm_replay(augment=None), Spy()
    run(plain_benchmark((images, labels), train=real, evaluation=TO_TENSOR), plugin, spy)
    assert all(stored(spy.images(1), plugin.memory.images))
    assert real.calls == 0


def test_the_adapted_dataset_is_the_memory():
    spy, plugin = Spy(), random_replay()
    run(plain_benchmark(), plugin, spy)
    data = spy.starts[1]["adapted_dataset"]
    # Trap: transforms of the real data, such as ToTensor, fail on images that are tensors already.
    images, labels = zip(*(data[i] for i in range(len(data))))
    assert torch.equal(torch.stack(images), plugin.memory.images)
    # Trap: labels that are 0-dim tensors cannot be batched with the ints of torchvision's data sets.
    assert [type(label) for label in labels] == [int] * 8
    # Trap: Avalanche wraps only data sets that have targets.
    assert list(data.targets) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_network_learns_the_classes_of_all_steps():
    benchmark = plain_benchmark(toy_pixels(4, 12))
    trained = run(
        benchmark, random_replay(6, augment=None), model=SmallNet(), train_epochs=60, train_mb_size=8, lr=0.05
    )
    trained.model.eval()
    data = [experience.dataset.eval() for experience in benchmark.test_stream]
    right = [int(trained.model(d[i][0][None]).argmax()) == d[i][1] for d in data for i in range(len(d))]
    assert sum(right) / len(right) > 0.9


def test_one_train_call_with_two_experiences_is_two_calls():
    # Trap: before_training fires once a call, and strategy.experience is not set yet when it does.
    benchmark = plain_benchmark()
    one, two = random_replay(), random_replay()
    separate = run(benchmark, one, model=SmallNet())
    together = strategy(two, model=SmallNet())
    together.train([*benchmark.train_stream])
    assert memory_bytes(one.memory) == memory_bytes(two.memory)
    assert torch.equal(weights(separate.model), weights(together.model))
    assert two.experiences == 2


def test_decoded_images_are_let_go_after_training():
    plugin = random_replay()
    trained = run(plain_benchmark(), plugin)
    assert trained.adapted_dataset is None
    assert len(trained.dataloader) == 0
    assert not any(isinstance(value, torch.Tensor) for value in vars(plugin).values())


# ---------------------------------------------------------------- reading the experience


@pytest.mark.parametrize("benchmark", [plain_benchmark, nc], ids=["plain", "task-aware"])
def test_an_experience_is_read_once_through_its_evaluation_transforms(benchmark):
    # Trap: train-group data is randomly cropped and flipped; that is what Avalanche's herding buffer reads.
    training, evaluation = Counting(AUGMENTING), Counting(TO_TENSOR)
    made = benchmark(train=training, evaluation=evaluation)
    trained = strategy(ddm_replay())
    for step, experience in enumerate(made.train_stream):
        trained.train(experience)
        assert evaluation.calls == 20 * (step + 1)
    assert training.calls == 0


def test_the_experience_is_left_in_its_training_mode():
    training = Counting(TO_TENSOR)
    benchmark = plain_benchmark(train=training)
    run(benchmark, random_replay())
    benchmark.train_stream[0].dataset[0]
    assert training.calls == 1


# ---------------------------------------------------------------- chance


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_the_hooks_leave_the_global_generators_alone(replay, global_chance_untouched):
    # Trap: every pass of a DataLoader takes a seed from the global generator.
    plugin = replay()

    def watched(hook):
        def call(strategy, **kwargs):
            with global_chance_untouched():
                hook(strategy, **kwargs)

        return call

    for name in HOOKS:
        setattr(plugin, name, watched(getattr(plugin, name)))
    run(plain_benchmark(train=AUGMENTING), plugin)
    assert plugin.experiences == 2


def test_serving_batches_leaves_the_global_generators_alone(global_chance_untouched):
    class Served(SupervisedPlugin, supports_distributed=True):
        def before_training_epoch(self, strategy, **kwargs):
            with global_chance_untouched():
                batches = list(strategy.dataloader)
            assert len(batches) == len(strategy.dataloader) > 1

    run(plain_benchmark(), random_replay(4), Served(), train_mb_size=5, train_epochs=1)


@pytest.mark.parametrize("net", [SmallNet, GrowingNet])
@pytest.mark.parametrize("mode", ["epoch", "iteration"])
def test_evaluating_more_often_does_not_change_training(net, mode):
    # Trap: evaluation draws from the global generator, and so do the new outputs of a growing classifier.
    benchmark = plain_benchmark()
    never = run(benchmark, random_replay(), model=net())
    always = run(benchmark, random_replay(), model=net(), eval_every=1, peval_mode=mode)
    assert torch.equal(weights(never.model), weights(always.model))


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
@pytest.mark.parametrize("net", [SmallNet, GrowingNet])
def test_one_seed_gives_one_memory_and_one_network(replay, net):
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        plugin = replay(seed=7)
        trained = run(plain_benchmark(), plugin, model=net())
        results.append((memory_bytes(plugin.memory), weights(trained.model).numpy().tobytes()))
    assert results[0] == results[1]


def test_another_seed_gives_another_memory():
    plugins = [random_replay(seed=seed) for seed in (0, 1)]
    for plugin in plugins:
        run(plain_benchmark(), plugin)
    assert memory_bytes(plugins[0].memory) != memory_bytes(plugins[1].memory)


def test_the_training_seed_changes_the_network_and_not_the_memory():
    plugins = [ddm_replay(seed=0, training_seed=seed) for seed in (0, 1)]
    spies = [Spy(), Spy()]
    for plugin, spy in zip(plugins, spies):
        run(plain_benchmark(), plugin, spy)
    assert memory_bytes(plugins[0].memory) == memory_bytes(plugins[1].memory)
    assert not torch.equal(spies[0].starts[0]["weights"], spies[1].starts[0]["weights"])
    assert not torch.equal(spies[0].images(0), spies[1].images(0))


# ---------------------------------------------------------------- train and eval mode


@pytest.mark.parametrize("options", [{}, {"eval_every": 1}, {"eval_every": 1, "peval_mode": "iteration"}], ids=str)
@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_the_model_trains_in_training_mode(replay, options):
    # Trap: a plugin that leaves evaluation mode on trains with frozen batch norm and without dropout.
    modes = []

    class Modes(SupervisedPlugin, supports_distributed=True):
        def before_forward(self, strategy, **kwargs):
            modes.append(all(module.training for module in strategy.model.modules()))

    benchmark = plain_benchmark()
    trained = strategy(replay(), Modes(), **options)
    for step, experience in enumerate(benchmark.train_stream):
        trained.eval(benchmark.test_stream[: step + 1])  # an evaluation before must not leak either
        trained.train(experience)
    assert len(modes) >= 4
    assert all(modes)


def test_a_part_that_the_user_keeps_in_evaluation_mode_stays_there():
    class Frozen(TinyNet):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    spy = Spy()
    run(plain_benchmark(), random_replay(), spy, model=Frozen())
    assert all(sum(not training for training in start["training"]) == 1 for start in spy.starts)


# ---------------------------------------------------------------- what Avalanche expects of a plugin


def test_avalanche_finds_no_unknown_hooks():
    # Trap: a helper whose name begins with before or after is taken for a hook; Avalanche warns of it.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strategy(random_replay())
    known = set(dir(SupervisedPlugin))
    assert not [n for n in dir(random_replay()) if n.startswith(("before", "after")) and n not in known]


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_training_warns_of_nothing(make):
    # Trap: Avalanche's own replay plugins call its buffers in a way that it warns of.
    trained = strategy(ddm_replay())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for experience in make().train_stream:
            trained.train(experience)


def test_whatever_is_passed_to_train_reaches_the_hooks_and_disturbs_nothing():
    # Trap: everything given to train() is passed on to every hook.
    spy = Spy()
    strategy(random_replay(), spy).train(plain_benchmark().train_stream[0], drop_last=True, shuffle=False, mine=3)
    assert spy.kwargs == [{"drop_last": True, "shuffle": False, "mine": 3}]
    assert len(spy.labels(0)) == 2 * 4


def test_early_stopping_is_honoured():
    class StopAtOnce(SupervisedPlugin, supports_distributed=True):
        def after_training_epoch(self, strategy, **kwargs):
            strategy.stop_training()

    spy, plugin = Spy(), random_replay()
    run(plain_benchmark(), plugin, spy, StopAtOnce(), train_epochs=5)
    assert [len(spy.labels(step)) for step in (0, 1)] == [4, 8]
    assert plugin.experiences == 2


def test_first_and_second_experience_are_told_apart():
    # Trap: Avalanche's counter of experiences grows at another point than a plugin's hooks.
    spy, plugin = Spy(), random_replay()
    run(plain_benchmark(), plugin, spy)
    assert set(spy.labels(0).tolist()) == FIRST
    assert set(spy.labels(1).tolist()) == FIRST | SECOND
