"""YAML as people pass it around, read with suspicion: bounded, and with one kind of error."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST = 1 << 20
"""Characters of a text that is read; recipes and settings have a few thousand."""


DEEPEST = 40
"""Lists and mappings in one another."""
MOST_NODES = 100_000
"""Values of a text, those that aliases stand for counted wherever they stand."""


class _Loader(yaml.SafeLoader):
    """With a bound on depth: PyYAML takes long for deep ones, and then ends with a RecursionError."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(text: str) -> Any:
    """What a text says.

    Raises:
        ValueError: it is no YAML, too long, too deep, or its aliases stand for too much; the message is one line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters, more than {LONGEST:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if (count := _values(node, {})) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases (*name) stand for {count:,} values, more than {MOST_NODES:,}")
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML raises its own kinds on wrong syntax, and others on dates and numbers that are none.
        raise ValueError(_line(error)) from error


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, itself among them."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if (found := known.get(id(node))) == 0:
        raise yaml.YAMLError("an alias (*name) stands within what it stands for")
    if found is None:
        known[id(node)] = 0
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = found = 1 + sum(_values(part, known) for part in parts)
    return found


def _line(error: BaseException) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"{problem}, line {mark.line + 1}"
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]
