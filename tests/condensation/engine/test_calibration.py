"""What is fastest here: measured only where it pays, remembered, kept to, and told."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from mixed import apart, mixed

from clreplay.condensation import METHODS, ConfiguredMethod, RealImages, condense_experience
from clreplay.condensation.engine import calibration
from clreplay.condensation.engine.calibration import choose_execution
from clreplay.condensation.engine.execution import EXECUTION_FIELDS, Execution
from clreplay.condensation.matching.engine import MatchingEngine, MatchingSettings
from clreplay.condensation.selection.random_choice import RandomSettings
from clreplay.data import NORMALIZATIONS
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.networks.kernels.build import failure

CPU = torch.device("cpu")
DM = MatchingSettings(width=16, depth=2, iterations=4, real_batch=7)
PLAIN = {"kernels": "eager", "layout": "contiguous", "parallel": "operators", "precision": "float32"}


@pytest.fixture
def real(pixels):
    return RealImages(*pixels(3, 12), NORMALIZATIONS["cifar10"])


@pytest.fixture
def always(monkeypatch):
    """Everything is worth measuring; trials that were made are listed."""
    monkeypatch.setattr(calibration, "WORTH_MEASURING", 0.0)
    trials = []
    trial = calibration.Trial.__call__
    monkeypatch.setattr(
        calibration.Trial, "__call__", lambda self, choice: trials.append(choice) or trial(self, choice)
    )
    return trials


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pace(monkeypatch, seconds):
    """A machine on which a way takes what ``seconds`` says of it."""
    monkeypatch.setattr(
        calibration.Trial,
        "_best",
        lambda self, engine: seconds(flat(engine.settings, engine.execution)) * len(engine.counts),
    )


class Flat(dict):
    """Settings and execution by flat name."""

    __getattr__ = dict.__getitem__


def flat(settings, execution):
    return Flat({**asdict(settings), **asdict(execution)})


def chosen(found):
    return {name: found[name] for name in EXECUTION_FIELDS}


def settled(real, settings=DM, device=CPU):
    counts = dict.fromkeys(real.classes, 4)
    return flat(*choose_execution(MatchingEngine, *apart(settings), real, counts, device))


def test_little_work_is_not_worth_measuring(real, monkeypatch):
    monkeypatch.setattr(calibration, "_search", lambda *_: pytest.fail("measured"))
    assert chosen(settled(real)) == {**PLAIN, "classes_at_once": 1}


def test_nothing_open_is_nothing_to_measure(real, always):
    fixed = mixed(DM, kernels="eager", layout="contiguous", parallel="operators", precision="bfloat16")
    assert settled(real, fixed) == flat(*mixed(fixed, classes_at_once=1))
    assert always == []


@pytest.mark.skipif(failure() is not None, reason="no native kernels here")
@pytest.mark.parametrize("fast", ["native", "eager"])
@pytest.mark.parametrize("spread", ["classes", "operators"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_the_fastest_way_is_taken(real, always, two_threads, monkeypatch, fast, spread, chunk):
    def seconds(s):
        slow = (s.kernels != fast) + (s.parallel != spread) + ((s.classes_at_once or 1) != chunk)
        return 1.0 + slow

    pace(monkeypatch, seconds)
    layout = "channels_last" if fast == "native" else "contiguous"
    wanted = {"kernels": fast, "layout": layout, "parallel": spread, "precision": "float32", "classes_at_once": chunk}
    assert chosen(settled(real)) == wanted


@pytest.mark.skipif(failure() is not None, reason="no native kernels here")
def test_a_near_tie_goes_to_the_one_tried_first(real, always, two_threads, monkeypatch):
    pace(monkeypatch, lambda s: 0.96 if s.kernels == "eager" or s.classes_at_once == 4 else 1.0)
    found = settled(real)
    assert (found.kernels, found.parallel, found.classes_at_once) == ("native", "classes", 1)


@pytest.mark.parametrize(("low", "precision"), [(0.5, "bfloat16"), (0.99, "float32")])
def test_bfloat16_is_taken_where_it_is_faster_and_only_if_it_may(real, always, monkeypatch, low, precision):
    pace(monkeypatch, lambda s: low if s.precision == "bfloat16" else 1.0)
    assert settled(real, replace(DM, precision="auto")).precision == precision
    assert settled(real).precision == settled(real, replace(DM, precision="tf32")).precision == "float32"


def test_a_choice_is_remembered_and_the_next_is_not_measured(real, always, two_threads):
    first = settled(real)
    assert "auto" not in chosen(first).values()
    tried = len(always)
    assert tried >= 2
    assert settled(real) == first
    assert settled(real, replace(DM, lr_img=7.0)) == {**first, "lr_img": 7.0}  # as fast, whatever the step size
    assert len(always) == tried
    settled(real, replace(DM, width=32))
    assert len(always) > tried


def test_what_was_measured_can_be_read(real, always, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settled(real)
    (path,) = (tmp_path / "clreplay" / "calibration").iterdir()
    found = json.loads(path.read_text())
    assert set(found["chosen"]) <= set(EXECUTION_FIELDS)
    assert all(row["milliseconds_a_class"] > 0 for row in found["milliseconds"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"chosen": {"width": 3}}'])
def test_a_damaged_memory_of_choices_is_measured_anew(real, always, tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settled(real)
    (path,) = (tmp_path / "clreplay" / "calibration").iterdir()
    path.write_text(text)
    tried = len(always)
    assert "auto" not in chosen(settled(real)).values()
    assert len(always) > tried
    assert set(json.loads(path.read_text())["chosen"]) <= set(EXECUTION_FIELDS)


def test_without_a_compiler_the_network_s_own_layers_are_taken(real, always, monkeypatch):
    monkeypatch.setattr("clreplay.networks.kernels.build.failure", lambda: "no C compiler")
    assert settled(real).kernels == "eager"
    assert {choice["kernels"] for choice in always} == {"eager"}


def test_networks_that_cannot_be_fused_run_their_own_layers(real, always):
    assert settled(real, replace(DM, norm="batch")).kernels == "eager"
    assert settled(real, replace(DM, width=12)).kernels == "eager"


def test_a_compiler_that_fails_is_told_once_and_eager_is_used(real, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("no Triton here\nand many more lines")

    monkeypatch.setattr("clreplay.networks.fused_forward._compiler", lambda: broken)
    monkeypatch.setattr(calibration, "WORTH_MEASURING", 0.0)
    found = settled(real, mixed(DM, kernels="compiled"))
    assert found.kernels == "eager"
    assert caplog.text.count("kernels=compiled does not work here (RuntimeError: no Triton here)") == 1
    assert "many more lines" not in caplog.text


def test_an_error_of_the_plain_way_is_an_error(real, always, monkeypatch):
    monkeypatch.setattr("clreplay.networks.kernels.build.failure", lambda: "no C compiler")
    monkeypatch.setattr(MatchingEngine, "step", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        settled(real)


# ---------------------------------------------------------------- a run keeps to what was chosen


def test_later_experiences_keep_to_the_choice_of_the_first(pixels, always):
    images, labels = pixels(4, 12)
    memory = ReplayMemory(images_per_class=2, normalization=NORMALIZATIONS["cifar10"])
    seen = []

    def condenser(real, counts, settings, *, execution, **rest):
        seen.append(flat(settings, execution))
        return METHODS["matching"].condense(real, counts, settings, execution=execution, **rest)

    configured = ConfiguredMethod(replace(METHODS["matching"], condense=condenser), DM)

    def experience(classes):
        rows = (labels[:, None] == torch.tensor(classes)).any(1)
        part = RealImages(images[rows], labels[rows], NORMALIZATIONS["cifar10"])
        condense_experience(memory, part, configured, seed=0, device=CPU)

    experience([0, 1])
    first = dict(memory.info["chosen"])
    memory.info["chosen"] = {**first, "kernels": "eager", "layout": "contiguous", "classes_at_once": 1}
    tried = len(always)
    experience([2, 3])
    assert len(always) == tried
    assert seen[1]["kernels"] == "eager" and seen[1]["layout"] == "contiguous"
    assert memory.info["chosen"]["kernels"] == "eager"


def test_only_what_is_open_is_taken_from_before():
    before = {"kernels": "native", "classes_at_once": 4, "width": 8, "parallel": "classes", "precision": "bfloat16"}
    matching = ConfiguredMethod(METHODS["matching"], DM, Execution(parallel="operators"))
    found = matching.resume(before, CPU).values()
    assert (found["kernels"], found["parallel"], found["classes_at_once"]) == ("native", "operators", 4)
    assert (found["width"], found["precision"]) == (16, "float32")
    assert matching.resume(before, torch.device("cuda")).execution.classes_at_once is None  # a GPU's free memory
    undecided = ConfiguredMethod(METHODS["matching"], replace(DM, precision="auto"))
    assert undecided.resume(before, CPU).settings.precision == "bfloat16"
    plain = ConfiguredMethod(METHODS["random"], RandomSettings())
    assert plain.resume(before, CPU).values() == asdict(RandomSettings())


def test_choices_in_words():
    assert ConfiguredMethod(METHODS["random"], RandomSettings()).summary() is None
    plain = Execution().plain(CPU, "instance")
    assert ConfiguredMethod(METHODS["matching"], DM, plain).summary() == "eager kernels, contiguous maps, float32"
    settings, native = mixed(
        (DM, plain), kernels="native", layout="channels_last", parallel="classes", precision="bfloat16"
    )
    threads = torch.get_num_threads()
    assert ConfiguredMethod(METHODS["matching"], settings, native).summary() == (
        f"native kernels, channels-last maps, bfloat16, classes in {threads} threads"
    )


@pytest.mark.parametrize("name", ["kernels", "layout", "parallel"])
def test_a_way_that_is_unknown_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be one of auto, .*, got 'fast'"):
        Execution(**{name: "fast"})
    with pytest.raises(ValueError, match="classes_at_once must be at least 1, got 0"):
        Execution(classes_at_once=0)
