"""Where a data set is looked for, and how it is downloaded."""

import hashlib

import pytest
import torch
from data_helpers import PETS, load_folder, serving, tarred, zipped

from clreplay.data import DataNotFoundError
from clreplay.data.readers.counts import Counts
from clreplay.data.readers.image_files import Target
from clreplay.data.readers.image_sets import load_images
from clreplay.data.readers.spec import ImageSpec


@pytest.fixture(params=["pets.zip", "pets.tgz"])
def published(request, pets, tmp_path):
    """A set whose archive a server of this machine gives out, and the archive."""
    (tmp_path / "served").mkdir()
    archive = (zipped if request.param == "pets.zip" else tarred)(pets, tmp_path / "served" / request.param)
    with serving(archive.parent) as address:
        yield (
            ImageSpec(
                name="pets",
                title="Pets",
                target=Target(20),
                counts={split: Counts(sum(counts.values())) for split, counts in PETS.items()},
                normalization=None,
                archives=(archive.name,),
                url=f"{address}/{archive.name}",
                md5=hashlib.md5(archive.read_bytes()).hexdigest(),
            ),
            archive,
        )


def test_a_download_is_kept_as_the_archive_and_found_the_next_time(tmp_path, pets, published):
    spec, archive = published
    expected = load_folder(pets)
    for download in (True, False):
        dataset = load_images(spec, tmp_path / "data", download=download)
        assert torch.equal(dataset.train.images, expected.train.images)
        assert torch.equal(dataset.test.images, expected.test.images)
        assert [path.name for path in (tmp_path / "data").iterdir()] == [archive.name]


def test_a_damaged_download_leaves_nothing_behind(tmp_path, published):
    spec, archive = published
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DataNotFoundError, match="File not found or corrupted"):
        load_images(spec, tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists()
