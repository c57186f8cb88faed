"""Table 7: ranking, correlation and selection against slow references; the subset of architectures."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_rows import network_rows, set_row

from clreplay.benchmark.architecture_ranking import TOPS, architectures, correlation, how_many, ranking, selected
from clreplay.benchmark.plan import plan
from clreplay.benchmark.protocols import Training
from clreplay.benchmark.request import TableRequest
from clreplay.benchmark.results import MEASURED, PARTLY, lines_of
from clreplay.benchmark.rows import Contents, Origin
from clreplay.benchmark.sets import Place
from clreplay.networks import search_space

ACCURACIES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=30)


def ranks(values):
    """Average ranks, counted one against all."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def slow_correlation(first, second):
    """Spearman's correlation: Pearson's, of the ranks."""
    a, b = ranks(first), ranks(second)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return covariance / spread if spread else None


@given(ACCURACIES, st.sampled_from(TOPS))
def test_correlation_over_the_top_equals_a_slow_one(pairs, top):
    proxy, real = zip(*pairs)
    count = how_many(top, len(proxy))
    best = sorted(range(len(proxy)), key=lambda i: -proxy[i])[:count]  # stable: ties in their order
    found = correlation(proxy, real, top)
    if count > len(proxy) or count < 2:
        assert found is None
    else:
        expected = slow_correlation([proxy[i] for i in best], [real[i] for i in best])
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_how_many_a_top_means():
    assert [how_many(top, 720) for top in TOPS] == [5, 10, 20, 36, 720]
    assert [how_many(top, 7) for top in TOPS] == [5, 10, 20, 1, 7]


def test_the_first_of_the_ranking_is_selected_whatever_it_is_worth():
    proxy, real = [30.0, 50.0, 50.0, 10.0], [80.0, 60.0, 90.0, 99.0]
    assert ranking(proxy) == [1, 2, 0, 3]
    assert selected(proxy, real) == 60.0  # the earlier one of the tie
    assert selected(real, real) == 99.0
    assert correlation(real, real, "all") == pytest.approx(1.0)


def test_a_few_architectures_are_the_first_of_many_and_not_one_corner_of_the_space():
    few, more, all_of_them = architectures(20), architectures(60), architectures(None)
    assert more[:20] == few and len({str(options) for options in more}) == 60
    assert all_of_them == list(search_space()) == architectures(720) and len(all_of_them) == 720
    assert all({options[name] for options in more} == {o[name] for o in all_of_them} for name in few[0])
    with pytest.raises(ValueError, match="at most 720, got 721"):
        architectures(721)


def test_every_method_trains_the_same_architectures_and_all_real_images_once():
    planned = plan(TableRequest("7", architectures=3))
    assert len(planned) == 20 and {one.problem for one in planned} == {""}
    real = {unit_key(t) for one in planned for t in one.real}
    assert len(real) == 3
    for one in planned:
        assert [t.training.settings for t in one.trained] == [t.training.settings for t in one.real]
        assert "3 of the 720 architectures" in one.reduced
        whole = one.cell.recipe == "whole"
        assert len(one.specs) == (0 if whole else 1)
        assert ({unit_key(t) for t in one.trained} == real) == whole


def test_small_presets_search_some_architectures_and_as_many_as_asked():
    counts = {
        preset: {len(one.real) for one in plan(TableRequest("7", preset=preset))}
        for preset in ("smoke", "cpu", "paper")
    }
    assert counts == {"smoke": {3}, "cpu": {40}, "paper": {720}}
    assert {len(one.real) for one in plan(TableRequest("7", preset="smoke", architectures=5))} == {5}


def test_an_architecture_that_diverges_is_a_result_and_is_counted():
    (one, *_) = plan(TableRequest("7", ("digits",), methods=("random",), preset="smoke", architectures=2))
    assert all(trained.may_diverge for trained in (*one.trained, *one.real))
    small = replace(one.real[0].unit.training.settings, width=4, depth=1, batch_size=16)
    unit = replace(one.real[0].unit, training=Training("dm", replace(small, lr=1e30)))
    (row,) = unit.run(Place("cpu")).networks
    assert row.diverged and 0 <= row.accuracy <= 100
    with pytest.raises(FloatingPointError, match="training diverged"):
        replace(unit, may_diverge=False).run(Place("cpu"))
    assert not replace(unit, training=Training("dm", small)).run(Place("cpu")).networks[0].diverged
    own = {key: replace(row, key=key) for key in one.real[0].unit.keys}
    lines = lines_of([one], Contents(networks=own))
    assert any("the training of 1 network diverged" in note for note in lines[0].notes)


def searched(methods, proxies, reals):
    """Lines of a search whose networks got these accuracies; a None was not trained."""
    planned = plan(TableRequest("7", ("cifar10",), methods=methods, architectures=len(reals)))
    contents = Contents()
    for one in planned:
        contents.sets.update({spec.key: set_row(spec, images=500) for spec in one.specs})
        for trained, values, images in ((one.trained, proxies, 500), (one.real, reals, 50_000)):
            for part, value in zip(trained, values):
                if value is not None:
                    changes = {"accuracy": value, "images": images, "origin": Origin(6.0, "cpu", "abc", "torch")}
                    contents.networks.update({row.key: row for row in network_rows(part, **changes)})
    return {(line.cell.metric, *line.variant): line for line in lines_of(planned, contents)}


PROXY, REAL = [30.0, 50.0, 20.0, 40.0, 10.0, 5.0], [70.0, 80.0, 75.0, 90.0, 60.0, 50.0]


def test_a_search_reports_all_of_its_metrics():
    lines = searched(("random",), PROXY, REAL)
    assert lines["accuracy",].ours == 80.0 and lines["accuracy",].difference == pytest.approx(-4.0)
    assert lines["time_cost",].ours == pytest.approx(6 * 6 / 60)
    assert lines["time_cost",].difference is None  # the minutes of six architectures
    assert lines["storage",].ours == 500
    top = {key[1][1]: line for key, line in lines.items() if key[0] == "spearman_correlation"}
    assert list(top) == list(TOPS)
    assert top["all"].ours == pytest.approx(slow_correlation(PROXY, REAL))
    assert top["5"].ours == pytest.approx(slow_correlation(PROXY[:5], REAL[:5]))
    assert top["20"].ours is None and top["20"].reason == "no correlation over 20 of 6"
    assert {line.cell.published for line in top.values()} == {"-0.04"}
    assert {line.done for line in lines.values()} == {6} and {line.state for line in lines.values()} == {MEASURED}


def test_all_real_images_select_their_own_best():
    lines = searched(("whole",), REAL, REAL)
    assert lines["accuracy",].ours == 90.0 and lines["storage",].ours == 50_000
    assert lines["spearman_correlation", ("top", "all")].ours == pytest.approx(1.0)


def test_a_ranking_of_some_architectures_is_no_result():
    for proxies, reals in (([*PROXY[:5], None], REAL), (PROXY, [None, *REAL[1:]])):
        lines = searched(("random",), proxies, reals)
        assert {line.state for line in lines.values()} == {PARTLY} and {line.ours for line in lines.values()} == {None}
        assert {line.done for line in lines.values()} == {5}


def unit_key(trained):
    settled = None if trained.spec is None else trained.spec.key
    return settled, str(trained.training.as_plain())


def test_a_search_of_everything_at_the_paper_s_settings_is_not_reduced():
    one = plan(TableRequest("7", methods=("random",)))[0]
    assert one.reduced == () and len(one.trained) == len(one.real) == 720
    assert len(one.network_units(Contents(), "cpu")) == 720  # the set is not there yet: only real images
