"""The buffer that Mammoth's rehearsal methods use, as its source describes it, with a condensed memory behind it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clreplay.buffer import MammothBuffer

QUICK = {"device": "cpu", "preset": "smoke", "seed": 0}


def buffer_of(size=8, method="random", **options):
    return MammothBuffer(size, "cpu", method, **options)


class TaskStream:
    """Two tasks of two classes; pictures with pixels in [0, 1]."""

    def __init__(self, pixels):
        images, labels = pixels(4)
        self.tasks = [(images[labels // 2 == task] / 255, labels[labels // 2 == task]) for task in (0, 1)]


class Rehearsing:
    """What Mammoth's ER (and, with ``dark``, DER++) does in ``observe`` and ``end_task``."""

    def __init__(self, buffer, dark=False):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.02)
        self.buffer, self.dark, self.sizes = buffer, dark, []

    def transform(self, pictures):
        return (pictures - 0.5) / 0.25

    def observe(self, pictures, labels):
        self.opt.zero_grad()
        outputs = self.net(self.transform(pictures))
        loss = F.cross_entropy(outputs, labels)
        if not self.buffer.is_empty() and self.dark:
            old, _, logits = self.buffer.get_data(6, transform=self.transform, device="cpu")
            loss = loss + 0.1 * F.mse_loss(self.net(old), logits)
        if not self.buffer.is_empty():
            old, of, *_ = self.buffer.get_data(6, transform=self.transform, device="cpu")
            self.sizes.append(len(of))
            loss = loss + F.cross_entropy(self.net(old), of)
        loss.backward()
        self.opt.step()
        more = {"logits": outputs.data} if self.dark else {}
        self.buffer.add_data(examples=pictures, labels=labels, **more)

    def train(self, tasks):
        for images, labels in tasks:
            for _ in range(3):
                for part in zip(images.split(6), labels.split(6)):
                    self.observe(*part)
            self.buffer.consolidate()
        return self


@pytest.mark.parametrize("method", ["random", "dm"])
@pytest.mark.parametrize("dark", [False, True], ids=["ER", "DER++"])
def test_a_rehearsing_method_remembers(pixels, method, dark):
    stream = TaskStream(pixels)
    buffer = buffer_of(method=method, preset="smoke")
    trained = Rehearsing(buffer, dark)
    if dark:
        buffer.respond = lambda pictures: trained.net(trained.transform(pictures))
    trained.train(stream.tasks)
    assert len(buffer) == 8 and not buffer.is_empty() and buffer.is_full()
    assert set(trained.sizes) == {6}
    assert buffer.num_seen_examples == 3 * 48
    images, labels = stream.tasks[0]
    accuracy = (trained.net(trained.transform(images)).argmax(1) == labels).float().mean()
    assert accuracy > 0.8  # without rehearsal the first task is gone
    assert (Rehearsing(buffer_of()).train(stream.tasks[1:]).net(images).argmax(1) == labels).float().mean() < 0.3


def filled(pixels, **options):
    buffer = buffer_of(**options)
    for task, (images, labels) in enumerate(TaskStream(pixels).tasks):
        buffer.add_data(examples=images, labels=labels, task_labels=torch.full_like(labels, task))
        buffer.consolidate()
    return buffer


def test_pictures_come_back_as_they_came(pixels):
    buffer = filled(pixels)
    pictures, labels, tasks = buffer.get_all_data()
    real = {label: torch.cat([x[y == label] for x, y in TaskStream(pixels).tasks]) for label in range(4)}
    for one, label, task in zip(pictures, labels, tasks):
        assert (real[int(label)] - one).abs().flatten(1).amax(1).min() < 1e-6
        assert task == label // 2
    assert torch.equal(buffer.get_data_by_index([2, 5])[0], pictures[[2, 5]])


def test_a_batch_is_balanced_and_without_repetition(pixels):
    buffer = filled(pixels)
    for _ in range(5):
        index, pictures, labels, _ = buffer.get_data(6, return_index=True)
        assert len(index.unique()) == 6
        assert sorted(torch.bincount(labels, minlength=4).tolist()) == [1, 1, 2, 2]
        assert torch.equal(buffer.get_data(0, force_indexes=index)[0], pictures)
    assert len(buffer.get_data(100)[0]) == 8  # as in Mammoth: no more than there are


def test_masks_and_views_are_mammoth_s(pixels):
    buffer = filled(pixels)
    assert set(buffer.get_data(100, mask_task_out=1)[1].tolist()) == {0, 1}
    plain, doubled, *_ = buffer.get_data(4, transform=lambda x: 2 * x, return_not_aug=True)
    assert torch.equal(2 * plain, doubled)
    untasked = buffer_of()
    untasked.add_data(*TaskStream(pixels).tasks[0])
    untasked.consolidate()
    assert len(untasked.get_data(4)) == 2
    assert len(untasked.get_data(9, mask_task_out=0, cpt=1)[0]) == 4
    with pytest.raises(ValueError, match="mask_task_out needs task labels, or cpt"):
        untasked.get_data(4, mask_task_out=0)


def test_logits_of_what_stays_are_those_of_its_own_task(pixels):
    buffer = buffer_of(respond=None)
    (first, second) = TaskStream(pixels).tasks
    for number, (images, labels) in enumerate((first, second)):
        buffer.respond = lambda pictures, number=number: torch.full((len(pictures), 4), float(number))
        buffer.add_data(images, labels, logits=torch.zeros(len(labels), 4))
        buffer.consolidate()
    _, labels, logits = buffer.get_all_data()
    assert torch.equal(logits[:, 0], (labels // 2).float())


def test_what_condensed_images_cannot_have_is_refused(pixels):
    images, labels = TaskStream(pixels).tasks[0]
    for given, match in (
        ({"examples": images}, "labels are needed to condense class by class"),
        ({"examples": images, "labels": labels, "logits": labels[:, None]}, "pass respond=, the network"),
        ({"examples": images, "labels": labels, "attention_maps": []}, "attention_maps belong to single images"),
        ({"examples": images * 3 - 1, "labels": labels}, "are no pictures of 256 levels"),
    ):
        buffer = buffer_of()
        with pytest.raises(ValueError, match=match):
            buffer.add_data(**given)
        assert buffer.num_seen_examples == 0 and buffer.used_attributes == ["examples"]
    with pytest.raises(ValueError, match="the buffer is empty until consolidate"):
        buffer_of().get_data(4)


def test_a_state_goes_on(pixels, tmp_path):
    tasks = TaskStream(pixels).tasks
    buffer = buffer_of(respond=lambda pictures: pictures.mean((2, 3)))
    buffer.add_data(*tasks[0], logits=torch.zeros(len(tasks[0][0]), 3))
    buffer.consolidate()
    torch.save(buffer.state_dict(), tmp_path / "state.pt")
    other = buffer_of(respond=buffer.respond)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for one in (buffer, other):
        one.add_data(*tasks[1], logits=torch.zeros(len(tasks[1][0]), 3))
        one.consolidate()
    assert all(map(torch.equal, buffer.get_data(5), other.get_data(5)))
