"""``clreplay.condense``: images and labels in, a memory out; and what bad input gets."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import clreplay
from clreplay import condense
from clreplay.condensation import METHODS, RealImages, condense_experience, register
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.registry import Condensed
from clreplay.data import NORMALIZATIONS, Normalization
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.presets import default_preset
from clreplay.runtime.device import default_device

TINY = {"iterations": 3, "width": 4, "depth": 2, "real_batch": 6}


def tiny(images, labels, method="ddm", images_per_class=4, **options):
    return condense(images, labels, method, images_per_class, preset="smoke", device="cpu", **{**TINY, **options})


# ---------------------------------------------------------------- what comes out


def test_condense_gives_a_balanced_memory_with_its_record(pixels, global_chance_untouched):
    images, labels = pixels()
    with global_chance_untouched():
        memory = tiny(images, labels)
    assert isinstance(memory, clreplay.ReplayMemory)
    assert memory.images.shape == (12, 3, 8, 8) and memory.images.dtype == torch.float32
    assert memory.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert [row["iteration"] for row in memory.record] == [1, 2, 3]
    assert {"mean_matching", "moment_matching", "correlation_matching", "diversity"} <= set(memory.record[0])
    assert memory.info["method"] == "ddm"


def test_a_memory_says_what_it_is_and_what_it_was_made_with(pixels, tmp_path):
    images, labels = pixels()
    memory = tiny(
        images, labels, "dm", 1, normalization="cifar10", dataset="cifar10", class_names=["ant", "bee", "cat"]
    )
    memory.save(tmp_path / "m.safetensors")
    info = ReplayMemory.load(tmp_path / "m.safetensors").info
    assert info["class_names"] == ["ant", "bee", "cat"] and info["dataset"] == "cifar10" and info["method"] == "dm"
    assert info["settings"]["iterations"] == 3 and info["settings"]["real_batch"] == 6
    (made,) = info["made_with"]
    assert made["clreplay"] == clreplay.__version__ and made["commit"]
    assert memory.dataset().classes == ["ant", "bee", "cat"]


@pytest.mark.parametrize("names", ["abc", ["ant", "bee"], {0: "ant"}, [1, 2, 3]])
def test_names_that_do_not_name_every_class_are_refused_before_any_work(names, pixels, monkeypatch):
    monkeypatch.setattr("clreplay.api.condense_experience", None)
    with pytest.raises(ValueError, match="class_names must"):
        tiny(*pixels(), class_names=names)


@pytest.mark.parametrize("method", ["random", "herding"])
def test_selections_are_exact_copies_of_real_images(method, pixels):
    images, labels = pixels()
    options = {} if method == "random" else {"width": 4, "depth": 2, "updates": 2}
    memory = condense(images, labels, method, 3, preset="smoke", normalization="cifar10", **options)
    for label in range(3):
        for code in memory.slots[label].codes:
            assert any(torch.equal(code, image) for image in images[labels == label])
    assert memory.memory_bytes == 9 * 3 * 64
    assert memory.record == []


def test_labels_need_not_start_at_zero_nor_be_int64_nor_a_tensor(pixels):
    images, labels = pixels()
    memory = condense(images.numpy(), (labels * 7 + 4).tolist(), "random", 2)
    assert memory.labels.tolist() == [4, 4, 11, 11, 18, 18]
    column = pd.Series(labels.numpy(), index=range(100, 100 + len(labels)))  # not the positions
    assert condense(images, column, "random", 2).labels.tolist() == [0, 0, 1, 1, 2, 2]
    small = condense(images, labels.to(torch.uint8), "random", 2)
    assert small.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dog"] * 18, "got str 'cat'; number the classes, such as with numpy.unique"),
        (None, "got NoneType None; number the classes"),
        ([[0], [0, 1]], "got rows of different lengths"),
        ([-1] * 36, "labels must be at least 0, got -1, .*leave out images without a label"),
    ],
)
def test_what_is_no_label_is_said_with_the_cure(labels, message, pixels):
    with pytest.raises(ValueError, match=message):
        condense(pixels()[0], labels, "random", 2)


def test_a_budget_of_all_images_is_shared_and_a_small_class_kept_whole(pixels, caplog):
    images, labels = pixels()
    uneven = (labels != 1) | (torch.cumsum(labels == 1, 0) <= 3)  # 12, 3 and 12 of a class
    memory = condense(images[uneven], labels[uneven], "random", mem_size=17)
    assert memory.mem_size == 17 and torch.bincount(memory.labels).tolist() == [6, 3, 5]
    assert "class 1: fewer images than the share: kept whole" in caplog.text
    asked = tiny(images[uneven], labels[uneven], "dm", 5)
    assert torch.bincount(asked.labels).tolist() == [5, 3, 5]
    kept = RealImages(images[uneven], labels[uneven], asked.normalization).normalised(1)
    assert torch.equal(asked.class_images(1), kept)  # real ones, to the bit


def test_the_same_seed_gives_the_same_bytes(pixels):
    images, labels = pixels()
    first, again, other = tiny(images, labels), tiny(images, labels), tiny(images, labels, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_a_normalization_by_name_by_object_and_floats_agree(pixels):
    images, labels = pixels()
    known = NORMALIZATIONS["cifar10"]
    memories = [
        tiny(images, labels, normalization="cifar10"),
        tiny(images, labels, normalization=known),
        tiny(known.apply(images), labels),
        tiny(known.apply(images).double(), labels),
    ]
    assert all(memory.normalization == known for memory in memories)
    assert all(torch.equal(memory.images, memories[0].images) for memory in memories[1:])


def test_floats_that_no_pixel_codes_explain_stay_floats(pixels):
    images, labels = pixels()
    floats = NORMALIZATIONS["cifar10"].apply(images) * 1.01
    assert tiny(floats, labels).normalization is None
    asked = tiny(floats, labels, normalization="cifar10")
    assert asked.normalization == NORMALIZATIONS["cifar10"]  # what is said of images is kept
    assert torch.equal(asked.images, tiny(floats, labels).images)


def test_floats_of_to_tensor_are_normalised_as_is_asked(pixels):
    images, labels = pixels()
    asked = {"method": "random", "images_per_class": 3, "normalization": "cifar10"}
    expected = condense(images, labels, **asked)
    found = condense(images.float() / 255, labels, **asked)
    assert found.normalization == expected.normalization == NORMALIZATIONS["cifar10"]
    assert torch.equal(found.images, expected.images)
    everything = {**asked, "images_per_class": 12}
    between = condense(images.float().sub(0.25).clamp(0, 254) / 254, labels, **everything)  # such as resized ones
    torch.testing.assert_close(
        between.images.sort(0).values, condense(images, labels, **everything).images.sort(0).values, atol=0.05, rtol=0
    )
    assert between.normalization == NORMALIZATIONS["cifar10"]


def test_floats_that_are_not_normalised_as_is_said_are_refused(pixels):
    images, labels = pixels()
    with pytest.raises(ValueError, match=r"not normalised with .*reach from \d+ to \d+, its pixels from -2.43 to 2.75"):
        tiny(images.float(), labels, normalization="cifar10")
    with pytest.raises(ValueError, match="not normalised with"):
        tiny(NORMALIZATIONS["cifar10"].apply(images) * 6, labels, normalization="cifar10")


def test_floats_far_out_without_a_normalization_are_warned_of(pixels, caplog):
    images, labels = pixels()
    condense(images.float(), labels, "random", 2)
    assert "images reach from" in caplog.text and "pass pixel codes as uint8" in caplog.text
    caplog.clear()
    condense(NORMALIZATIONS["cifar10"].apply(images) * 1.5, labels, "random", 2)
    assert not caplog.text


@pytest.mark.parametrize("name", ["half", "mnist"])
def test_a_normalization_of_one_channel_serves_any_number(name, pixels):
    images, labels = pixels()
    whole = condense(images, labels, "random", 2, normalization=name)
    assert whole.normalization == NORMALIZATIONS[name].expand(3)
    floats = condense(whole.normalization.apply(images), labels, "random", 2, normalization=name)
    assert floats.normalization == whole.normalization and torch.equal(floats.images, whole.images)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_do_not_matter(off, pixels):
    images, labels = pixels()
    expected = tiny(images, labels, normalization="cifar10")
    with off():
        found = tiny(NORMALIZATIONS["cifar10"].apply(images), labels)
        assert torch.is_grad_enabled() is False
    assert torch.equal(found.images, expected.images)


def test_numpy_s_integers_are_integers(pixels, tmp_path):
    memory = tiny(*pixels(), images_per_class=np.int64(2), seed=np.int64(3))
    memory.save(tmp_path / "m.safetensors")
    assert torch.equal(memory.images, tiny(*pixels(), images_per_class=2, seed=3).images)


def test_a_recipe_or_a_callable_is_a_method(pixels):
    images, labels = pixels()

    def first(real, counts, settings, *, seed, device, progress=None):
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})

    memory = condense(images, labels, first, 2, normalization="cifar10")
    assert torch.equal(memory.slots[1].codes, images[labels == 1][:2]) and memory.info["method"] == "first"
    recipe = clreplay.recipes.recipe.load_recipe("dm")
    assert torch.equal(tiny(images, labels, recipe).images, tiny(images, labels, "dm").images)


def test_another_default_type_is_refused(pixels):
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match="the default is torch.float64; call torch.set_default_dtype"):
            tiny(*pixels())
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_a_normalization_the_images_own_mean_and_deviation_are_taken(pixels):
    images, labels = pixels()
    memory = condense(images, labels, "random", 12)
    scaled = images.double() / 255
    for channel in range(3):
        values = scaled[:, channel]
        mean = float(values.sum() / values.numel())
        assert memory.normalization.mean[channel] == pytest.approx(mean, rel=1e-9)
        deviation = math.sqrt(float((values - mean).square().sum() / values.numel()))
        assert memory.normalization.std[channel] == pytest.approx(deviation, rel=1e-6)
    everything = memory.images.double()
    assert everything.mean((0, 2, 3)).abs().max() < 1e-5
    assert (everything.square().mean((0, 2, 3)) - 1).abs().max() < 1e-5


def test_a_constant_channel_stays_finite(pixels):
    images, labels = pixels()
    images[:, 1] = 77
    memory = tiny(images, labels)
    assert torch.isfinite(memory.images).all()


def test_progress_is_told(pixels):
    told = []
    tiny(*pixels(), progress=lambda *report: told.append(report))
    assert told == [(1, 3, "iterations"), (2, 3, "iterations"), (3, 3, "iterations")]


def test_print_as_progress_gets_lines(pixels, capsys):
    tiny(*pixels(), progress=print)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("  ddm, condensing: 1/3 iterations, ") and first.split("; ")[0].endswith(" left")
    assert last.startswith("  ddm, condensing: 3/3 iterations, done in ")
    assert "; mean " in first and ", diversity " in last


def test_a_progress_that_fits_nothing_is_refused_before_any_work(pixels):
    with pytest.raises(ValueError, match="progress must be called with"):
        tiny(*pixels(), progress=lambda done, total: pytest.fail("nothing may be done"))


def test_an_own_recipe_and_an_own_method_can_be_used(pixels, tmp_path):
    before = dict(METHODS)

    @register("first", METHODS["random"].settings)
    def first(real, counts, settings, *, seed, device, progress=None):
        return Condensed({label: real.raw(label)[: counts[label]] for label in real.classes})

    try:
        (tmp_path / "mine.yaml").write_text("method: first\n")
        images, labels = pixels()
        memory = condense(images, labels, tmp_path / "mine.yaml", 2, normalization="cifar10")
        assert torch.equal(memory.slots[1].codes, images[labels == 1][:2])
        with pytest.raises(ValueError, match="method 'first' is registered already"):
            register("first", METHODS["random"].settings)(first)
    finally:
        METHODS.clear()
        METHODS.update(before)


# ---------------------------------------------------------------- experiences


def test_experiences_fill_one_memory_and_number_their_record(pixels):
    images, labels = pixels(4)
    memory = ReplayMemory(mem_size=7)
    configured = clreplay.recipes.recipe.load_recipe("dm").configured("smoke", TINY)
    for classes in ((0, 1, 2), (3,)):
        rows = torch.isin(labels, torch.tensor(classes))
        real = RealImages(NORMALIZATIONS["cifar10"].apply(images[rows]), labels[rows])
        seconds = condense_experience(memory, real, configured, seed=0, device=torch.device("cpu"), task_labels={3: 5})
        assert seconds > 0
    assert [len(slot) for slot in memory.slots.values()] == [2, 2, 2, 1]
    assert [row["experience"] for row in memory.record] == [0] * 3 + [1] * 3
    assert memory.slots[3].task_label == 5 and memory.slots[3].key == real.keys[3]


def refuse(*arguments, **options):
    raise AssertionError("the condenser must not be reached")


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (ReplayMemory(mem_size=2), r"mem_size must be at least the number of classes seen \(3\), got 2"),
        (ReplayMemory(images_per_class=13), "class 0 has 12 images, fewer than the 13 asked"),
        (ReplayMemory(mem_size=60), "class 0 has 12 images, fewer than the 20 asked"),
    ],
)
def test_an_impossible_quota_is_refused_before_any_work(memory, message, pixels):
    real = RealImages(*pixels(), NORMALIZATIONS["cifar10"])
    with pytest.raises(ValueError, match=message):
        condense_experience(memory, real, ConfiguredMethod.of_callable(refuse), seed=0, device=torch.device("cpu"))
    assert memory.classes == []


def test_a_class_that_comes_back_is_refused_before_any_work(pixels):
    real = RealImages(*pixels(), NORMALIZATIONS["cifar10"])
    memory = ReplayMemory(images_per_class=2)
    memory.add({1: torch.randn(2, 3, 8, 8)})
    with pytest.raises(ValueError, match="class 1 is in memory already; a class may arrive in one experience only"):
        condense_experience(memory, real, ConfiguredMethod.of_callable(refuse), seed=0, device=torch.device("cpu"))


# ---------------------------------------------------------------- bad input


def nan_at(images, row):
    images = images.float()
    images[row, 0, 0, 0] = float("nan")
    return images


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x.permute(0, 2, 3, 1), y), r"which look like \(n, h, w, c\); permute them"),
        (lambda x, y: (x[0], y), r"images must have shape \(n, c, h, w\), got \(3, 8, 8\)"),
        (lambda x, y: (x[:0], y[:0]), "images must not be empty, got 0 images"),
        (lambda x, y: (x.long(), y), "images must be uint8 or floating point, got torch.int64"),
        (lambda x, y: (nan_at(x, 5), y), "images must be finite, image 5 holds NaN or infinity"),
        (lambda x, y: (x.double() * 1e300, y), "images must be finite, image 0 holds NaN or infinity"),
        (lambda x, y: (x, torch.eye(3)[y]), r"labels must be 36 integers, .*got torch.float32 \(36, 3\); .*one-hot"),
        (lambda x, y: (x, torch.eye(3)[y].long()), r"labels must be 36 integers.*torch.int64 \(36, 3\)"),
        (lambda x, y: (x, y.float()), "labels must be 36 integers.*torch.float32"),
        (lambda x, y: (x, y > 0), "labels must be 36 integers.*torch.bool"),
        (lambda x, y: (x, y[:-1]), r"labels must be 36 integers.*\(35,\); pass a label for every image"),
        (lambda x, y: (x, ["cat", "dog", "cow"] * 12), "labels must be 36 integers.*got str .*number the classes"),
        (lambda x, y: (x, np.array(["cat"] * 36)), "labels must be 36 integers.*got str .*number the classes"),
        (lambda x, y: (x, None), "labels must be 36 integers.*got NoneType"),
        (lambda x, y: (list(x), y), r"images must be one tensor \(n, c, h, w\), got a list; torch.stack them"),
        (lambda x, y: ([object()], y), r"images must be a tensor or an array \(n, c, h, w\), got list"),
        (lambda x, y: (x[:, :1].expand(-1, 2, -1, -1), y), "normalization has 3 channels and the images 2"),
        (lambda x, y: (x[:, :1], y), "normalization has 3 channels and the images 1; they must agree"),
    ],
    ids="last axes empty integers nan float64 one-hot one-hot-integers float bool length words array none list "
    "objects two grey".split(),
)
def test_unusable_images_and_labels_are_refused(spoil, message, pixels):
    images, labels = spoil(*pixels())
    with pytest.raises(ValueError, match=message):
        tiny(images, labels, normalization="cifar10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_class": 13}, "class 0 has 12 images, fewer than the 13 asked; lower images_per_class"),
        ({"images_per_class": 0}, "images_per_class must be an integer of at least 1, got 0"),
        ({"method": "ddmm"}, "unknown memory 'ddmm'; did you mean 'ddm'"),
        ({"iteration": 3}, "unknown key 'iteration', did you mean 'iterations'"),
        ({"lr_img": "fast"}, "lr_img must be float, got 'fast'"),
        ({"normalization": "cifar"}, "normalization must be one of cifar10, .*got 'cifar'"),
        ({"normalization": (0.5, 0.5)}, "normalization must be a Normalization, a name or None, got tuple"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"seed": "0"}, "seed must be an integer, got '0'"),
        ({"progress": "bar"}, "progress must be called with .*got 'bar'"),
        ({"method": 3}, "method must be a memory's name, a recipe or its path, or a callable, got int"),
        ({"device": "meta"}, "device must hold numbers, got 'meta'; take one like cpu, cuda or cuda:1"),
        ({"device": "gpu"}, "device must be like cpu, cuda or cuda:1, got 'gpu'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_unusable_settings_are_refused(options, message, pixels):
    with pytest.raises(ValueError, match=message):
        condense(*pixels(), **{"preset": "smoke", "images_per_class": 2, **TINY, **options})


def test_an_absent_gpu_is_an_error_and_none_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but PyTorch sees no GPU; take cpu"):
        default_device("cuda")


def test_a_device_that_this_pytorch_cannot_use_is_said_before_any_work():
    with pytest.raises(ValueError, match="device 'mps' was asked for, but this PyTorch cannot use it"):
        default_device("mps")


def test_pixel_codes_need_a_normalization(pixels):
    with pytest.raises(ValueError, match="normalization is required with uint8 images"):
        RealImages(*pixels())
    with pytest.raises(ValueError, match="images must be a tensor.*ndarray"):
        RealImages(np.zeros((2, 3, 4, 4)), torch.tensor([0, 1]))


def test_images_too_small_for_the_network_are_refused(pixels):
    with pytest.raises(ValueError, match="depth 3 needs images of at least 8 pixels, got 4"):
        tiny(*pixels(size=4), depth=3)


def test_real_images_know_their_rows_and_classes(pixels):
    images, labels = pixels(each=[3, 5, 4])
    real = RealImages(images, labels + 4, Normalization((0.5,) * 3, (0.5,) * 3))
    assert real.classes == [4, 5, 6] and real.shape == (3, 8, 8)
    assert [real.count(label) for label in real.classes] == [3, 5, 4]
    assert torch.equal(real.raw(5), images[labels == 1])
    assert torch.equal(images[real.rows(6)], real.raw(6))
    torch.testing.assert_close(real.normalised(5), images[labels == 1].float() / 255 * 2 - 1)


# ---------------------------------------------------------------- the preset that nobody asked for, and progress


def on_a_cpu(pixels, monkeypatch, **options):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return condense(*pixels(), "dm", 2, normalization="cifar10", depth=2, **options)


def test_on_a_cpu_the_small_preset_is_taken_and_told_with_what_the_paper_s_would_take(pixels, monkeypatch, caplog):
    monkeypatch.setattr("clreplay.recipes.presets.seconds_per_class_iteration", lambda *_: 0.1)
    short = {"iterations": 2, "width": 4}
    memory = on_a_cpu(pixels, monkeypatch, **short)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "dm: preset 'cpu' was chosen, because the work is on a CPU; in brackets the paper's: lr_img 10.0 (1.0), "
        "real_batch 64 (256). preset='paper' would take less than half a minute here; preset='cpu' leaves this line out"
    )
    caplog.clear()
    asked = on_a_cpu(pixels, monkeypatch, preset="cpu", **short)
    assert torch.equal(memory.images, asked.images) and not caplog.records
    # Settings that are given go before those of the preset; if they are all that differs, there is nothing to tell.
    given = on_a_cpu(pixels, monkeypatch, lr_img=1.0, real_batch=256, **short)
    paper = on_a_cpu(pixels, monkeypatch, preset="paper", **short)
    assert torch.equal(given.images, paper.images) and not torch.equal(given.images, memory.images)
    assert not caplog.records


def test_what_the_paper_s_settings_take_is_tried(pixels, monkeypatch, caplog):
    on_a_cpu(pixels, monkeypatch, iterations=2)
    assert "width 32 (128)" in caplog.text and "preset='paper' would take" in caplog.text
    caplog.clear()
    condense(*pixels(), "random", 2, normalization="cifar10")
    assert not caplog.records  # the same under all presets


def test_the_default_preset_is_the_paper_s_on_a_gpu():
    assert [default_preset(device) for device in ("cuda", torch.device("cuda:1"), "cpu")] == ["paper", "paper", "cpu"]


def test_progress_is_shown_on_a_terminal_only(pixels, monkeypatch, capsys):
    tiny(*pixels())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tiny(*pixels())
    assert "ddm, condensing" in capsys.readouterr().err
    tiny(*pixels(), progress=False)
    assert capsys.readouterr().err == ""
    told = []
    tiny(*pixels(), progress=lambda *one: told.append(one))
    assert capsys.readouterr().err == "" and told[-1][:2] == (3, 3)


@pytest.mark.parametrize(
    ("key", "meant"), [("images_per_clas", "images_per_class"), ("prset", "preset"), ("mem_byte", "mem_bytes")]
)
def test_a_misspelt_argument_gets_the_nearest(pixels, key, meant):
    with pytest.raises(ValueError, match=f"unknown argument '{key}', did you mean '{meant}'"):
        condense(*pixels(), "dm", **{key: 3})
    with pytest.raises(ValueError, match="unknown key 'iterationz', did you mean 'iterations'"):
        condense(*pixels(), "dm", iterationz=3)


def test_a_data_set_s_name_that_is_nearly_a_known_one_is_warned_of(pixels, caplog):
    tiny(*pixels(), dataset="cifar11")
    assert "dataset 'cifar11' is none that recipes have settings for; did you mean 'cifar10'?" in caplog.text
    caplog.clear()
    tiny(*pixels(), dataset="flowers")
    assert not caplog.records
    with pytest.raises(ValueError, match="dataset 'CIFAR-10' is written 'cifar10'"):
        tiny(*pixels(), dataset="CIFAR-10")


# ---------------------------------------------------------------- importing


def in_a_new_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_condense_is_a_function_also_after_its_package_was_imported():
    code = "import clreplay.condensation; from clreplay import condense, ReplayMemory; print(callable(condense))"
    assert in_a_new_python(code) == "True\n"


def test_importing_the_library_stays_light():
    heavy = "avalanche torchvision pandas matplotlib sklearn pyarrow".split()
    check = f"import sys; print([name for name in {heavy} if name in sys.modules])"
    assert in_a_new_python(f"import clreplay; {check}") == "[]\n"
    assert in_a_new_python(f"from clreplay import condense, ReplayMemory, ConvNet, recipes; {check}") == "[]\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'clreplay' has no attribute 'condensed'"):
        clreplay.condensed


def test_the_data_set_is_recorded_and_checked_on_loading(pixels, tmp_path):
    images, labels = pixels()
    tiny(images, labels, dataset="flowers").save(tmp_path / "memory.safetensors")
    assert ReplayMemory.load(tmp_path / "memory.safetensors", dataset="flowers").info["dataset"] == "flowers"
    with pytest.raises(ValueError, match="of 'flowers', not of 'cifar10'"):
        ReplayMemory.load(tmp_path / "memory.safetensors", dataset="cifar10")


def test_what_was_chosen_on_the_spot_is_recorded(pixels):
    memory = tiny(*pixels())
    plain = {"kernels": "eager", "layout": "contiguous", "parallel": "operators", "precision": "float32"}
    assert memory.info["chosen"] == {**plain, "classes_at_once": 1}  # so little work is not worth measuring


def test_a_condenser_that_leaves_a_class_out_is_found_out(pixels):
    images, labels = pixels()
    real = RealImages(images, labels, NORMALIZATIONS["cifar10"])
    memory = ReplayMemory(images_per_class=2, normalization=real.normalization)

    def forgetful(real, counts, settings, **_):
        return Condensed({0: real.raw(0)[:2]})

    with pytest.raises(ValueError, match=r"gave classes \[0\], but was asked for \[0, 1, 2\]"):
        condense_experience(memory, real, ConfiguredMethod.of_callable(forgetful), seed=0, device=torch.device("cpu"))
    assert len(memory) == 0


@pytest.mark.parametrize("store", ["uint8", "2bit", "webp"])
def test_a_budget_in_bytes_decides_how_many_images_are_stored(store, pixels):
    images, labels = pixels(3, 40, size=16)
    memory = condense(images, labels, "random", normalization="cifar10", store=store, mem_bytes=30_000)
    assert memory.memory_bytes <= 30_000 and memory.classes == [0, 1, 2]
    assert all(slot.bytes <= 10_000 for slot in memory.slots.values())
    assert [len(slot) for slot in memory.slots.values()] == {"uint8": [13] * 3, "2bit": [40] * 3}.get(
        store, [len(slot) for slot in memory.slots.values()]
    )
    assert len(condense(images, labels, "random", normalization="cifar10")) == 30  # ten a class where nothing is said
    with pytest.raises(ValueError, match="one of them; got images_per_class, mem_bytes"):
        condense(images, labels, "random", 5, mem_bytes=30_000)
