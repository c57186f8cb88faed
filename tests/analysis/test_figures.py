"""Pictures: what lines, bands, legends and blocks hold; files; what is refused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from clreplay import analysis
from clreplay.analysis.figures import (
    OKABE_ITO,
    accuracy_figure,
    drop_figure,
    loss_figure,
    memory_figure,
    memory_styles,
)
from clreplay.data import ImageSet, Normalization
from clreplay.memory.replay_memory import ReplayMemory

Image = pytest.importorskip("PIL.Image")
LABELS = {"ddm": "DDM", "dm": "DM", "dsa": "DSA", "herding": "Herding", "random": "Random"}
FINAL = {"random": 24.8, "ddm": 39.9, "dm": 34.4}


def made_up(final=FINAL, steps=5, orders=2, networks=3):
    """Results whose accuracies fall from 60 to about the final value."""
    chance = np.random.RandomState(0)
    rows = [
        (memory, order, network, step, 20 * (step + 1), 60 - (60 - end) * (step + 1) / steps + chance.rand())
        for memory, end in final.items()
        for order in range(orders)
        for network in range(networks)
        for step in range(steps)
    ]
    return pd.DataFrame(rows, columns=["memory", "class_order", "network", "step", "classes_seen", "accuracy"])


def legend_of(figure):
    legend = figure.legends[0]
    return [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()


# --- Accuracy ---------------------------------------------------------------------------------------------------


def test_one_line_a_memory_through_the_means_best_first():
    results = made_up()
    figure = accuracy_figure(results, labels=LABELS)
    lines = figure.axes[0].lines
    texts, title = legend_of(figure)
    assert [text.split()[0] for text in texts] == ["DDM", "DM", "Random"]
    assert title == "final accuracy, mean ± std of\n2 class orders × 3 networks"
    ddm = results[results.memory == "ddm"].groupby("classes_seen").accuracy
    np.testing.assert_array_equal(lines[0].get_xdata(), [20, 40, 60, 80, 100])
    np.testing.assert_allclose(lines[0].get_ydata(), ddm.mean())
    last = ddm.get_group(100)
    assert texts[0] == f"DDM {last.mean():.1f} ± {last.std(ddof=0):.1f}"


def test_the_band_is_the_population_standard_deviation():
    results = made_up({"ddm": 40.0})
    (band,) = accuracy_figure(results).axes[0].collections
    points = band.get_paths()[0].vertices
    for seen, accuracies in results.groupby("classes_seen").accuracy:
        at_step = points[points[:, 0] == seen, 1]
        assert at_step.min() == pytest.approx(accuracies.mean() - np.std(accuracies.to_numpy()))
        assert at_step.max() == pytest.approx(accuracies.mean() + np.std(accuracies.to_numpy()))


def test_one_network_has_no_band():
    figure = accuracy_figure(made_up(orders=1, networks=1), labels=LABELS)
    texts, title = legend_of(figure)
    assert not figure.axes[0].collections
    assert all("±" not in text for text in [*texts, title]) and title.endswith("1 class order × 1 network")


def test_a_single_step_is_drawn_with_error_bars():
    figure = accuracy_figure(made_up({"ddm": 40.0}, steps=1))
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines][0] == [20]
    assert len(figure.axes[0].containers) == 1


def test_a_single_row_is_enough():
    figure = accuracy_figure(made_up({"ddm": 40.0}, steps=1, orders=1, networks=1))
    assert len(figure.axes[0].lines) == 1


def test_an_unfinished_memory_says_where_it_ends():
    results = made_up()
    figure = accuracy_figure(results[(results.memory != "ddm") | (results.step < 3)], labels=LABELS)
    texts, _ = legend_of(figure)
    assert next(text for text in texts if text.startswith("DDM")).endswith("at 60 classes")
    assert not any(text.endswith("classes") for text in texts if not text.startswith("DDM"))


def test_uneven_orders_and_networks_are_stated():
    results = made_up()
    missing = (results.memory == "dm") & (results.step == 4) & (results.class_order == 1)
    assert legend_of(accuracy_figure(results[~missing]))[1].endswith("1 to 2 class orders × 3 networks")
    missing = (results.memory == "dm") & (results.step == 4) & (results.network == 2)
    assert legend_of(accuracy_figure(results[~missing]))[1].endswith("2 class orders × 2 to 3 networks")


def test_a_memory_of_several_runs_keeps_its_colour_and_names_the_run():
    wide, slim = made_up({"ddm": 40.0, "dm": 30.0}).assign(run="wide"), made_up({"ddm": 35.0}).assign(run="slim")
    figure = accuracy_figure(pd.concat([wide, slim]))
    texts, _ = legend_of(figure)
    assert [text.rsplit(" ", 3)[0] for text in texts] == ["ddm (wide)", "ddm (slim)", "dm"]
    wide, slim, dm = figure.axes[0].lines
    assert wide.get_color() == slim.get_color() != dm.get_color()
    assert wide.get_linestyle() == "-" != slim.get_linestyle()


def test_runs_without_a_shared_memory_are_named_by_memory_alone():
    figure = accuracy_figure(pd.concat([made_up({"ddm": 40.0}).assign(run="a"), made_up({"dm": 35.0}).assign(run="b")]))
    assert [text.split()[0] for text in legend_of(figure)[0]] == ["ddm", "dm"]
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"-"}


def test_long_labels_leave_the_lines_their_room():
    figure = accuracy_figure(made_up(), labels={"ddm": "DDM with correlation only, " * 5}, title="A long heading " * 9)
    figure.draw_without_rendering()
    window, legend = figure.bbox, figure.legends[0].get_window_extent()
    assert figure.axes[0].get_position().width > 0.8
    assert window.x0 <= legend.x0 and legend.x1 <= window.x1 and window.y0 <= legend.y0


def test_the_drop_starts_at_zero_and_grows():
    figure = drop_figure(made_up(), labels=LABELS)
    assert [text.split()[0] for text in legend_of(figure)[0]] == ["Random", "DM", "DDM"]
    assert all(line.get_ydata()[0] == 0 and line.get_ydata()[-1] > 10 for line in figure.axes[0].lines)


# --- Colours ----------------------------------------------------------------------------------------------------


def test_a_memory_looks_the_same_in_every_line_up():
    alone, among = memory_styles(["ddm"]), memory_styles(["random", "mine", "dm", "ddm"])
    assert alone["ddm"] == among["ddm"]
    assert memory_styles(["mine"])["mine"] == among["mine"]


def test_memories_of_ones_own_differ_in_colour_and_marker():
    styles = memory_styles([*LABELS, "mine", "yours"])
    assert len({style.color for style in styles.values()}) == len({style.marker for style in styles.values()}) == 7
    assert {style.color for style in styles.values()} == set(OKABE_ITO.values())
    many = memory_styles(f"mine{i}" for i in range(8))
    assert len({style.marker for style in many.values()}) == 8


# --- Images -----------------------------------------------------------------------------------------------------

PLAIN = Normalization((0.5,), (0.5,))


def flat_set(classes=3, each=4, channels=1, size=2):
    """Every image of a class is one shade: class 0 black, the last class white."""
    shades = torch.linspace(0, 255, classes).to(torch.uint8).repeat_interleave(each)
    labels = torch.arange(classes).repeat_interleave(each)
    return ImageSet(shades[:, None, None, None].expand(-1, channels, size, size).contiguous(), labels)


def memory_of(images, classes, count=2, normalization=PLAIN):
    memory = ReplayMemory(images_per_class=count, normalization=normalization)
    memory.add({label: images.class_images(label)[:count] for label in classes})
    return memory


def grids(figure):
    return {axes.get_title(loc="left"): np.asarray(axes.images[0].get_array()) for axes in figure.axes}


def test_a_block_a_memory_beside_the_real_images():
    real = flat_set()
    memories, names = {"ddm": memory_of(real, [0, 1, 2])}, ["a_b", "c", "d"]
    figure = memory_figure(memories, real, class_names=names, labels=LABELS, columns=3)
    blocks = grids(figure)
    assert list(blocks) == ["Real", "DDM"]
    assert blocks["Real"].shape == (3 * 8 + 4, 3 * 8 + 4, 3)  # 2 pixels drawn as 8, gaps of 2
    assert blocks["DDM"].shape == (3 * 8 + 4, 2 * 8 + 2, 3)
    for block in blocks.values():
        assert (block[:8, :8] == 0).all() and (block[-8:, -8:] == 1).all()
        np.testing.assert_allclose(block[10:18, :8], 127 / 255, atol=1e-6)
    assert [text.get_text() for text in figure.texts] == ["a b", "c", "d", "the first 3 images of each class"]


def test_the_file_holds_the_blocks_pixel_by_pixel(tmp_path):
    real = ImageSet(torch.arange(2 * 25, dtype=torch.uint8).view(2, 1, 5, 5) * 5, torch.tensor([0, 1]))
    memories = {"ddm": memory_of(real, [1], count=1), "dm": memory_of(real, [0, 1], count=1)}
    figure = memory_figure(memories, real, class_names=["longer", "0"], path=tmp_path / "memory.png")
    picture = np.asarray(Image.open(tmp_path / "memory.png").convert("RGB"))
    for axes, block in zip(figure.axes, grids(figure).values(), strict=True):
        box = axes.get_window_extent()
        left, top = round(box.x0), round(len(picture) - box.y1)
        drawn = picture[top : top + block.shape[0], left : left + block.shape[1]]
        assert np.abs(drawn - block * 255.0).max() <= 1


def test_evenly_spaced_classes_when_there_are_too_many():
    real = flat_set(classes=21)
    memories = {"dm": memory_of(real, range(20, -1, -1))}
    figure = memory_figure(memories, real, class_names=[str(i) for i in range(21)], rows=5)
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["0", "5", "10", "15", "20", "5 of 21 classes, evenly spaced; the first 5 images of each class"]


def test_a_class_that_is_not_in_memory_stays_white():
    real = flat_set()
    memories = {"ddm": memory_of(real, [0, 1, 2]), "dm": memory_of(real, [0]), "dsa": memory_of(real, [1])}
    blocks = grids(memory_figure(memories, real, class_names="abc", rows=2))  # shows classes 0 and 2
    assert (blocks["dm"][:8, :8] == 0).all() and (blocks["dm"][-8:] == 1).all()
    assert (blocks["dsa"] == 1).all()


def test_condensed_images_beyond_the_pixel_range_are_clipped_for_the_eye_only():
    real = flat_set(channels=3)
    memory = ReplayMemory(images_per_class=1, normalization=Normalization((0.5,) * 3, (0.5,) * 3))
    memory.add({0: torch.tensor([-10.0, 10.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)})
    block = grids(memory_figure({"ddm": memory}, real, class_names="abc"))["ddm"]
    np.testing.assert_allclose(block[0, 0], [0, 1, 0.5], atol=1e-6)
    assert memory.images.max() == 10


def test_memories_that_cannot_be_drawn_are_refused():
    real = flat_set()
    memory = memory_of(real, [0, 2])
    with pytest.raises(ValueError, match="at least one memory, got none; read_memories"):
        memory_figure({}, real, class_names="abc")
    with pytest.raises(ValueError, match="'dm' is empty; add a class"):
        memory_figure({"dm": ReplayMemory(images_per_class=1)}, real, class_names="abc")
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), the real ones are \(3, 2, 2\).*the run's settings"):
        memory_figure({"dm": memory}, flat_set(channels=3), class_names="abc")
    with pytest.raises(ValueError, match="class_names must name label 2, got 2 names"):
        memory_figure({"dm": memory}, real, class_names="ab")
    with pytest.raises(ValueError, match="rows and columns must be at least 1, got 0 and 5"):
        memory_figure({"dm": memory}, real, class_names="abc", rows=0)


# --- Losses -----------------------------------------------------------------------------------------------------


def test_a_panel_a_loss_term_with_the_mean_over_experiences():
    memory = memory_of(flat_set(), [0])
    memory.record = [
        {"experience": e, "iteration": i, "mean_matching": e + i, "diversity": -1.0, "image_std": 1.0}
        for e in (0, 1)
        for i in (1, 5)
    ]
    figure = loss_figure({"random": memory_of(flat_set(), [0]), "ddm": memory}, labels=LABELS)
    assert [axes.get_ylabel() for axes in figure.axes] == ["mean matching", "diversity"]
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 1.5], [5, 5.5]])
    assert legend_of(figure)[0] == ["DDM"]


def test_memories_without_losses_are_refused():
    with pytest.raises(ValueError, match="no record of losses; selections like random"):
        loss_figure({"random": memory_of(flat_set(), [0])})


# --- Files ------------------------------------------------------------------------------------------------------


def test_the_file_has_the_same_bytes_every_time(tmp_path):
    for name in ("a.png", "b.png", "a.pdf", "b.pdf"):
        accuracy_figure(made_up(), title="five steps", path=tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    picture = Image.open(tmp_path / "a.png")
    picture.load()
    assert picture.size == (1080, 600) and set(picture.info) == {"dpi"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png"]


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in .png, .pdf, .svg, got .*accuracy.jpeg"):
        accuracy_figure(made_up(), path=tmp_path / "accuracy.jpeg")
    assert not list(tmp_path.iterdir())


def test_empty_results_are_refused_with_a_cure():
    with pytest.raises(ValueError, match="at least one row, got none; let the run finish its first step"):
        accuracy_figure(made_up()[:0])


def test_every_public_name_is_there_and_documented():
    for name in analysis.__all__:
        assert callable(getattr(analysis, name)) and getattr(analysis, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'styl_gap'"):
        analysis.styl_gap  # noqa: B018


def test_matplotlib_waits_for_the_first_picture_and_pyplot_for_ever(tmp_path):
    code = (
        "import sys, pandas as pd, clreplay, clreplay.analysis.figures as plots\n"
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
        "row = dict(memory='ddm', class_order=0, network=0, step=0, classes_seen=2, accuracy=50.0)\n"
        f"plots.accuracy_figure(pd.DataFrame([row]), path={str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
