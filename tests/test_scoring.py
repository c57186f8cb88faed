"""``clreplay.evaluate``: what networks trained on a memory get right, and what does not fit."""

import math
import statistics
from functools import partial

import pytest
import torch
from torch import nn

import clreplay
from clreplay import condense, evaluate
from clreplay.data import NORMALIZATIONS, Dataset, ImageSet, load_digits, register_dataset
from clreplay.data.registry import DATASETS
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_planned
from clreplay.incremental.run_folder import read_results
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.runtime.progress import Reporter
from clreplay.scoring import Evaluation, plan_evaluation
from clreplay.training.cutmix import CutMixSettings
from clreplay.training.settings import TrainingSettings

QUICK = {"updates": 3, "width": 4, "batch_size": 16}
NAMES = ("fern", "moss", "rose")


@pytest.fixture
def toys(pixels):
    """A data set of three classes, 8 x 8 pixels."""
    (train, labels), (test, tested) = pixels(seed=1), pixels(each=20, seed=1)
    return Dataset("toys", ImageSet(train, labels), ImageSet(test, tested), NAMES, NORMALIZATIONS["cifar10"], "toys")


@pytest.fixture
def memory(toys):
    """Four real images of every class of the toys."""
    return condense(toys.train.images, toys.train.labels, "random", 4, normalization="cifar10", dataset="toys")


def score(memory, dataset, *args, **options):
    return evaluate(
        memory, dataset, *args, **{"training": QUICK, "networks": 2, "preset": "smoke", "device": "cpu", **options}
    )


class Tiny(nn.Module):
    """A network of one's own."""

    def __init__(self, outputs=3, channels=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(4, outputs)

    def forward(self, images):
        return self.classifier(self.layers(images))


# ---------------------------------------------------------------- what comes out


def test_accuracies_have_a_mean_and_a_sample_deviation(memory, toys, global_chance_untouched):
    with global_chance_untouched():
        found = score(memory, toys, networks=3)
    assert isinstance(found, Evaluation) and len(found.accuracies) == 3
    assert all(0 <= value <= 100 for value in found.accuracies)
    assert found.mean == pytest.approx(sum(found.accuracies) / 3)
    assert found.std == pytest.approx(statistics.stdev(found.accuracies))
    assert (found.images, found.classes, found.outputs, found.test_images) == (12, 3, 3, 60)
    assert (found.network, found.preset, found.protocol, found.seed) == ("ConvNet of width 4", "smoke", "common", 0)
    assert str(found) == f"{found.mean:.2f} +- {found.std:.2f} % (3 networks)"
    assert found.as_plain()["training"]["updates"] == 3 and found.seconds > 0
    one = score(memory, toys, networks=1)
    assert one.std is None and str(one) == f"{one.mean:.2f} % (1 network)"
    assert one.accuracies == found.accuracies[:1], "a network must not hang on how many there are"


def test_a_memory_that_can_be_learned_is_learned(memory, toys):
    found = score(memory, toys, "mlp", training={"updates": 150, "batch_size": 16, "augment": None}, networks=1)
    assert found.mean > 90


def test_the_same_seed_gives_the_same_numbers_and_another_others(memory, toys):
    first, again, other = (
        plan_evaluation(memory, toys, training=QUICK, networks=1, seed=s, device="cpu") for s in (0, 0, 1)
    )
    weights = [torch.cat([p.flatten() for p in one.make(0).parameters()]) for one in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert score(memory, toys).accuracies == score(memory, toys).accuracies


@pytest.mark.parametrize("protocol", ["common", "idc"])
def test_the_numbers_are_those_of_the_class_incremental_run(tmp_path, protocol):
    settings = ContinualSettings(
        dataset="digits", memories=("herding",), images_per_class=3, steps=1, class_orders=1, networks=2,
        preset="smoke", host="none", device="cpu", seed=4, protocol=protocol,
        overrides={"train.updates": 4, "train.width": 4},
    )  # fmt: skip
    folder = run_planned(plan_experiment(settings), tmp_path / "run", Reporter(None))
    found = evaluate(
        folder / "memory.safetensors", "digits", training={"updates": 4, "width": 4}, networks=2, seed=4, device="cpu",
        preset="smoke", protocol=protocol,
    )  # fmt: skip
    assert list(found.accuracies) == pytest.approx(read_results(folder).accuracy.tolist(), abs=1e-3)
    assert isinstance(found.training, CutMixSettings) is (protocol == "idc")


def test_the_data_set_s_own_cases_hold():
    digits = load_digits()
    memory = condense(digits.train.images, digits.train.labels, "random", 2, normalization=digits.normalization)
    plan = plan_evaluation(memory, digits, preset="smoke", device="cpu")
    assert "flip" not in plan.learner.augment, "digits are not mirrored"


def test_a_learner_may_be_given_whole(memory, toys):
    learner = TrainingSettings(width=4, updates=2, batch_size=16, lr=0.02)
    assert score(memory, toys, training=learner).training == learner
    assert score(memory, toys, "mlp", training=TrainingSettings(updates=2)).training.network == "mlp"


def test_progress_is_over_all_networks(memory, toys):
    told = []
    score(memory, toys, progress=lambda *one: told.append(one), networks=2)
    assert told == [(done, 6, "epochs") for done in range(1, 7)]
    lines = []
    score(memory, toys, progress=lines.append, networks=2)
    assert [line.split(",")[0].strip() for line in lines] == [
        "training 2 networks: 1/6 epochs", "training 2 networks: 6/6 epochs",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="progress must be called with"):
        score(memory, toys, progress=3)


# ---------------------------------------------------------------- memories and data in other forms


def test_tensors_files_and_data_sets_give_the_same(memory, toys, tmp_path):
    memory.save(tmp_path / "memory.safetensors")
    expected = score(memory, toys).accuracies
    test = (toys.test.images, toys.test.labels)
    normalised = (toys.normalization.apply(toys.test.images), toys.test.labels)
    for one in (test, toys.test, (toys.test.images.float() / 255, toys.test.labels), normalised):
        assert score(memory, one).accuracies == pytest.approx(expected, abs=2)
    assert score(tmp_path / "memory.safetensors", toys).accuracies == expected
    pair = (memory.images, memory.labels)
    assert score(pair, toys).accuracies == expected
    codes = torch.cat([memory.slots[label].codes for label in memory.classes])
    assert score((codes, memory.labels), toys).accuracies == pytest.approx(expected)


def test_networks_that_train_together_are_tested_on_floats_and_pixels_alike(memory, toys, monkeypatch):
    monkeypatch.setattr("clreplay.scoring.should_stack", lambda *_: True)
    monkeypatch.setattr("clreplay.networks.ConvNet.fuse", lambda self: self)  # as on a GPU
    normalised = (toys.normalization.apply(toys.test.images), toys.test.labels)
    found = [score(memory, test).accuracies for test in (toys, normalised)]
    assert found[0] == pytest.approx(found[1]) and len(found[0]) == 2


def test_part_of_the_classes_is_tested_on_the_images_of_those(memory, toys):
    rows = memory.labels < 2
    found = plan_evaluation((memory.images[rows], memory.labels[rows]), toys, training=QUICK, device="cpu")
    assert found.outputs == 3 and set(found.test[1].tolist()) == {0, 1}
    assert "2 of the 3 classes" in found.remarks[0]


def test_data_of_another_name_or_content_is_remarked(memory, toys):
    memory.info["dataset"] = "ferns"
    assert plan_evaluation(memory, toys, device="cpu").remarks == (
        "the memory was made of ferns, and is tested on toys",
    )
    memory.info.update(dataset="toys", data_fingerprint="0" * 32)
    assert "made of other images or labels" in plan_evaluation(memory, toys, device="cpu").remarks[0]
    memory.info.update(data_fingerprint=toys.fingerprint)
    assert plan_evaluation(memory, toys, device="cpu").remarks == ()


def test_a_data_set_is_had_with_the_memory_s_channels(monkeypatch):
    digits = load_digits(channels=3)
    memory = condense(digits.train.images, digits.train.labels, "random", 1, normalization=digits.normalization)
    assert plan_evaluation(memory, "digits", device="cpu").test[0].shape[1] == 3


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["ConvNet", "mlp", "LeNet", "resnet18", "vgg11bn"])
def test_any_network_of_the_table_serves(name):
    digits = load_digits()
    test = ImageSet(digits.test.images[:20], digits.test.labels[:20])
    memory = condense(digits.train.images, digits.train.labels, "random", 1, normalization=digits.normalization)
    part = (memory.images[:6], torch.arange(6) % 3)
    rows = test.labels < 3
    found = evaluate(
        part, (digits.normalization.apply(test.images[rows]), test.labels[rows]), name, {"updates": 1}, 1,
        device="cpu", preset="smoke",
    )  # fmt: skip
    assert len(found.accuracies) == 1 and math.isfinite(found.mean)


def test_networks_of_one_s_own_are_made_or_copied_anew(memory, toys):
    made = []

    def factory():
        made.append(Tiny())
        return made[-1]

    found = score(memory, toys, factory, networks=2)
    assert found.network == "factory" and len(made) == 3  # one to try
    first, second = (torch.cat([p.flatten() for p in one.parameters()]) for one in made[1:])
    assert not torch.equal(first, second)
    mine = Tiny()
    before = [p.detach().clone() for p in mine.parameters()]
    again = score(memory, toys, mine)
    assert all(torch.equal(p, old) for p, old in zip(mine.parameters(), before)), "it must not be trained itself"
    assert again.accuracies == score(memory, toys, mine).accuracies and again.network == "Tiny"
    assert score(memory, toys, partial(Tiny, outputs=9)).outputs == 3


def test_a_network_of_torchvision_and_one_of_a_file(memory, toys, tmp_path):
    found = score(memory, toys, "torchvision:resnet18", training={"updates": 1}, networks=1)
    assert found.network == "torchvision's resnet18" and len(found.accuracies) == 1
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n")
    assert score(memory, toys, f"{path}:net").network == "net"
    with pytest.raises(ValueError, match="has no function 'nett'; it has net"):
        score(memory, toys, f"{path}:nett")


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnt18"}, "unknown network 'resnt18'; did you mean 'ResNet18'"),
        (
            {"network": "torchvision:resnet81"},
            "no network 'resnet81' for classification; did you mean 'torchvision:res",
        ),
        ({"network": 3}, "network must be a name, a module or a function that makes one, got int"),
        ({"network": lambda: 3}, "must return a torch.nn.Module, got int"),
        ({"network": partial(Tiny, outputs=2)}, r"must give logits \(n, 3\), one a class, got \(2, 2\)"),
        ({"network": partial(Tiny, channels=1)}, "cannot take images of 3 channels, 8 x 8 pixels"),
        ({"network": nn.Flatten()}, "Flatten has no parameters to train"),
        ({"networks": 0}, "networks must be at least 1, got 0"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"protocol": "authors"}, "protocol must be one of common, idc"),
        ({"training": {"epoch": 3}}, "unknown key 'epoch', did you mean 'epochs'"),
        ({"training": {"network": "mlp"}}, "the network is an argument of its own"),
        ({"preset": "large"}, "preset must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_trained_is_refused_before_any_work(memory, toys, options, message, monkeypatch):
    monkeypatch.setattr("clreplay.scoring.train_learner", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        score(memory, toys, **options)


def test_names_of_some_classes_are_compared_by_label(memory, toys):
    memory.name_classes({**dict(enumerate(toys.class_names)), 9: "an owl that is not tested"})
    plan_evaluation(memory, toys, training=QUICK, device="cpu")
    memory.name_classes({1: "eel"})
    assert isinstance(memory.info["class_names"], dict)
    with pytest.raises(ValueError, match="class 1 is 'eel' in the memory and .* their classes differ in name or order"):
        plan_evaluation(memory, toys, training=QUICK, device="cpu")


def test_a_network_whose_weights_cannot_be_drawn_anew_names_the_cure(memory, toys):
    mine = Tiny()
    mine.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="pass a function that makes the network"):
        score(memory, toys, mine)


def test_memory_and_data_must_agree(memory, toys, pixels):
    images, labels = memory.images, memory.labels
    with pytest.raises(ValueError, match="holds images of 3 channels, 8 x 8 pixels and digits has 3 channels, 32 x 32"):
        score(memory, "digits")
    with pytest.raises(ValueError, match="has the classes 7, of which toys has no test image"):
        score((images, labels.where(labels < 2, torch.tensor(7))), toys)
    with pytest.raises(ValueError, match="class 1 is 'rose' in the memory and 'moss' in toys"):
        memory.info["class_names"] = ["fern", "rose", "moss"]
        score(memory, toys)
    with pytest.raises(ValueError, match="the memory is empty"):
        score(ReplayMemory(3), toys)
    for wrong in (images, (images,), (images, labels[:3]), (images, labels.float()), (images[0], labels)):
        with pytest.raises(ValueError, match="pass a pair of tensors"):
            score(wrong, toys)
    with pytest.raises(ValueError, match="NaN"):
        score((images * math.nan, labels), toys)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        score(memory, "cifar11")
    with pytest.raises(FileNotFoundError, match="no memory at"):
        score("nothing.safetensors", toys)


def test_a_registered_data_set_is_found_by_name(memory, toys):
    register_dataset("toysfortests")(lambda name, root, *, download, channels: toys)
    try:
        assert score(memory, "toysfortests").test_images == 60
    finally:
        del DATASETS["toysfortests"]


def test_it_is_a_public_name():
    assert clreplay.evaluate is evaluate and {"evaluate", "Evaluation"} <= set(clreplay.__all__)
