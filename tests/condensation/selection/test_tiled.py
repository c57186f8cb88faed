"""Real images that are stored several in one, by every selection."""

import pytest
import torch
from engines import NORMALIZATION
from hypothesis import given
from hypothesis import strategies as st

from clreplay import condense
from clreplay.condensation import RealImages
from clreplay.condensation.tiles import TiledSettings
from clreplay.memory.decoders import DECODERS, tiles
from clreplay.memory.smaller import tile
from clreplay.recipes.recipe import load_recipe

SELECTIONS = ["random", "herding", "kmeans", "forgetting"]


def slow_tile(images, factor):
    """Pixel after pixel: the mean of a block of the image whose tile it lies in."""
    count, (c, h, w) = len(images) // factor**2, images.shape[1:]
    found = torch.zeros(count, c, h, w)
    for number in range(count):
        for row in range(h):
            for column in range(w):
                place = (row * factor // h) * factor + column * factor // w
                y, x = row % (h // factor) * factor, column % (w // factor) * factor
                block = images[number * factor**2 + place][:, y : y + factor, x : x + factor].float()
                found[number, :, row, column] = block.mean((1, 2))
    return found.round().to(torch.uint8) if images.dtype == torch.uint8 else found


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_tiles_equal_a_slow_loop(factor, kind):
    images = torch.randint(0, 256, (2 * factor**2, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(kind)
    found = tile(images, factor)
    assert found.dtype == kind and found.shape == (2, 3, 12, 12)
    expected = slow_tile(images, factor).float()
    # A mean that lies between two codes may be rounded to either.
    assert (found.float() - expected).abs().max() <= (1 if kind == torch.uint8 else 1e-4)
    assert (found.float() - expected).abs().mean() < 0.02


@given(st.sampled_from([2, 3, 4]), st.integers(1, 3))
def test_what_is_decoded_is_the_chosen_images_in_their_order(factor, count):
    """Images of one colour each lose nothing."""
    colours = torch.rand(count * factor**2, 3, 1, 1).expand(-1, 3, 12, 12)
    torch.testing.assert_close(tiles(tile(colours, factor), factor), colours)
    assert DECODERS[f"tiles{factor}"].images_each == factor**2


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_selection_stores_what_it_chooses_in_tiles(name, pixels):
    images, labels = pixels(3, 12)
    short = {} if name == "random" else {"updates": 2, "width": 4}
    plain = condense(images, labels, name, 8, normalization=NORMALIZATION, **short)
    tiled = condense(images, labels, name, 2, normalization=NORMALIZATION, tiles=2, **short)
    assert len(tiled) == 6 and len(tiled.images) == 24 and {s.decoding for s in tiled.slots.values()} == {"tiles2"}
    for label, slot in tiled.slots.items():
        chosen = plain.slots[label].codes
        if name != "kmeans":  # eight centres are others than two
            assert torch.equal(slot.codes, tile(chosen, 2))
        assert slot.bytes == 2 * images[0].numel()


def test_so_many_images_must_be_there_and_divide(pixels):
    images, labels = pixels(3, 12)
    with pytest.raises(ValueError, match="class 0 has 12 images, fewer than the 16 asked"):
        condense(images, labels, "random", 4, normalization=NORMALIZATION, tiles=2)
    with pytest.raises(ValueError, match="tiles must divide the height and width of the images, 8 x 8, got 3"):
        condense(images, labels, "random", 1, normalization=NORMALIZATION, tiles=3)
    with pytest.raises(ValueError, match="tiles must be one of 1, 2, 3, 4, got 5"):
        TiledSettings(5)


def test_of_a_budget_in_bytes_no_more_are_asked_for_than_there_are(pixels):
    images, labels = pixels(2, 13)
    memory = condense(images, labels, "random", normalization=NORMALIZATION, tiles=2, bytes_per_class=100_000)
    assert [len(slot) for slot in memory.slots.values()] == [3, 3]


@pytest.mark.parametrize("name", ["random", "herding", "kmeans"])
def test_the_recipes_with_tiles_differ_in_them_alone(name):
    plain, tiled = (load_recipe(one).settings("cpu") for one in (name, f"{name}+tiles"))
    assert tiled.tiles == 2 and vars(tiled) == {**vars(plain), "tiles": 2}


def test_tiles_go_through_a_run_s_memory_file(pixels, tmp_path):
    images, labels = pixels(2, 16)
    memory = condense(images, labels, "random+tiles", 4, normalization=NORMALIZATION, store="png")
    memory.save(tmp_path / "m.safetensors")
    loaded = type(memory).load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.images, memory.images) and len(loaded.images) == 32
    assert RealImages(images, labels, NORMALIZATION).classes == loaded.classes
