"""YAML that people pass around: refused in one line where it would hang, fill the memory or raise something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clreplay.runtime.yaml_text import read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases .* stand for .* values, more than 100,000"),
        ("a: &a [*a]", "an alias .*stands within what it stands for"),
        ("a: [", "expected the node content, .*line 1"),
        ("[" * 20_000, "it is nested too deeply"),
        ("a: \x00", "special characters are not allowed"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("2020-99-99", "month must be in 1..12"),
        (f"a: {'9' * 5000}", "4300 digits"),
        ("a: b: c", "mapping values are not allowed here, line 1"),
        ("? [a]\n: b", "found unhashable key"),
        ("x" * (1 << 20) + "x", "it has 1,048,577 characters, more than 1,048,576"),
    ],
    ids="bomb circle open deep zero object date digits colons key long".split(),
)
def test_what_cannot_be_read_is_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=st.sampled_from("ab01.:-_ \n[]{}#&*!|>'\"%@`,?~\t\\"), max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        read_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)


def test_ordinary_yaml_is_read():
    assert read_yaml("a: [1, 2.5, x]\nb: null\n") == {"a": [1, 2.5, "x"], "b": None}
    assert read_yaml("") is None
    assert read_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
    }
