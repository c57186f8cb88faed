"""Loss terms of a condensation as metrics of Avalanche's own loggers, and what the plugin says while it condenses."""

import io
import logging

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger, CSVLogger, TextLogger
from plugin_helpers import EvaluationPlugin, Naive, SmallNet, ddm_replay, plain_benchmark, random_replay


class Collecting(BaseLogger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.points = []

    def log_single_metric(self, name, value, x_plot):
        self.points.append((name, value, x_plot))


class WandBLogger(Collecting):
    """Called like the one whose axis all metrics share."""


def trained(plugin, *loggers, benchmark=None, collect_all=True):
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=list(loggers), collect_all=collect_all)
    model = SmallNet()
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.01), criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=4, eval_mb_size=8, train_epochs=2, plugins=[plugin], evaluator=evaluator,
    )  # fmt: skip
    for experience in (benchmark or plain_benchmark()).train_stream:
        strategy.train(experience)
    return strategy


def expected(record):
    """Points that the record of a memory must give."""
    return [
        (f"Condensing/{term}/Exp{row['experience']:03d}", value, row["iteration"])
        for row in record
        for term, value in row.items()
        if term not in ("experience", "iteration") and not term.startswith("image_")
    ]


def by_place(point):
    return point[0], point[2]


def ours(points):
    return [point for point in points if point[0].startswith("Condensing/")]


@pytest.mark.parametrize("progress", [None, False])
def test_every_logger_gets_the_record(progress):
    logger, plugin = Collecting(), ddm_replay(progress=progress)
    strategy = trained(plugin, logger)
    wanted = expected(plugin.memory.record)
    assert ours(logger.points) == wanted and len({name for name, *_ in wanted}) == 2 * 4
    curves = strategy.evaluator.get_all_metrics()
    for name in {name for name, *_ in wanted}:
        places, values = curves[name]
        assert [(name, value, place) for place, value in zip(places, values)] == [p for p in wanted if p[0] == name]


def test_what_eval_returns_is_of_the_evaluation_alone():
    strategy = trained(ddm_replay(), Collecting())
    assert not [name for name in strategy.eval(plain_benchmark().test_stream) if name.startswith("Condensing")]


def test_a_logger_with_one_axis_for_all_gets_points_that_hide_no_training():
    logger = WandBLogger()
    trained(ddm_replay(), logger)
    places = [x for *_, x in logger.points]
    assert places == sorted(places) and len({x for *_, x in ours(logger.points)}) == 2, "one place a condensation"


def test_a_selection_and_an_inactive_evaluation_log_nothing():
    logger = Collecting()
    trained(random_replay(), logger)
    assert not ours(logger.points)
    plugin = ddm_replay()
    plugin.before_training = lambda strategy, **kwargs: setattr(strategy.evaluator, "active", False)
    trained(plugin, logger)
    assert plugin.memory.record and not ours(logger.points)


def test_avalanche_s_own_loggers_take_the_terms(tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from avalanche.logging import TensorboardLogger

    text, plugin = io.StringIO(), ddm_replay()
    logger = TensorboardLogger(tmp_path / "board")
    trained(plugin, logger, TextLogger(text), CSVLogger(tmp_path / "csv"))
    logger.writer.flush()
    events = board.EventAccumulator(str(tmp_path / "board")).Reload()
    found = [
        (name, pytest.approx(point.value), point.step)
        for name in events.Tags()["scalars"] if name.startswith("Condensing/")
        for point in events.Scalars(name)
    ]  # fmt: skip
    wanted = expected(plugin.memory.record)
    assert sorted(wanted, key=by_place) == sorted(found, key=by_place) and wanted
    assert "Condensing/mean_matching/Exp001 = " in text.getvalue()
    assert len((tmp_path / "csv" / "training_results.csv").read_text().splitlines()) == 1 + 2 * 2


def test_the_plugin_says_what_it_condenses_where_it_shows_a_bar(monkeypatch, capsys):
    trained(ddm_replay(), Collecting())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    trained(ddm_replay(), Collecting())
    shown = capsys.readouterr().err
    assert "ddm: experience 1, 2 classes (0, 1), 20 images into 2 images a class" in shown
    assert "ddm: experience 2, 2 classes (2, 3), 20 images into 2 images a class" in shown
    assert "condensing experience 2" in shown
    trained(ddm_replay(progress=False), Collecting())
    assert capsys.readouterr().err == ""


def test_print_and_a_log_as_progress(capsys, caplog):
    trained(ddm_replay(progress=print), Collecting())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("ddm")]
    assert lines[0] == "ddm: experience 1, 2 classes (0, 1), 20 images into 2 images a class"
    assert lines[1].startswith("  ddm, condensing experience 1: 1/2 iterations, ") and len(lines) == 6
    with caplog.at_level(logging.INFO, "mine"):
        trained(ddm_replay(progress=logging.getLogger("mine").info), Collecting())
    assert [record.getMessage() for record in caplog.records if record.name == "mine"][0] == lines[0]
