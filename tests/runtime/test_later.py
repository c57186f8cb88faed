"""Settings that came later do not rename what was computed before them."""

from dataclasses import asdict, dataclass

import pytest

from clreplay.runtime.later import identifying, later


@dataclass(frozen=True)
class Old:
    rate: float = 1.0
    tiles: int = later(1)
    space: str | None = later("plain")


@dataclass(frozen=True)
class Relative(Old):
    tiles: int = later(2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Old(), {"rate": 1.0}),
        (Old(rate=2.0, tiles=1), {"rate": 2.0}),
        (Old(tiles=2), {"rate": 1.0, "tiles": 2}),
        (Old(space=None), {"rate": 1.0, "space": None}),
        (Relative(), {"rate": 1.0}),
        (Relative(tiles=1), {"rate": 1.0, "tiles": 1}),
    ],
)
def test_a_later_setting_is_named_where_it_changes_something(settings, named):
    assert identifying(settings, asdict(settings)) == named
    assert identifying(settings, {**asdict(settings), "kernels": "auto"}) == {**named, "kernels": "auto"}


def test_what_is_no_dataclass_has_no_later_settings():
    assert identifying(None, {"tiles": 1}) == {"tiles": 1}
