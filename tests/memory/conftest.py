"""What the tests of the memory share."""

import pytest

from clreplay.condensation import METHODS
from clreplay.condensation.registry import OWN_METHODS
from clreplay.memory.decoders import DECODERS


@pytest.fixture
def tables():
    """Decoders and methods that a test registers are gone after it."""
    before = [(table, dict(table)) for table in (DECODERS, METHODS, OWN_METHODS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)
