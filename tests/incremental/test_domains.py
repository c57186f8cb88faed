"""The domain-incremental experiment: its memory, its numbers, both hosts, going on, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from run_helpers import QUIET, TINY, memory_bytes_of, same

from clreplay.condensation.matching import engine as matching
from clreplay.data import load_digits
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.report_page import reported
from clreplay.incremental.results_file import COLUMNS, DOMAIN_COLUMNS
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import RunFolder, SettingsMismatch
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory

LEARNER = {key: value for key, value in TINY.items() if key.startswith("train.")}
NUMBERS = [name for name in COLUMNS if not name.endswith("seconds")]


@pytest.fixture
def settings() -> ContinualSettings:
    return ContinualSettings(
        dataset="digits", domains=("rotate:0,40", "invert"), memories=("random", "ddm"), images_per_class=5,
        preset="smoke", host="none", device="cpu", networks=2, overrides=TINY,
    )  # fmt: skip


def tables(folder):
    return pd.read_csv(folder / "results.csv")[NUMBERS], pd.read_csv(folder / "domains.csv")


def test_a_run_leaves_its_numbers_by_domain_and_a_memory_that_all_domains_share(settings, tmp_path):
    folder = run_experiment(settings, tmp_path / "run", QUIET)
    results, domains = tables(folder)
    assert len(results) == 2 * 3 * 2 and list(domains.columns) == list(DOMAIN_COLUMNS)
    assert len(domains) == 2 * 2 * (1 + 2 + 3)
    assert results.memory_images.eq(50).all() and results.classes_seen.eq(10).all()
    # The accuracy on all test images is the mean over domains, whose test sets are of one size.
    of_all = domains.groupby(["memory", "step", "network"]).accuracy.mean()
    found = results.set_index(["memory", "step", "network"]).accuracy.sort_index()
    assert (of_all - found).abs().max() < 1e-3
    for name in ("random", "ddm"):
        memory = ReplayMemory.load(folder / f"memory-{name}.safetensors", dataset="digits")
        assert [[len(one) for one in memory.sources(label)] for label in range(10)] == [[2, 2, 1]] * 10
        assert memory.info["domains"] == ["rotate:0", "rotate:40", "invert"] and memory.total_sources == 3
    for name in ("accuracy.png", "memory.png"):
        assert (folder / name).stat().st_size > 0
    again = reported(folder)  # with the images of all domains, found by what settings.yaml says
    assert again.real is not None and again.real.images.shape[1:] == (1, 32, 32)
    of_zero = load_digits().train.class_images(0)[0]
    shown = again.real.class_images(0)
    assert torch.equal(shown[0], of_zero) and torch.equal(shown[2], 255 - of_zero)
    written = yaml.safe_load((folder / "settings.yaml").read_text())
    assert written["experiment"] == "domain-incremental" and written["domains"] == memory.info["domains"]


def test_each_domain_leaves_its_own_images_and_they_are_only_dropped(settings, tmp_path):
    folder = run_experiment(replace(settings, overrides=LEARNER, memories=("random",)), tmp_path / "run", QUIET)
    memory, train = ReplayMemory.load(folder / "memory.safetensors"), load_digits().train
    for label in range(10):
        images = train.class_images(label)
        for source, real in zip((0, 2), (images, 255 - images)):
            kept = memory.sources(label)[source].codes
            assert all((real == code).flatten(1).all(1).any() for code in kept)


@pytest.mark.slow
def test_the_hosts_agree(settings, tmp_path):
    pytest.importorskip("avalanche")
    folders = [run_experiment(replace(settings, host=host), tmp_path / host, QUIET) for host in ("none", "avalanche")]
    left, right = map(tables, folders)
    assert left[0].equals(right[0]) and left[1].equals(right[1])
    for name in ("random", "ddm"):
        assert same(*(memory_bytes_of(folder / f"memory-{name}.safetensors") for folder in folders))


@pytest.mark.parametrize(
    ("host", "at"), [("none", 5), pytest.param("avalanche", 3, marks=pytest.mark.slow)]
)  # in the third and the second domain
def test_a_stopped_run_goes_on_to_the_same_bytes(settings, tmp_path, monkeypatch, host, at):
    wanted, done = replace(settings, memories=("ddm",), networks=1, host=host), []
    unbroken = run_experiment(wanted, tmp_path / "unbroken", QUIET)
    step = matching.MatchingEngine.step

    def stopping(self):
        done.append(1)
        if len(done) == first + at and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(matching.MatchingEngine, "step", lambda self: done.append(1) or step(self))
    plan_and_forecast = run_experiment(wanted, tmp_path / "counted", QUIET)
    first = len(done) - 3 * 2  # those of the forecast; then two iterations a domain
    done.clear()
    monkeypatch.setattr(matching.MatchingEngine, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(wanted, tmp_path / "stop", QUIET)
    assert len(tables(tmp_path / "stop")[0]) == (at - 1) // 2
    again = run_experiment(wanted, tmp_path / "stop", QUIET)
    for folder in (again, plan_and_forecast):
        assert same(*(memory_bytes_of(one / "memory.safetensors") for one in (unbroken, folder)))
        assert all(one.equals(two) for one, two in zip(tables(unbroken), tables(folder)))


def test_a_run_that_was_killed_between_its_two_files_repeats_the_step(settings, tmp_path):
    wanted = replace(settings, overrides=LEARNER, memories=("random",), networks=1)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    before = tables(folder)
    rows = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join(rows[:-1]) + "\n")
    run_experiment(wanted, folder, QUIET)
    assert all(one.equals(two) for one, two in zip(before, tables(folder)))


def test_a_step_whose_memory_has_shrunk_is_not_repeated(settings, tmp_path):
    wanted = replace(settings, overrides=LEARNER, memories=("random",), networks=1)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    rows = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join([rows[0], *rows[2:]]) + "\n")
    with pytest.raises(ValueError, match="lacks rows of step 0 of memory random, which cannot be repeated"):
        run_experiment(wanted, folder, QUIET)


def test_other_domains_are_another_run(settings, tmp_path):
    wanted = replace(settings, overrides=LEARNER, memories=("random",), networks=1)
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    with pytest.raises(SettingsMismatch, match="its images or labels are others"):
        run_experiment(replace(wanted, domains=("rotate:0,40", "blur")), folder, QUIET)


@pytest.mark.parametrize(
    ("store", "budget"),
    [
        ("uint8", {"mem_size": 47}),
        ("uint8", {"bytes_per_class": 7000}),
        pytest.param("webp", {"mem_bytes": 12_000}, marks=pytest.mark.slow),
    ],
)
def test_any_budget_is_shared(settings, tmp_path, budget, store):
    wanted = replace(
        settings, overrides=LEARNER, memories=("random",), networks=1, images_per_class=None, store=store, **budget
    )
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    memory = ReplayMemory.load(folder / "memory.safetensors")
    counts = [[len(one) for one in memory.sources(label)] for label in memory.classes]
    assert all(len(one) == 3 and min(one) >= 1 for one in counts)
    if store == "uint8":
        assert all(max(one) - min(one) <= 1 for one in counts)
    if "mem_size" in budget:
        assert sum(map(sum, counts)) == 47
    else:
        assert memory.memory_bytes <= (12_000 if store == "webp" else 70_000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_per_class": 2}, "2 images a class leaves 2 images of a class for 3 domains that share it; raise it"),
        ({"images_per_class": None, "mem_bytes": 20_000}, "666 bytes of each, too few for an image for 3 domains"),
        ({"domains": ("invert",)}, "domains must be two or more, got 1"),
        ({"domains": ("none", "inwert")}, "'inwert' is neither a transform .*did you mean 'invert'"),
        ({"class_order": (1, 0)}, "leave class_order, class_orders and first_step out"),
        ({"class_orders": 3}, "leave class_order, class_orders and first_step out"),
        ({"dataset": ""}, "'rotate:0' is a transform, and no dataset says of what"),
        ({"images_per_class": 5000}, "no class of digits has more than"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(settings, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_experiment(replace(settings, **changes), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_small_in_one_domain_is_kept_whole_and_leaves_its_share_to_the_others(settings, tmp_path):
    from data_helpers import write_classes

    for number, (name, few) in enumerate((("photos", 9), ("sketches", 1), ("clips", 9))):
        write_classes(tmp_path / name / "train", {"cat": few, "dog": 9}, 1000 * number)
        write_classes(tmp_path / name / "test", {"cat": 2, "dog": 2}, 1000 * number + 500)
    wanted = replace(
        settings, dataset="", domains=tuple(f"folder:{tmp_path / name}@16" for name in ("photos", "sketches", "clips")),
        memories=("random",), images_per_class=6, networks=1, overrides=LEARNER,
    )  # fmt: skip
    folder = run_experiment(wanted, tmp_path / "run", QUIET)
    memory = ReplayMemory.load(folder / "memory.safetensors")
    assert [[len(one) for one in memory.sources(label)] for label in (0, 1)] == [[3, 1, 2], [2, 2, 2]]
    assert (
        "photos" in (folder / "domains.csv").read_text() and str(tmp_path) not in (folder / "settings.yaml").read_text()
    )


def test_the_plan_says_where_a_run_without_a_folder_goes(settings):
    from clreplay.incremental.plan import default_folder

    one, two = (
        default_folder(plan_experiment(replace(settings, domains=d))) for d in (("none", "blur"), ("none", "invert"))
    )
    assert one != two and one.name.startswith("digits-2domains-")
    assert torch.is_tensor(plan_experiment(settings).shown_images(2).labels)
    assert RunFolder(one).domains_file.name == "domains.csv"
