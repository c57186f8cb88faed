"""The plugin inside Avalanche's benchmarks, strategies, dynamic models, metrics and loggers."""

import io

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
from avalanche.logging import InteractiveLogger, TextLogger
from avalanche.models import SimpleMLP, as_multitask
from avalanche.training import EWC, Cumulative, LwF, Naive, SynapticIntelligence
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from plugin_helpers import (
    AUGMENTING,
    FIRST,
    SECOND,
    TO_TENSOR,
    GrowingNet,
    HeadedNet,
    SmallNet,
    Spy,
    TinyNet,
    ddm_replay,
    memory_bytes,
    nc,
    one_per_dataset,
    plain_benchmark,
    random_replay,
    run,
    stored,
    strategy,
    toy_pixels,
    weights,
)

from clreplay import condense

BENCHMARKS = {
    "class_incremental_benchmark": plain_benchmark,
    "nc_benchmark": nc,
    "nc_benchmark with task labels": lambda **options: nc(task_labels=True, **options),
    "Split style": lambda **options: nc(train=AUGMENTING, **options),
    "ids from zero": lambda **options: nc(
        fixed_class_order=[2, 0, 3, 1], class_ids_from_zero_from_first_exp=True, **options
    ),
    "benchmark_from_datasets": lambda: one_per_dataset(*two_parts()),
}
every_benchmark = pytest.mark.parametrize("make", BENCHMARKS.values(), ids=BENCHMARKS)


def two_parts():
    images, labels = toy_pixels()
    return [(images[rows], labels[rows]) for rows in (labels < 2, labels >= 2)]


# ---------------------------------------------------------------- benchmarks


@every_benchmark
@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_every_kind_of_benchmark_fills_the_memory_and_trains_on_it(make, replay):
    benchmark, plugin, spy = make(), replay(), Spy()
    trained = run(benchmark, plugin, spy)
    classes = [set(experience.dataset.targets) for experience in benchmark.train_stream]
    assert set(spy.labels(0).tolist()) == classes[0]
    assert set(spy.labels(1).tolist()) == classes[0] | classes[1]
    assert sorted(plugin.memory.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    trained.eval(benchmark.test_stream)


@every_benchmark
def test_the_memory_does_not_hang_on_the_kind_of_benchmark(make):
    if make is BENCHMARKS["ids from zero"]:
        make = lambda: nc(class_ids_from_zero_from_first_exp=True)  # noqa: E731  (in the order of the others)
    plugin, reference = random_replay(), random_replay()
    run(make(), plugin)
    run(plain_benchmark(), reference)
    assert [plugin.memory.class_images(c).tolist() for c in range(4)] == [
        reference.memory.class_images(c).tolist() for c in range(4)
    ]


def test_labels_that_the_benchmark_renumbers_are_those_of_the_memory():
    images, labels = toy_pixels()
    plugin = random_replay()
    run(BENCHMARKS["ids from zero"](pixels=(images, labels)), plugin)
    for renumbered, original in enumerate([2, 0, 3, 1]):
        real = {row.numpy().tobytes() for row in images[labels == original]}
        assert {row.numpy().tobytes() for row in plugin.memory.slots[renumbered].codes} <= real


# ---------------------------------------------------------------- task labels


@pytest.mark.parametrize("make", [BENCHMARKS["class_incremental_benchmark"], BENCHMARKS["benchmark_from_datasets"]])
def test_without_task_labels_batches_are_images_and_labels(make):
    spy = Spy()
    run(make(), random_replay(), spy)
    assert {len(batch) for batches in spy.batches for batch in batches} == {2}


def test_task_labels_that_are_all_zero_are_in_the_batches():
    # Trap: nc_benchmark and every Split benchmark are task-aware, with label 0 throughout.
    spy = Spy()
    run(nc(), random_replay(), spy)
    assert {len(batch) for batches in spy.batches for batch in batches} == {3}
    assert all(not batch[2].any() for batches in spy.batches for batch in batches)


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_every_class_keeps_the_task_label_it_came_with(replay):
    plugin, spy = replay(), Spy()
    run(nc(task_labels=True), plugin, spy)
    for _, labels, tasks in spy.batches[1]:
        assert torch.equal(tasks, (labels >= 2).long())
    assert plugin.memory.task_labels.tolist() == [0] * 4 + [1] * 4
    assert list(spy.starts[1]["adapted_dataset"].targets_task_labels) == [0] * 4 + [1] * 4


def test_a_memory_made_without_task_labels_takes_those_of_the_benchmark():
    images, labels = toy_pixels()
    memory = condense(images, labels, "random", 2, normalization="cifar10")
    spy = Spy()
    run(nc((images, labels), task_labels=True), random_replay(memory=memory), spy)
    for _, named, tasks in spy.batches[1]:
        assert torch.equal(tasks, (named >= 2).long())


def test_a_class_under_two_task_labels_is_refused():
    from avalanche.benchmarks.utils import TaskLabels

    experience = nc().train_stream[0]
    tasks = TaskLabels([index % 2 for index in range(20)])
    experience.dataset = experience.dataset.update_data_attribute("targets_task_labels", tasks)
    with pytest.raises(ValueError, match=r"class 0 comes with several task labels \[0, 1\]; a class needs one"):
        strategy(random_replay()).train(experience)


def test_batches_may_be_smaller_than_the_number_of_tasks():
    # Trap: Avalanche's task-balanced loader, made of the memory, would insist on one image a task.
    spy = Spy()
    run(nc(steps=4, task_labels=True), random_replay(), spy, train_mb_size=2)
    assert set(spy.labels(3).tolist()) == {0, 1, 2, 3}
    assert {len(batch[0]) for batch in spy.batches[3]} == {2}


# ---------------------------------------------------------------- models that grow


@pytest.mark.parametrize("make", [plain_benchmark, nc])
def test_a_classifier_that_grows_with_the_classes_works(make):
    model, spy = GrowingNet(), Spy()
    benchmark = make()
    trained = run(benchmark, random_replay(), spy, model=model)
    assert model.classifier.classifier.out_features == 4
    assert model.classifier.active_units.tolist() == [1, 1, 1, 1], "outputs of earlier classes must stay in use"
    assert all(start["optimized"] >= start["parameters"] for start in spy.starts)
    # Old and new outputs are one draw: Avalanche would keep the old rows and add new ones.
    head = model.classifier.classifier
    assert {id(p) for p in head.parameters()} <= spy.starts[1]["optimized"]
    assert not torch.equal(spy.starts[1]["weights"], weights(model))
    trained.eval(benchmark.test_stream)


def test_new_and_old_outputs_of_a_growing_classifier_are_trained():
    model, spy = GrowingNet(), Spy()
    run(plain_benchmark(), random_replay(), spy, model=model)
    start = spy.starts[1]["weights"][-(4 * 4 + 4) : -4].view(4, 4)
    assert ((model.classifier.classifier.weight - start).abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    "make", [HeadedNet, lambda: as_multitask(TinyNet(), "classifier")], ids=["heads", "as_multitask"]
)
def test_a_model_with_a_head_for_every_task_trains_all_heads(make):
    class Heads(Spy):
        def before_training_epoch(self, strategy, **kwargs):
            super().before_training_epoch(strategy, **kwargs)
            if strategy.clock.train_exp_epochs == 0:
                self.starts[-1]["named"] = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}

    benchmark, spy, model = nc(task_labels=True), Heads(), make()
    trained = run(benchmark, random_replay(), spy, model=model)
    now = dict(model.named_parameters())
    heads = [name for name in now if ".classifiers." in f".{name}"]
    assert len(heads) == 4  # weight and bias of two heads
    assert all(not torch.equal(now[name], spy.starts[1]["named"][name]) for name in heads)
    trained.eval(benchmark.test_stream)


def test_heads_learn_the_classes_of_their_tasks():
    benchmark = nc(toy_pixels(4, 12), task_labels=True)
    model = HeadedNet()
    run(benchmark, random_replay(6, augment=None), model=model, train_epochs=60, train_mb_size=8, lr=0.05)
    model.eval()
    for task, experience in enumerate(benchmark.test_stream):
        data = experience.dataset.eval()
        logits = torch.cat([model(data[i][0][None], task) for i in range(len(data))])
        assert (logits.argmax(1) == torch.tensor(list(data.targets))).float().mean() > 0.9


def test_avalanche_s_own_models_can_be_started_anew():
    spy = Spy()
    run(plain_benchmark(), random_replay(), spy, model=SimpleMLP(num_classes=4, input_size=3 * 8 * 8, hidden_size=8))
    assert not torch.equal(spy.starts[0]["weights"], spy.starts[1]["weights"])


# ---------------------------------------------------------------- strategies

STRATEGIES = {
    "Naive": (Naive, {}),
    "SupervisedTemplate": (SupervisedTemplate, {}),
    "Cumulative": (Cumulative, {}),
    "EWC": (EWC, {"ewc_lambda": 0.1}),
    "LwF": (LwF, {"alpha": 1.0, "temperature": 2.0}),
    "SynapticIntelligence": (SynapticIntelligence, {"si_lambda": 0.1}),
}


@pytest.mark.parametrize(
    ("name", "make"),
    # Avalanche's LwF needs task labels itself.
    [(name, make) for name in STRATEGIES for make in (plain_benchmark, nc) if (name, make) != ("LwF", plain_benchmark)],
)
def test_supervised_strategies_train_on_the_memory_alone(name, make):
    kind, options = STRATEGIES[name]
    spy, plugin, benchmark = Spy(), random_replay(augment=None), make()
    trained = run(benchmark, plugin, spy, kind=kind, **options)
    assert [len(spy.labels(step)) for step in (0, 1)] == [2 * 4, 2 * 8]
    assert all(stored(spy.images(1), plugin.memory.images))
    assert torch.isfinite(weights(trained.model)).all()
    trained.eval(benchmark.test_stream)


@pytest.mark.parametrize(("kind", "options"), STRATEGIES.values(), ids=STRATEGIES)
def test_the_memory_does_not_hang_on_the_strategy(kind, options):
    plugin, reference = ddm_replay(), ddm_replay()
    run(nc(), plugin, kind=kind, **options)
    run(nc(), reference)
    assert memory_bytes(plugin.memory) == memory_bytes(reference.memory)


# ---------------------------------------------------------------- metrics and loggers


@pytest.mark.parametrize("make", [plain_benchmark, nc])
@pytest.mark.parametrize(
    "logger", [lambda: InteractiveLogger(), lambda: TextLogger(io.StringIO())], ids=["bar", "text"]
)
def test_metrics_and_loggers_work(make, logger, capsys):
    # Trap: the progress bar asks for the length of the loader.
    benchmark = make()
    evaluator = EvaluationPlugin(
        accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True, trained_experience=True),
        loss_metrics(epoch=True, stream=True),
        forgetting_metrics(experience=True),
        loggers=[logger()],
    )
    trained = strategy(random_replay(), evaluator=evaluator, eval_every=1)
    for experience in benchmark.train_stream:
        trained.train(experience)
    metrics = trained.eval(benchmark.test_stream)
    accuracy = [value for name, value in metrics.items() if name.startswith("Top1_Acc_Stream/eval_phase/test_stream")]
    assert len(accuracy) == 1 and 0 <= accuracy[0] <= 1


def test_the_evaluator_sees_the_memory_s_accuracy_while_training():
    evaluator = EvaluationPlugin(accuracy_metrics(epoch=True), loggers=[TextLogger(io.StringIO())])
    trained = strategy(
        random_replay(4, augment=None), evaluator=evaluator, train_epochs=60, model=SmallNet(), train_mb_size=8
    )
    metrics = [
        trained.train(experience) for experience in plain_benchmark(train=AUGMENTING, evaluation=TO_TENSOR).train_stream
    ]
    name = next(key for key in metrics[1] if key.startswith("Top1_Acc_Epoch/train_phase"))
    assert metrics[1][name] > 0.8


def test_classes_of_the_toy_benchmarks_are_as_the_tests_think():
    for make in (plain_benchmark, nc):
        assert [set(e.classes_in_this_experience) for e in make().train_stream] == [FIRST, SECOND]
