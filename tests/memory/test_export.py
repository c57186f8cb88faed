"""Memories as files of others, and back: the same images to train on, or the error in pixel codes."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_helpers import NORMALIZATION, codes, floats
from PIL import Image
from torchvision.datasets import ImageFolder

from clreplay.data import NORMALIZATIONS, Normalization, measured_normalization
from clreplay.memory.codecs import available
from clreplay.memory.export import FORMATS, export
from clreplay.memory.formats.eight_bits import SLACK
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.memory.stores import STORES

EIGHT_BITS = ("png", "parquet")


def mixed():
    """A condensed class and a class of real pictures, with everything a memory can carry."""
    memory = ReplayMemory(mem_size=5, normalization=NORMALIZATION)
    record = [{"iteration": 1, "loss": 0.5}]
    memory.add({9: floats(3), 2: codes(2)}, {9: 2}, {9: "nine", 2: "two"}, record)
    memory.info = {"dataset": "cifar10", "method": "ddm"}
    memory.name_classes({9: "cat", 2: "dog"})
    return memory


def step_of(memory):
    """What a pixel code of 255 is in network input, by channel."""
    std = [1.0] * memory.images.shape[1] if memory.normalization is None else memory.normalization.std
    return torch.tensor(std).view(-1, 1, 1) * 255


def difference(one, other):
    """The largest, in pixel codes."""
    return float(((one.images - other.images).abs() * step_of(one)).max())


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_read_back_with_all_that_is_known(to, tmp_path):
    memory = mixed()
    exported = memory.export(tmp_path / "out", to)
    loaded = ReplayMemory.load(exported.path, dataset="cifar10")
    assert loaded.labels.tolist() == memory.labels.tolist() and loaded.task_labels.tolist() == [2, 2, 2, 0, 0]
    assert loaded.class_names == {9: "cat", 2: "dog"} and loaded.info["method"] == "ddm"
    assert [slot.key for slot in loaded.slots.values()] == ["nine", "two"]
    assert loaded.normalization == NORMALIZATION
    assert difference(memory, loaded) <= exported.error + 1e-3
    assert torch.equal(loaded.class_images(2), memory.class_images(2)), "real pictures are exact"
    assert loaded.record == (memory.record if to == "npz" else [])
    with pytest.raises(ValueError, match="is a memory of 'cifar10', not of 'digits'"):
        ReplayMemory.load(exported.path, dataset="digits")


def normalizations(channels):
    """One of so many channels, or none."""
    values = st.floats(0.125, 0.875, width=32)
    some = st.tuples(*[st.lists(values, min_size=channels, max_size=channels).map(tuple)] * 2)
    return st.none() | some.map(lambda both: Normalization(*both))


@st.composite
def memories(draw):
    """Memories of every store and decoder that suits the shape, of any labels and names."""
    channels = draw(st.sampled_from([1, 2, 3, 4, 6]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    stores = [
        name
        for name in STORES
        if name in ("uint8", "float32", "4bit", "2bit") or (channels in (1, 3) and available(name))
    ]
    store, pixels = draw(st.sampled_from(stores)), draw(st.sampled_from([None, 1, 3]))
    normalization = draw(normalizations(channels))
    labels = draw(st.lists(st.integers(-3, 30), min_size=1, max_size=3, unique=True))
    memory = ReplayMemory(draw(st.integers(1, 3)), normalization=normalization, store=store, pixels=pixels)
    decoding = draw(st.sampled_from(["tiles2", "none"])) if height % 2 == width % 2 == 0 else "none"
    spread = draw(st.sampled_from([0.0, 0.3, 40.0]))
    images = {}
    for label in labels:
        real = normalization is not None and draw(st.booleans())
        chance = torch.Generator().manual_seed(label + 100)
        shape = (memory.images_per_class, channels, height, width)
        if real:
            images[label] = torch.randint(0, 256, shape, generator=chance, dtype=torch.uint8)
        else:
            images[label] = spread * torch.randn(shape, generator=chance)
    memory.add(images, decoding=decoding)
    if draw(st.booleans()):
        memory.name_classes({label: draw(st.text(max_size=12)) for label in labels})
    return memory


@settings(deadline=None, max_examples=60)
@given(memory=memories(), to=st.sampled_from(list(FORMATS)), outside=st.sampled_from(["scale", "clip"]))
def test_whatever_is_exported_comes_back_to_the_error_that_is_said(tmp_path_factory, memory, to, outside):
    target = tmp_path_factory.mktemp("round") / "out"
    memory.save(target.parent / "own.safetensors")
    own = ReplayMemory.load(target.parent / "own.safetensors")
    assert torch.equal(own.images, memory.images) and own.memory_bytes == memory.memory_bytes
    (target.parent / "own.safetensors").unlink()
    channels = memory.images.shape[1]
    if to in EIGHT_BITS and channels not in (1, 3, 4):
        with pytest.raises(
            ValueError, match=f"{to} takes pictures of 1, 3, 4 channels, the memory has {channels}; .*npz"
        ):
            export(memory, target, to, outside=outside)
        assert os.listdir(target.parent) == []
        return
    exported = export(memory, target, to, outside=outside)
    loaded = ReplayMemory.load(exported.path)
    assert loaded.labels.tolist() == memory.labels.tolist() and loaded.classes == memory.classes
    assert loaded.class_names == memory.class_names
    assert difference(memory, loaded) <= exported.error + 1e-3 * (1 + float(memory.images.abs().max()))
    if to == "npz":
        assert exported.error == 0 and torch.equal(memory.images, loaded.images)
    elif outside == "scale":
        pixels = memory.images / (255 / step_of(memory))
        widest = float((pixels.flatten(1).max(1).values - pixels.flatten(1).min(1).values).max())
        assert exported.error <= max(1.0, widest) / 2 + 1e-2, "half a step of the widest image, or of a pixel code"
    loaded.save(target.parent / "again.safetensors")
    assert torch.equal(ReplayMemory.load(target.parent / "again.safetensors").images, loaded.images)


# ------------------------------------------------------------------ pixels outside the range of a picture


@pytest.mark.parametrize("to", EIGHT_BITS)
def test_pixels_outside_are_told_in_a_line_and_kept_or_cut(to, tmp_path, caplog):
    memory = ReplayMemory(3, normalization=NORMALIZATION)
    memory.add({0: floats(3), 1: 0.1 * floats(3, seed=2)})
    pixels = memory.images * torch.tensor(NORMALIZATION.std).view(3, 1, 1) + torch.tensor(NORMALIZATION.mean).view(
        3, 1, 1
    )
    outside = int(((pixels < -SLACK) | (pixels > 1 + SLACK)).sum())
    share = f"{outside} of 288 pixel values ({100 * outside / 288:.3g} %), in 3 of 6 images, lie outside [0, 1]: "
    kept = memory.export(tmp_path / "kept", to)
    (line,) = caplog.messages
    assert share in line and "kept by a scale and an offset an image in" in line and "\n" not in line
    assert kept.outside == outside and 0 < kept.error < 8
    caplog.clear()
    cut = memory.export(tmp_path / "cut", to, outside="clip")
    (line,) = caplog.messages
    assert share in line and f"cut to it, so what is read back differs by up to {cut.error:.3g} pixel codes" in line
    assert cut.error == pytest.approx(255 * float((pixels - pixels.clamp(0, 1)).abs().max()), abs=0.6)
    caplog.clear()
    assert difference(memory, ReplayMemory.load(cut.path)) == pytest.approx(cut.error, abs=1e-2)
    assert f"differ from those that were exported by at most {cut.error:.2g} pixel codes" in caplog.text


def test_pictures_within_their_range_are_pixel_codes_that_anyone_can_train_on(tmp_path, caplog):
    memory = ReplayMemory(2, normalization=NORMALIZATION)
    memory.add({0: codes(2), 1: codes(2, seed=1)})
    exported = memory.export(tmp_path / "pictures")
    assert exported.error == 0 and not exported.notice and not caplog.messages
    assert str(exported).endswith(
        "pictures: 4 images of 2 classes as png, " + str(exported).rsplit(", ", 2)[-2] + ", read back exactly"
    )
    folder = ImageFolder(tmp_path / "pictures")
    assert folder.classes == ["0", "1"]
    assert np.array_equal(np.array(folder[0][0]).transpose(2, 0, 1), memory.slots[0].codes[0].numpy())


# ------------------------------------------------------------------ what others read


def test_parquet_is_a_data_set_of_the_hub(tmp_path):
    memory = mixed()
    memory.name_classes([*"abcdefgh", "i", "cat"])
    memory.export(tmp_path / "set", "parquet")
    table = pq.read_table(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": [*"abcdefgh", "i", "cat"], "_type": "ClassLabel"}
    assert table.column("label").to_pylist() == memory.labels.tolist(), "labels stay, where every one has a name"
    assert table.column("image").to_pylist()[0]["path"] == "cat/0000.png"
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"][0]["path"] == "data/train-00000-of-00001.parquet"
    assert front["dataset_info"]["splits"][0]["num_examples"] == 5
    names = next(one for one in front["dataset_info"]["features"] if one["name"] == "label")["dtype"]["class_label"][
        "names"
    ]
    assert list(names.values()) == features["label"]["names"]
    assert "Data set: cifar10" in card and 'ReplayMemory.load("set")' in card and "scale" in card


def test_the_code_of_the_card_gives_the_training_images(tmp_path):
    memory = mixed()
    memory.export(tmp_path / "set", "parquet")
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[2].split("```")[0]
    rows = pq.read_table(tmp_path / "set" / "data").to_pylist()
    for row, image in zip(rows, memory.images):
        (tmp_path / "one.png").write_bytes(row["image"]["bytes"])
        found = {"row": {**row, "image": Image.open(tmp_path / "one.png")}, "torch": torch, "numpy": np}
        exec(code, found)
        steps = (found["network_input"].permute(2, 0, 1) - image).abs() * step_of(memory)
        assert float(steps.max()) < 8


@pytest.mark.filterwarnings("ignore")
def test_croissant_metadata_are_valid_and_give_the_records(tmp_path):
    croissant = pytest.importorskip("mlcroissant")
    memory = mixed()
    memory.export(tmp_path / "set", "parquet")
    found = croissant.Dataset(jsonld=tmp_path / "set" / "croissant.json")  # raises for errors
    assert not found.metadata.issues.errors
    records = list(found.records("images"))
    assert [record["images/label"] for record in records] == [1, 1, 1, 0, 0]
    assert records[0]["images/image"].size == (4, 4)
    assert [record["classes/name"] for record in found.records("classes")] == [b"dog", b"cat"] or [
        record["classes/name"] for record in found.records("classes")
    ] == ["dog", "cat"]


def test_arrays_are_those_of_the_memory(tmp_path):
    memory = mixed()
    memory.export(tmp_path / "arrays.npz")
    with np.load(tmp_path / "arrays.npz") as file:
        assert np.array_equal(file["images"], memory.images.numpy()) and file["images"].dtype == np.float32
        assert file["labels"].tolist() == memory.labels.tolist()
        assert file["class_labels"].tolist() == [2, 9] and file["class_names"].tolist() == ["dog", "cat"]
        assert file["mean"].tolist() == list(NORMALIZATION.mean)
    real = ReplayMemory(2, normalization=NORMALIZATION)
    real.add({0: codes(2)})
    real.export(tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as file:
        assert file["images"].dtype == np.uint8, "real pictures are codes"


def test_a_single_parquet_file_is_read_like_the_folder(tmp_path):
    memory = mixed()
    exported = memory.export(tmp_path / "one.parquet")
    assert exported.path == tmp_path / "one.parquet" and exported.path.is_file()
    memory.export(tmp_path / "folder", "parquet")
    files = [
        tmp_path / "one.parquet",
        tmp_path / "folder" / "data" / "train-00000-of-00001.parquet",
        tmp_path / "folder",
    ]
    first, *others = [ReplayMemory.load(path).images for path in files]
    assert all(torch.equal(first, other) for other in others)


# ------------------------------------------------------------------ pictures of others


def test_a_folder_of_pictures_by_others_is_a_memory(tmp_path):
    pixels = codes(4, size=5)
    for row, (name, file) in enumerate([("ant", "b.png"), ("ant", "a.png"), ("bee", "a.png"), ("bee", "b.bmp")]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row].permute(1, 2, 0).numpy()).save(tmp_path / "set" / name / file)
    (tmp_path / "set" / "bee" / "notes.txt").write_text("no picture")
    memory = ReplayMemory.load(tmp_path / "set")
    assert memory.class_names == {0: "ant", 1: "bee"} and memory.labels.tolist() == [0, 0, 1, 1]
    order = [1, 0, 2, 3]
    assert memory.normalization == measured_normalization(pixels[order])
    assert torch.equal(memory.images, memory.normalization.apply(pixels[order]))
    assert ReplayMemory.load(tmp_path / "set", normalization="cifar10").normalization == NORMALIZATIONS["cifar10"]
    with pytest.raises(ValueError, match="normalization must be one of .*, got 'cifar1'"):
        ReplayMemory.load(tmp_path / "set", normalization="cifar1")


def test_arrays_and_parquet_of_others_are_memories(tmp_path):
    pixels, labels = codes(4), [5, 0, 5, 0]
    np.savez(tmp_path / "a.npz", images=pixels.numpy(), labels=np.array(labels))
    memory = ReplayMemory.load(tmp_path / "a.npz", normalization="cifar10")
    assert memory.labels.tolist() == [0, 0, 5, 5]
    assert torch.equal(memory.images, NORMALIZATION.apply(pixels[[1, 3, 0, 2]]))
    exported = mixed().export(tmp_path / "a.parquet")
    table = pq.read_table(exported.path)
    kept = {b"huggingface": table.schema.metadata[b"huggingface"]}
    pq.write_table(table.replace_schema_metadata(kept).select(["image", "label"]), tmp_path / "b.parquet")
    plain = ReplayMemory.load(tmp_path / "b.parquet")
    assert plain.class_names == {0: "dog", 1: "cat"} and plain.labels.tolist() == [0, 0, 1, 1, 1]


# ------------------------------------------------------------------ names of folders


ODD = [
    "",
    "..",
    ".",
    "a/b",
    "a\\b",
    "A/B",
    "Straße",
    "STRASSE",
    "naïve",
    "nai\u0308ve",
    "con",
    "x" * 300,
    "🦜" * 40,
    " a ",
    "\x00",
    "名前",
]


def test_odd_names_are_safe_as_folders_and_come_back(tmp_path):
    memory = ReplayMemory(1, normalization=NORMALIZATION)
    memory.add({label: codes(1, seed=label) for label in range(len(ODD))})
    memory.name_classes(ODD)
    memory.export(tmp_path / "here" / "pictures")
    assert os.listdir(tmp_path / "here") == ["pictures"]
    folders = sorted(path.name for path in (tmp_path / "here" / "pictures").iterdir() if path.is_dir())
    assert len({name.casefold() for name in folders}) == len(ODD)
    assert all(
        len(name.encode()) <= 100 and name == name.strip(" .") and not set(name) & set('/\\:*?"<>|\0')
        for name in folders
    )
    assert {"名前", "a_b_3"} <= set(folders) and "con" not in folders
    loaded = ReplayMemory.load(tmp_path / "here" / "pictures")
    assert loaded.class_names == dict(enumerate(ODD)) and torch.equal(loaded.images, memory.images)
    again = ReplayMemory.load(memory.export(tmp_path / "set", "parquet").path)
    assert again.class_names == dict(enumerate(ODD))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.text(max_size=6) | st.sampled_from(["A", "a", "a_1", "A_0", "a_2", "Ａ", "İ", "i̇"]), min_size=1, max_size=8
    )
)
def test_folders_of_any_names_do_not_clash(names):
    from clreplay.memory.class_names import distinct, folder_names

    folders = folder_names(names, range(len(names)))
    assert len({name.casefold() for name in folders}) == len(names)
    assert all(name and name not in (".", "..") and Path(name).name == name for name in folders)
    assert len(set(distinct(names, range(len(names))))) == len(names)


def test_classes_without_names_lie_in_folders_that_are_sorted_as_labels(tmp_path):
    memory = ReplayMemory(1, normalization=NORMALIZATION)
    memory.add({label: codes(1, seed=label) for label in range(11)})
    memory.export(tmp_path / "pictures")
    assert ImageFolder(tmp_path / "pictures").classes == [f"{label:02d}" for label in range(11)]


# ------------------------------------------------------------------ what cannot be, and what must not be lost


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_is_replaced_only_when_asked_for(to, tmp_path):
    memory = mixed()
    path = memory.export(tmp_path / "out", to).path
    with pytest.raises(FileExistsError, match=r"out\S* exists already; choose another target, or pass overwrite=True"):
        memory.export(tmp_path / "out", to)
    other = ReplayMemory(2, normalization=NORMALIZATION)
    other.add({0: codes(2, seed=5)})
    other.export(tmp_path / "out", to, overwrite=True)
    assert ReplayMemory.load(path).classes == [0]
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("all of it")
    with pytest.raises(ValueError, match="home holds what no export wrote, so it is not replaced"):
        mixed().export(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "all of it"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is a file, the export is none|file is a file"):
        mixed().export(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    mixed().export(tmp_path / "empty", overwrite=True)


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_is_stopped_leaves_what_was_there_and_nothing_else(to, tmp_path, monkeypatch):
    memory = mixed()
    path = memory.export(tmp_path / "out", to).path
    before = {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}
    calls = []

    def stop(*arguments, **_):
        calls.append(1)
        if len(calls) > 1 or to == "npz":
            raise KeyboardInterrupt
        return b"\x89PNG"

    monkeypatch.setattr("clreplay.memory.formats.png_folder.encode_png", stop)
    monkeypatch.setattr("clreplay.memory.formats.parquet_file.encode_png", stop)
    monkeypatch.setattr("numpy.savez_compressed", stop)
    for target in ("out", "new"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            memory.export(tmp_path / target, to, overwrite=True)
    assert os.listdir(tmp_path) == [path.name]
    assert {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()} == before


def test_impossible_exports_are_refused_before_anything_is_written(tmp_path):
    for arguments, message in [
        ({"target": tmp_path / "a", "to": "gif"}, "to must be one of png, npz, parquet, got 'gif'"),
        ({"target": tmp_path / "a.safetensors"}, "ending of a memory's own file, which memory.save writes"),
        ({"target": tmp_path / "a", "outside": "wrap"}, "outside must be one of scale, clip, got 'wrap'"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixed().export(**arguments)
    with pytest.raises(ValueError, match="the memory is empty"):
        ReplayMemory(1).export(tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="other permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        mixed().save(tmp_path / "m.safetensors")
        for to in FORMATS:
            mixed().export(tmp_path / to, to)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 8
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("to", FORMATS)
def test_damage_is_an_error_that_names_the_file(to, tmp_path):
    path = mixed().export(tmp_path / "out", to).path
    victim = {"png": path / "dog" / "0001.png", "npz": path, "parquet": path / "data" / "train-00000-of-00001.parquet"}[
        to
    ]
    victim.write_bytes(victim.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"out.* (no picture that can be read|truncated|damaged)"):
        ReplayMemory.load(path)


def test_a_picture_folder_that_was_changed_is_told(tmp_path):
    path = mixed().export(tmp_path / "out").path
    (path / "dog" / "0001.png").unlink()
    with pytest.raises(ValueError, match="dog must have the 2 pictures of class 2 that memory.json names, got 1"):
        ReplayMemory.load(path)
    path = mixed().export(tmp_path / "two").path
    Image.new("RGB", (5, 4)).save(path / "dog" / "0001.png")
    with pytest.raises(ValueError, match="0001.png is a picture of 5 x 4 pixels and 3 channels, the others .* 4 x 4"):
        ReplayMemory.load(path)


@pytest.mark.parametrize("change", [
    lambda about: about.pop("classes"),
    lambda about: about.update(layout=2),
    lambda about: about["classes"][0].update(folder="../x"),
    lambda about: about.update(classes=3),
    lambda about: about.update(shape=[7, 4, 4]),
    lambda about: about.update(scale_and_offset={"a": 1}),
    lambda about: about["classes"].append(about["classes"][0]),
])  # fmt: skip
def test_a_damaged_description_is_told(change, tmp_path):
    path = mixed().export(tmp_path / "out").path
    about = json.loads((path / "memory.json").read_text())
    change(about)
    (path / "memory.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="out"):
        ReplayMemory.load(path)


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((7000, 1, 100, 100), np.uint8), labels=np.zeros(7000, int))
    with pytest.raises(ValueError, match=r"a.npz.* of [\d,]+ bytes says that it unpacks to 70,\d+,\d+"):
        ReplayMemory.load(tmp_path / "a.npz")
    rows = {"image": [b"0" * 1000] * 70_000, "label": [0] * 70_000}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(ValueError, match=r"a.parquet.* of [\d,]+ bytes says that it unpacks to 70,\d+,\d+"):
        ReplayMemory.load(tmp_path / "a.parquet")


def test_pictures_of_more_than_8_bits_or_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "set" / "cat" / "a.png")
    with pytest.raises(ValueError, match="a.png has more than 8 bits a channel .*; convert it to 8 bits"):
        ReplayMemory.load(tmp_path / "set")
    Image.new("RGB", (20, 20)).save(tmp_path / "set" / "cat" / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ValueError, match="a.png is no picture that can be read .*at most 300 pixels"):
        ReplayMemory.load(tmp_path / "set")


def test_a_run_folder_gives_its_memory_and_others_say_what_is_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no memory at .*: it has neither memory.safetensors, nor a folder a class"
    ):
        ReplayMemory.load(tmp_path)
    mixed().save(tmp_path / "memory-ddm.safetensors")
    assert ReplayMemory.load(tmp_path).classes == [9, 2]
    mixed().save(tmp_path / "memory-dm.safetensors")
    with pytest.raises(ValueError, match="several memories; pass one of memory-ddm.safetensors, memory-dm.safetensors"):
        ReplayMemory.load(tmp_path)
    mixed().save(tmp_path / "memory.safetensors")
    assert ReplayMemory.load(str(tmp_path)).classes == [9, 2]


@pytest.mark.parametrize("to", FORMATS)
def test_a_class_of_several_experiences_is_exported_in_turn_and_exactly(to, tmp_path):
    memory = ReplayMemory(5, normalization=NORMALIZATION)
    memory.add({4: codes(5, seed=1)}, sharing=True)
    memory.add({4: codes(2, seed=2)}, joined=[4])
    loaded = ReplayMemory.load(memory.export(tmp_path / "out", to).path)
    assert torch.equal(loaded.images, memory.images) and loaded.labels.tolist() == [4] * 5
    first, second = codes(5, seed=1), codes(2, seed=2)
    wanted = torch.stack([first[0], second[0], first[1], second[1], first[2]])
    assert torch.equal(memory.images, NORMALIZATION.apply(wanted))
    assert set(loaded.slots[4].parts) == {"codes"}, "pixel codes, not floats"
