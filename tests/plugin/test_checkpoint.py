"""Stopping and going on: by state dictionaries, by pickles of the plugin and of the whole strategy."""

import copy
import logging
import pickle
import sys

import pytest
import torch
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from avalanche.training import Cumulative
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, SupervisedPlugin
from plugin_helpers import (
    GrowingNet,
    SmallNet,
    Spy,
    ddm_replay,
    memory_bytes,
    nc,
    plain_benchmark,
    random_replay,
    strategy,
    toy_pixels,
    weights,
)
from torch.optim import lr_scheduler

from clreplay import condense

SCHEDULES = {
    "none": None,
    "MultiStepLR": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1]),
    "LambdaLR": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)),
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=4),
}


pytestmark = [
    pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning"),
    # After unpickling an optimizer PyTorch no longer knows that it wraps its step.
    pytest.mark.filterwarnings("ignore:Seems like `optimizer.step:UserWarning"),
]


def four_steps(make=plain_benchmark):
    return make(toy_pixels(4, 8), steps=4)


def script(replay, schedule=None, net=SmallNet):
    """What a user's script sets up, anew whenever it is started."""
    model, plugin, spy = net(), replay(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedules = [] if schedule is None else [LRSchedulerPlugin(schedule(optimizer))]
    return strategy(plugin, *schedules, spy, model=model, optimizer=optimizer), plugin, spy


def one_step(replay=random_replay, schedule=None):
    """A strategy after the first of four steps, its plugin, and the stream."""
    stream = four_steps().train_stream
    trained, plugin, _ = script(replay, schedule)
    trained.train(stream[0])
    return trained, plugin, stream


def unbroken_run(replay, tmp_path, schedule=None, net=SmallNet):
    """A strategy after four steps, its plugin, the stream, and the plugin's state after two steps, through a file."""
    stream = four_steps().train_stream
    trained, plugin, _ = script(replay, schedule, net)
    trained.train([stream[0], stream[1]])
    state = through_a_file(plugin.state_dict(), tmp_path / "state.pt")
    trained.train([stream[2], stream[3]])
    return trained, plugin, stream, state


def assert_same_end(trained, plugin, unbroken, reference):
    """Memory and network must be those of a run that was never stopped."""
    assert memory_bytes(plugin.memory) == memory_bytes(reference.memory)
    assert torch.equal(weights(trained.model), weights(unbroken.model))
    assert (plugin.seen, plugin.experiences) == (reference.seen, reference.experiences)


def through_a_file(state, path):
    torch.save(state, path)
    return torch.load(path, weights_only=True)


class Interrupt(SupervisedPlugin, supports_distributed=True):
    """The person stops training in its second epoch."""

    def __init__(self):
        super().__init__()
        self.armed = False

    def before_training_epoch(self, strategy, **kwargs):
        if self.armed and strategy.clock.train_exp_epochs == 1:
            self.armed = False
            raise KeyboardInterrupt


# ---------------------------------------------------------------- state dictionaries


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_a_resumed_run_ends_as_an_unbroken_one(replay, schedule, tmp_path):
    unbroken, plugin, stream, state = unbroken_run(replay, tmp_path, schedule)
    torch.manual_seed(99)  # another process: other global chance
    resumed, other, spy = script(replay, schedule)
    other.load_state_dict(state)
    resumed.train([stream[2], stream[3]])
    assert_same_end(resumed, other, unbroken, plugin)
    assert set(spy.labels(0).tolist()) == {0, 1, 2}


def test_an_optimizer_brought_back_with_its_last_rate_starts_from_the_first_one(tmp_path):
    # A script that saves everything also brings back a learning rate that has dropped, and momentum.
    stream = four_steps().train_stream
    unbroken, plugin, _ = script(random_replay, SCHEDULES["MultiStepLR"])
    for step in range(4):
        unbroken.train(stream[step])
        if step == 1:
            saved = {"plugin": plugin.state_dict(), "optimizer": copy.deepcopy(unbroken.optimizer.state_dict())}
            saved["optimizer"]["param_groups"][0]["lr"] = 0.001

    resumed, other, spy = script(random_replay, SCHEDULES["MultiStepLR"])
    state = through_a_file(saved, tmp_path / "state.pt")
    other.load_state_dict(state["plugin"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.train([stream[2], stream[3]])
    assert spy.starts[0]["groups"][0]["lr"] == 0.1
    assert torch.equal(weights(resumed.model), weights(unbroken.model))


def knows_task_labels():
    return random_replay()


def has_them_from_the_benchmark():
    return random_replay(memory=condense(*toy_pixels(4, 8), "random", 2, normalization="cifar10"))


@pytest.mark.parametrize("replay", [knows_task_labels, has_them_from_the_benchmark])
def test_task_labels_survive(replay, tmp_path):
    benchmark = nc(toy_pixels(4, 8), steps=4, task_labels=True)
    first, plugin, _ = script(replay)
    first.train([benchmark.train_stream[0], benchmark.train_stream[1]])
    resumed, other, spy = script(replay)
    other.load_state_dict(through_a_file(plugin.state_dict(), tmp_path / "state.pt"))
    resumed.train(benchmark.train_stream[2])
    for _, labels, tasks in spy.batches[0]:
        assert torch.equal(labels, tasks)


def test_a_growing_model_goes_on_once_it_has_its_earlier_outputs(tmp_path):
    unbroken, plugin, stream, state = unbroken_run(random_replay, tmp_path, net=GrowingNet)
    resumed, other, _ = script(random_replay, net=GrowingNet)
    other.load_state_dict(state)
    for step in (0, 1):
        avalanche_model_adaptation(resumed.model, stream[step])
    resumed.optimizer = torch.optim.SGD(resumed.model.parameters(), lr=0.1, momentum=0.9)
    resumed.train([stream[2], stream[3]])
    assert_same_end(resumed, other, unbroken, plugin)


def test_a_state_is_a_snapshot():
    trained, plugin, stream = one_step(schedule=SCHEDULES["MultiStepLR"])
    state = plugin.state_dict()
    before = copy.deepcopy(state)
    trained.train(stream[1])
    assert state.keys() == before.keys()
    assert state["seen"] == before["seen"] == [0]
    assert state["memory"].keys() == before["memory"].keys()
    assert state["optimizer_start"] == before["optimizer_start"]
    assert state["scheduler_start"] == before["scheduler_start"]


def test_loading_a_state_does_not_tie_two_plugins_together():
    _, plugin, stream = one_step()
    state = plugin.state_dict()
    others = [script(random_replay) for _ in range(2)]
    for _, other, _ in others:
        other.load_state_dict(state)
    others[0][0].train(stream[1])
    assert others[0][1].seen == [0, 1]
    assert others[1][1].seen == state["seen"] == [0]


def test_the_state_before_any_training_can_be_loaded(tmp_path):
    _, plugin, _ = script(random_replay)
    trained, other, _ = script(random_replay)
    other.load_state_dict(through_a_file(plugin.state_dict(), tmp_path / "state.pt"))
    trained.train(four_steps().train_stream[0])
    assert other.memory.classes == [0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        *(
            ((part,), f"the plugin's state lacks {part}")
            for part in ("memory", "seen", "experiences", "optimizer_start")
        ),
        (("memory", "0.codes"), "the memory lacks 0.codes"),
    ],
)
def test_an_incomplete_state_is_refused_and_changes_nothing(place, message):
    _, plugin, _ = one_step()
    state = plugin.state_dict()
    part = state if len(place) == 1 else state[place[0]]
    del part[place[-1]]
    _, other, _ = script(random_replay)
    with pytest.raises(ValueError, match=f"{message}; it is incomplete"):
        other.load_state_dict(state)
    assert (other.seen, other.experiences, len(other.memory)) == ([], 0, 0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: ddm_replay(2), r"condenser 'random' \(here 'ddm'\)"),
        (lambda: random_replay(2, seed=1), r"seed 0 \(here 1\)"),
        (lambda: random_replay(2, training_seed=1), r"training_seed 0 \(here 1\)"),
        (lambda: random_replay(3), r"images_per_class 2 \(here 3\)"),
        (lambda: random_replay(mem_size=4), r"images_per_class 2 \(here None\)"),
        (lambda: random_replay(2, store="4bit"), r"store 'uint8' \(here '4bit'\)"),
        (lambda: random_replay(2, pixels=4), r"pixels None \(here 4\)"),
    ],
    ids=["method", "seed", "training seed", "quota", "budget", "store", "pixels"],
)
def test_the_state_of_a_plugin_that_was_made_otherwise_is_refused(other, message):
    _, plugin, _ = one_step()
    made = other()
    with pytest.raises(ValueError, match=f"the state is of a plugin with .*{message}.*make this one as that was made"):
        made.load_state_dict(plugin.state_dict())
    assert (made.seen, made.experiences, len(made.memory)) == ([], 0, 0)


def test_a_state_of_before_hashes_were_kept_can_be_loaded():
    _, plugin, stream = one_step()
    state = plugin.state_dict()
    del state["keys"], state["made_with"]
    trained, other, _ = script(random_replay)
    other.load_state_dict(state)
    trained.train(stream[1])
    assert other.seen == [0, 1]


def test_an_optimizer_with_other_groups_than_the_state_s_is_refused():
    _, plugin, stream = one_step()
    model, other = SmallNet(), random_replay()
    groups = [{"params": [*model.conv.parameters()]}, {"params": [*model.norm.parameters()], "lr": 0.3}]
    trained = strategy(other, model=model, optimizer=torch.optim.SGD(groups, lr=0.1))
    other.load_state_dict(plugin.state_dict())
    with pytest.raises(ValueError, match=r"an optimizer with 1 parameter group\(s\), this one has 2"):
        trained.train(stream[1])


def test_evaluating_before_anything_is_trained_is_warned_of_once(caplog):
    _, plugin, _ = one_step()
    benchmark = four_steps()
    resumed, other, _ = script(random_replay)
    other.load_state_dict(plugin.state_dict())
    with caplog.at_level(logging.WARNING, "clreplay"):
        resumed.eval(benchmark.test_stream[:1])
        resumed.eval(benchmark.test_stream[:1])
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "the plugin's state was loaded and nothing has been trained since"
    ]


@pytest.mark.parametrize("resumes", [True, False], ids=["resumed", "never stopped"])
def test_evaluating_what_was_trained_is_not_warned_of(resumes, caplog):
    _, plugin, _ = one_step()
    benchmark = four_steps()
    trained, other, _ = script(random_replay)
    if resumes:
        other.load_state_dict(plugin.state_dict())
    with caplog.at_level(logging.WARNING, "clreplay"):
        trained.train(benchmark.train_stream[1])
        trained.eval(benchmark.test_stream[:1])
    assert caplog.records == []


# ---------------------------------------------------------------- training that was interrupted


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_an_interrupted_experience_can_be_trained_again(replay):
    stream = four_steps().train_stream
    unbroken, reference, _ = script(replay)
    unbroken.train([stream[0], stream[1]])

    plugin, interrupt = replay(), Interrupt()
    trained = strategy(plugin, interrupt, model=SmallNet())
    trained.train(stream[0])
    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        trained.train(stream[1])
    trained.train(stream[1])
    assert_same_end(trained, plugin, unbroken, reference)
    assert (plugin.seen, plugin.experiences) == ([0, 1], 2)


def test_an_interrupted_experience_is_taken_up_again_from_a_state(tmp_path):
    stream = four_steps().train_stream
    plugin, interrupt = random_replay(), Interrupt()
    trained = strategy(plugin, interrupt, model=SmallNet())
    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        trained.train(stream[0])
    resumed, other, _ = script(random_replay)
    other.load_state_dict(through_a_file(plugin.state_dict(), tmp_path / "state.pt"))
    resumed.train([stream[0], stream[1]])
    unbroken, reference, _ = script(random_replay)
    unbroken.train([stream[0], stream[1]])
    assert_same_end(resumed, other, unbroken, reference)


def test_going_on_after_an_interrupted_experience_keeps_its_classes():
    stream = four_steps().train_stream
    plugin, interrupt, spy = random_replay(), Interrupt(), Spy()
    trained = strategy(plugin, interrupt, spy)
    trained.train(stream[0])
    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        trained.train(stream[1])
    trained.train(stream[2])
    assert set(spy.labels(-1).tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match=r"classes \[1\] have come in an earlier experience"):
        trained.train(stream[1])


@pytest.mark.parametrize("second", [1, 2], ids=["again", "the next one"])
def test_a_strategy_that_carries_classes_along_goes_on_after_an_interruption(second):
    stream = four_steps().train_stream
    plugin, interrupt, spy = random_replay(), Interrupt(), Spy()
    trained = strategy(plugin, interrupt, spy, kind=Cumulative)
    trained.train(stream[0])
    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        trained.train(stream[1])
    trained.train(stream[second])
    assert set(spy.labels(-1).tolist()) == set(range(second + 1))


# ---------------------------------------------------------------- pickles


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_the_plugin_can_be_pickled_and_goes_on(replay):
    trained, plugin, stream = one_step(replay)
    resumed = strategy(pickle.loads(pickle.dumps(plugin)), model=SmallNet())
    for one in (trained, resumed):
        one.train(stream[1])
    assert_same_end(resumed, resumed.plugins[0], trained, plugin)


def test_a_pickle_of_the_plugin_does_not_hold_the_data_set():
    # Trap: buffers that are views of a data set take all of it into checkpoints.
    plugin = random_replay()
    trained = strategy(plugin, model=SmallNet())
    trained.train(plain_benchmark(toy_pixels(4, 200)).train_stream[0])
    assert len(pickle.dumps(plugin)) < 20_000  # the experience: 400 images of 768 values


@pytest.fixture
def picklable_optimizers(monkeypatch):
    """torch deletes ``torch.optim.sgd`` and its like, so that dill cannot find optimizer classes by name."""
    monkeypatch.setattr(torch.optim, "sgd", sys.modules["torch.optim.sgd"], raising=False)


@pytest.mark.parametrize("replay", [random_replay, ddm_replay])
def test_avalanche_s_checkpoint_of_the_whole_strategy_goes_on(replay, picklable_optimizers, tmp_path):
    path = tmp_path / "strategy.pkl"

    def started():
        evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
        model = SmallNet()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = LRSchedulerPlugin(lr_scheduler.MultiStepLR(optimizer, [1]))
        return strategy(replay(), schedule, model=model, optimizer=optimizer, evaluator=evaluator)

    benchmark = four_steps()
    unbroken = started()
    for step in range(4):
        unbroken.train(benchmark.train_stream[step])
        unbroken.eval(benchmark.test_stream[: step + 1])
        if step == 1:
            save_checkpoint(unbroken, path)

    resumed, first = maybe_load_checkpoint(started(), path, unique_objects=[benchmark])
    assert first == 2
    for step in range(first, 4):
        resumed.train(benchmark.train_stream[step])
    # Trap: after loading, model and plugins are new objects; ask the strategy for them.
    assert_same_end(resumed, resumed.plugins[0], unbroken, unbroken.plugins[0])
