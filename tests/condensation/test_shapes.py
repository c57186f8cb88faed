"""Images of another height than width, and of two or five channels, in every method."""

import pytest
import torch
from engines import CPU, assert_close
from tiny import ENGINES, TINY, tiny

from clreplay import ReplayBuffer, ReplayMemory, condense, evaluate
from clreplay.condensation import METHODS, ConfiguredMethod, RealImages
from clreplay.condensation.engine.execution import Execution
from clreplay.data import Normalization

COUNTS = {0: 2, 1: 3}


def pictures(channels=2, height=24, width=40, each=12, seed=0):
    """Two classes, one brighter than the other."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat_interleave(each)
    images = (
        torch.randint(0, 180, (2 * each, channels, height, width), generator=chance) + 70 * labels[:, None, None, None]
    )
    return images.to(torch.uint8), labels


def plain(channels):
    return Normalization((0.5,) * channels, (0.25,) * channels)


def condensed(name, real, execution=None, **changes):
    configured = ConfiguredMethod(METHODS[name], tiny(name, **changes), execution or Execution())
    return configured.condense(real, COUNTS, seed=3, device=CPU)


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("name", TINY)
def test_every_method_makes_images_of_the_shape_of_the_real_ones(name, channels):
    images, labels = pictures(channels)
    real = RealImages(images, labels, plain(channels))
    found = condensed(name, real)
    stored = {label: tuple(some.shape) for label, some in found.images.items()}
    assert stored == {label: (count, channels, 24, 40) for label, count in COUNTS.items()}
    assert all(torch.isfinite(some.float()).all() for some in found.images.values())
    if name in ENGINES:
        turned = RealImages(images.transpose(2, 3).contiguous(), labels, plain(channels))
        assert {some.shape[2:] for some in condensed(name, turned).images.values()} == {(40, 24)}


@pytest.mark.parametrize("channels", [2, 3])
def test_the_compiled_kernels_make_the_same_images_as_the_plain_layers(channels):
    real = RealImages(*pictures(channels), plain(channels))
    how = {"width": 16, "depth": 3, "iterations": 2, "siamese_augment": "color_crop_cutout_flip_scale_rotate"}
    eager, native = (
        condensed("matching", real, Execution(kernels=kernels, layout=layout, parallel="operators"), **how)
        for kernels, layout in (("eager", "contiguous"), ("native", "channels_last"))
    )
    assert_close(eager.images, native.images, 1e-3)


@pytest.mark.parametrize("name", ["random", "matching", "cafe", "dd"])
def test_tiles_have_the_aspect_of_the_images(name):
    found = condensed(name, RealImages(*pictures(), plain(2)), tiles=2)
    assert found.decoding == "tiles2" and found.images[0].shape == (2, 2, 24, 40)
    memory = ReplayMemory(3, normalization=plain(2))
    memory.add(found.images, decoding=found.decoding, fewer=[0])
    assert memory.class_images(1).shape == (12, 2, 24, 40)


@pytest.mark.parametrize("tiles", [3])
def test_tiles_that_do_not_divide_a_side_are_refused_by_height_and_width(tiles):
    with pytest.raises(ValueError, match="tiles must divide the height and width of the images, 24 x 40, got 3"):
        condense(*pictures(), "random", images_per_class=2, normalization=plain(2), tiles=tiles, preset="smoke")


@pytest.mark.parametrize("store", ["uint8", "4bit", "png"])
def test_condensing_buffering_and_scoring_take_any_shape(store, tmp_path):
    channels = 3 if store == "png" else 5
    images, labels = pictures(channels)
    tiny_dm = {"iterations": 1, "width": 4, "real_batch": 4, "preset": "smoke"}
    memory = condense(images, labels, "dm", images_per_class=2, normalization=plain(channels), store=store,
                      pixels=16, progress=False, **tiny_dm)  # fmt: skip
    memory.save(tmp_path / "m.safetensors")
    memory = ReplayMemory.load(tmp_path / "m.safetensors")
    assert memory.images.shape == (4, channels, 24, 40)
    training = {"updates": 2, "width": 4}
    scores = evaluate(memory, (images, labels), preset="smoke", networks=1, training=training, device="cpu")
    assert 0 <= scores.mean <= 100
    how = {"normalization": plain(channels), "device": "cpu", "progress": False, **tiny_dm}
    buffer = ReplayBuffer("dm", images_per_class=2, **how)
    buffer.observe(images, labels)
    buffer.consolidate()
    assert buffer.sample(6)[0].shape == (6, channels, 24, 40)


@pytest.mark.parametrize("store", ["png", "jpeg", "webp", "avif"])
def test_a_codec_refuses_other_channels_than_grey_and_colour_before_any_work(store):
    with pytest.raises(ValueError, match=f"store '{store}' codes pictures of 1 or 3 channels, got 5"):
        condense(*pictures(5), "random", images_per_class=2, normalization=plain(5), store=store, preset="smoke")


def test_images_that_look_like_rows_of_pixels_are_told_so():
    with pytest.raises(ValueError, match=r"look like \(n, h, w, c\); permute them"):
        RealImages(pictures(3)[0].permute(0, 2, 3, 1), pictures(3)[1], plain(3))
