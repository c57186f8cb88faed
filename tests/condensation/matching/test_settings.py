"""Settings of the matching methods: what is refused, and the terms that they make."""

from dataclasses import fields, replace

import pytest

from clreplay.condensation.matching.idm import IDMSettings
from clreplay.condensation.matching.network_queue import QueueSettings
from clreplay.condensation.matching.settings import MatchingSettings
from clreplay.condensation.matching.terms import TermSettings, terms_of
from clreplay.networks.settings import NetworkSettings

DM = MatchingSettings()
DDM = replace(DM, style_weight=5000.0, diversity_weight=10.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"real_batch": 0}, "real_batch must be at least 1, got 0"),
        ({"network_reuse": 0}, "network_reuse must be at least 1, got 0"),
        ({"lr_img": 0.0}, "lr_img must be positive, got 0.0"),
        ({"momentum_img": 1.0}, r"momentum_img must be within \[0, 1\), got 1.0"),
        ({"neighbours": 0.0}, r"terms.diversity.neighbours \(neighbours\) must be a fraction within \(0, 1\], got 0.0"),
        ({"neighbours": 1.1}, r"terms.diversity.neighbours \(neighbours\) must be a fraction"),
        ({"style_weight": -1.0}, r"terms.style.weight \(style_weight\) must not be negative, got -1.0"),
        ({"alpha": -1.0}, r"terms.style.moments \(alpha\) must not be negative, got -1.0"),
        ({"init": "zeros"}, "init must be one of real, noise, got 'zeros'"),
        ({"sigma_of": "set"}, r"terms.style.sigma_of \(sigma_of\) must be one of image, mean_map, got 'set'"),
        ({"spread": "sd"}, r"terms.style.spread \(spread\) must be one of std, biased_std, var, got 'sd'"),
        ({"moment_channels": "max"}, r"terms.style.channels \(moment_channels\) must be one of mean, sum, got 'max'"),
        (
            {"diversity_reduction": "max"},
            r"terms.diversity.reduction \(diversity_reduction\) must be one of mean, sum, got 'max'",
        ),
        ({"siamese_augment": "blur"}, "siamese_augment must join operators.*'blur'"),
        ({"style_layers": ()}, r"terms.style.layers \(style_layers\) must name at least one block"),
        ({"attention_power": 0.5}, r"terms.attention.power \(attention_power\) must be at least 1, got 0.5"),
        ({"attention_power": float("nan")}, r"terms.attention.power \(attention_power\) must be at least 1, got nan"),
        ({"attention_weight": -1.0}, r"terms.attention.weight \(attention_weight\) must not be negative, got -1.0"),
        ({"attention_layers": ()}, r"terms.attention.layers \(attention_layers\) must name at least one block"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"norm": "instanse"}, "norm must be one of instance.*'instanse'"),
        ({"activation": "gelu"}, "activation must be one of relu.*'gelu'"),
        ({"pooling": "mean"}, "pooling must be one of avg.*'mean'"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DDM, **changes)


def test_no_setting_of_a_term_has_the_name_of_another_setting_and_all_are_in_the_documentation():
    of_terms = {field.name for field in fields(TermSettings)}
    for cls in (MatchingSettings, NetworkSettings, QueueSettings, IDMSettings):
        assert not of_terms & set(vars(cls)["__annotations__"]), cls
    for name in of_terms:
        assert f"({name}): {getattr(DM, name)!r}\n" in MatchingSettings.__doc__


def test_settings_that_leave_no_term_are_an_error():
    with pytest.raises(ValueError, match="every term has weight zero"):
        terms_of(replace(DM, mean_weight=0.0), 10)


def test_terms_of_weight_zero_are_left_out_and_ddm_has_all_four_with_its_weights():
    assert [term.name for term in terms_of(DM, 10)] == ["mean_matching"]
    ddm = {term.name: term.weight for term in terms_of(replace(DDM, alpha=0.5), 10)}
    assert ddm == {"mean_matching": 1, "moment_matching": 2500, "correlation_matching": 5000, "diversity": 10}
