"""Domains: what they are, what names them, and what is refused before any work."""

import pytest
import torch
from data_helpers import write_classes

from clreplay.data import load_digits
from clreplay.data.domains import check_domains, domain_words, load_domains


def folder(path, counts=None, first=0, size=(20, 20)):
    counts = counts or {"cat": 3, "dog": 2}
    write_classes(path / "train", counts, first, size)
    write_classes(path / "test", counts, first + 500, size)
    return path


def test_one_data_set_seen_in_several_ways():
    digits = load_digits()
    data = load_domains(["rotate:0,90", "invert"], "digits")
    assert data.domain_names == ("rotate:0", "rotate:90", "invert") and data.name == "digits"
    plain, turned, inverted = data.domains
    for part in ("train", "test"):
        images = getattr(digits, part).images
        assert torch.equal(getattr(plain, part).images, images)
        assert torch.equal(getattr(inverted, part).images, 255 - images)
        assert (getattr(turned, part).images.int() - images.rot90(1, (2, 3)).int()).abs().max() <= 1
        assert torch.equal(getattr(turned, part).labels, getattr(digits, part).labels)
    assert all(domain.normalization == digits.normalization for domain in data.domains)


def test_folders_are_domains_normalised_as_the_first_one(tmp_path):
    names = [f"folder:{folder(tmp_path / place / name, first=first)}@16" for first, (place, name) in enumerate(
        [("a", "photos"), ("a", "sketches"), ("b", "photos")]
    )]  # fmt: skip
    data = load_domains(names)
    assert data.class_names == ("cat", "dog") and data.train.images.shape[1:] == (3, 16, 16)
    assert data.domain_names == ("folder-photos-16 (1)", "folder-sketches-16", "folder-photos-16 (2)")
    assert len({domain.normalization for domain in data.domains}) == 1


def test_the_fingerprint_is_of_all_domains_in_their_order():
    one = load_domains(["none", "invert"], "digits").fingerprint
    assert one == load_domains(["rotate:0", "invert"], "digits").fingerprint
    others = (["invert", "none"], ["none", "rotate:20"], ["none", "invert", "rotate:20"])
    assert one not in [load_domains(words, "digits").fingerprint for words in others]


def test_several_numbers_are_several_domains():
    assert domain_words(["rotate:0, 30,60", "invert"]) == ["rotate:0", "rotate:30", "rotate:60", "invert"]
    assert domain_words(["folder:a,b@32", "rotate:3+blur"]) == ["folder:a,b@32", "rotate:3+blur"]


@pytest.mark.parametrize(
    ("words", "dataset", "message"),
    [
        (["invert"], "digits", r"domains must be two or more, got 1 \(invert\)"),
        ([], "digits", "domains must be two or more, got 0"),
        (["invert", "none", "invert"], "digits", "domains must differ, got 'invert' twice"),
        (["none", "invrt"], "digits", "'invrt' is neither a transform .* nor a data set .*did you mean 'invert'"),
        (["none", "minst"], "digits", "'minst' is neither .*did you mean 'mnist'"),
        (["none", "invert"], None, "'none' is a transform, and no dataset says of what; give --dataset"),
        (["mnist", "fashionmnist"], "digits", "dataset is 'digits', but all domains are data sets of their own"),
        (["none", "rotate:up"], "digits", "rotate takes a number"),
    ],
)
def test_bad_names_are_refused_before_anything_is_read(words, dataset, message, monkeypatch):
    monkeypatch.setattr("clreplay.data.domains.load_dataset", None)
    with pytest.raises(ValueError, match=message):
        load_domains(words, dataset)
    with pytest.raises(ValueError, match=message):
        check_domains(words, dataset)


@pytest.mark.parametrize(
    ("other", "ending", "message"),
    [
        ({"counts": {"cat": 2, "fox": 2}}, ("@16", "@16"), "same classes: folder.* lacks dog and has fox, unlike"),
        ({}, ("@16", "@18"), r"one size \(height x width\): .* has 18 x 18, .* 16 x 16; folder:PATH@16 resizes"),
        ({"first": 0}, ("@16", "@16"), "have the very same images of class cat; take one"),
    ],
)
def test_domains_that_do_not_fit_are_refused(other, ending, message, tmp_path):
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two", **{"first": 7, **other})
    with pytest.raises(ValueError, match=message):
        load_domains([f"folder:{one}{ending[0]}", f"folder:{two}{ending[1]}"])


def test_domains_of_other_channels_are_refused(tmp_path):
    write = folder(tmp_path / "one", {str(digit): 1 for digit in range(10)})
    with pytest.raises(ValueError, match="the same channels: digits has 1, folder.* 3; give --channels"):
        load_domains([f"folder:{write}@32", "digits"])
    data = load_domains([f"folder:{write}@32", "digits"], channels=3)
    assert data.train.images.shape[1] == 3 and data.name == "folder-one-32+digits"
