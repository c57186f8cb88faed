"""The table of terms: what may enter, under which names, and in which order terms are added up."""

from dataclasses import dataclass

import pytest
import torch
from slow_losses import features

from clreplay.losses import TERMS, StyleMatching, Term, register_term, setting
from clreplay.losses.term import entering_terms, flat_names, in_order


@pytest.fixture
def table():
    """A table of its own for what the test registers."""
    found = {}
    with entering_terms(found):
        yield found


@dataclass(frozen=True)
class Plain(Term):
    weight: float = 0.0
    reach: int = 2
    old: float = setting(0.5, "ancient_name")


def test_a_term_enters_under_its_name_and_names_its_settings(table):
    assert register_term("plain")(Plain) is Plain and table == {"plain": Plain} and "plain" not in TERMS
    assert Plain.name == "plain" and StyleMatching(1.0).parts(2)[0].name == "moment_matching"
    assert flat_names("plain", Plain) == {"weight": "plain_weight", "reach": "plain_reach", "old": "ancient_name"}


def test_terms_are_added_up_in_the_order_of_their_places_and_the_others_by_name():
    @dataclass(frozen=True)
    class Early(Plain):
        place = 1.5

    assert [*in_order(TERMS)] == ["mean", "style", "diversity", "attention"]
    assert [*in_order({"zz": Plain, "aa": Plain, "between": Early, **TERMS})] == [
        "mean", "style", "between", "diversity", "attention", "aa", "zz",
    ]  # fmt: skip


def test_a_term_without_a_real_side_has_no_statistics_and_applies_everywhere():
    assert Plain(1.0).statistics(features(2)) == () and Plain(1.0).parts(1) == [Plain(1.0)] and Plain.reads_maps
    with pytest.raises(NotImplementedError, match="Plain has no loss"):
        Plain(1.0).loss((), (), features(2))
    with pytest.raises(ValueError, match="weight must not be negative, got -1.0"):
        Plain(-1.0)


@pytest.mark.parametrize("images_per_class", [1, 10])
def test_style_is_moments_and_correlation_with_their_shares(images_per_class):
    term = StyleMatching(100.0, 0.5, 0.25, "mean_map", "var", "sum", True, (0,))
    moments, correlation = term.parts(images_per_class)
    assert (moments.weight, correlation.weight) == (50.0, 25.0)
    assert (moments.sigma_of, moments.spread, moments.channels, moments.layers) == ("mean_map", "var", "sum", (0,))
    assert (correlation.quarter, correlation.layers) == (True, (0,))


def test_what_cannot_be_a_term_is_refused(table):
    register_term("plain")(Plain)

    @dataclass(frozen=True)
    class Weightless(Term):
        reach: int = 2

    @dataclass(frozen=True)
    class Open(Term):
        weight: float

    @dataclass
    class Thawed(Term):
        weight: float = 0.0

    @dataclass(frozen=True)
    class Foreign:
        weight: float = 0.0

    for name, cls, message in [
        ("plain", Plain, "term 'plain' is registered already"),
        ("my term", Plain, "letters, digits and underscores, got 'my term'"),
        ("one", Weightless, "term 'one' needs a field weight"),
        ("one", Open, "term 'one' needs a default for weight"),
        ("one", Thawed, r"must be a subclass of Term under @dataclass\(frozen=True\), got .*Thawed"),
        ("one", Foreign, "must be a subclass of Term"),
        ("one", torch.nn.Linear, "must be a subclass of Term"),
    ]:
        with pytest.raises(ValueError, match=message):
            register_term(name)(cls)
    assert table == {"plain": Plain}
