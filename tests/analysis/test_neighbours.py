"""The real images nearest to those of a memory."""

import pytest
import torch

from clreplay.analysis import nearest_figure, nearest_real
from clreplay.data import NORMALIZATIONS, ImageSet
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks import ConvNet


@pytest.fixture
def real():
    chance = torch.Generator().manual_seed(0)
    return {label: torch.randn(6, 3, 8, 8, generator=chance) + label for label in (0, 5)}


def slow_nearest(own, theirs):
    """Place and distance, pair by pair."""
    found = []
    for one in own:
        distances = [((one - other).double() ** 2).sum().sqrt().item() for other in theirs]
        found.append((distances.index(min(distances)), min(distances)))
    usual = [
        min(((a - b).double() ** 2).sum().sqrt().item() for j, b in enumerate(theirs) if j != i)
        for i, a in enumerate(theirs)
    ]
    return found, sum(usual) / len(usual)


def test_distances_are_those_of_pixels_over_the_usual_one(real):
    images = {5: real[5][[4, 1, 1]] + 0.01, 0: real[0][:2] * 3}
    table = nearest_real(images, real)
    assert list(table.label) == [5, 5, 5, 0, 0] and list(table.image) == [0, 1, 2, 0, 1]
    assert list(table.nearest)[:3] == [4, 1, 1]
    for label, own in images.items():
        found, usual = slow_nearest(own, real[label])
        rows = table[table.label == label]
        assert list(rows.nearest) == [place for place, _ in found]
        assert list(rows.distance) == pytest.approx([distance / usual for _, distance in found])


def test_distances_to_a_network_are_those_of_its_embedding(real):
    network = ConvNet(num_classes=6, image_size=8, width=4, depth=1).eval()
    vectors = {label: network.embedding(images).detach() for label, images in real.items()}
    own = {0: real[5][:2]}
    found, usual = slow_nearest(network.embedding(own[0]).detach(), vectors[0])
    table = nearest_real(own, real, network)
    assert list(table.nearest) == [place for place, _ in found]
    assert list(table.distance) == pytest.approx([distance / usual for _, distance in found], rel=1e-5)


def test_a_class_without_real_images_is_refused(real):
    with pytest.raises(ValueError, match="real must have at least 2 images of class 3"):
        nearest_real({3: real[0]}, real)
    with pytest.raises(ValueError, match="real must have at least 2 images of class 0"):
        nearest_real({0: real[0]}, {0: real[0][:1]})


def test_the_picture_shows_the_nearest_ones(tmp_path):
    chance = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 256, (12, 3, 8, 8), generator=chance, dtype=torch.uint8)
    labels = torch.tensor([0, 1] * 6)
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATIONS["cifar10"])
    memory.add({label: codes[labels == label][[3, 0]] for label in (0, 1)})
    real = ImageSet(codes, labels)
    network = ConvNet(num_classes=2, image_size=8, width=4, depth=1).eval()
    path = tmp_path / "near.png"
    figure = nearest_figure(memory, real, network, class_names=["a cat", "a_dog"], columns=2, path=path)
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert titles == ["In memory", "Nearest real, by pixels", "Nearest real, to a network"]
    first, *others = (torch.tensor(axes.images[0].get_array()) for axes in figure.axes)
    for other in others:
        torch.testing.assert_close(first, other, atol=0.01, rtol=0)  # selected images are their own nearest
    assert {"a cat", "a dog"} <= {text.get_text() for text in figure.texts} and path.is_file()
    assert len(nearest_figure(memory, real, class_names=["a", "b"]).axes) == 2
    with pytest.raises(ValueError, match="memory must hold images and know their normalization"):
        nearest_figure(ReplayMemory(images_per_class=2), real, class_names=["a", "b"])
