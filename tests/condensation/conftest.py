"""What the tests of the methods share."""

import pytest
import torch
from engines import NORMALIZATION

from clreplay.condensation import RealImages


@pytest.fixture
def real(pixels):
    """Three classes of twelve images."""
    return RealImages(*pixels(3, 12), NORMALIZATION)


@pytest.fixture
def double():
    """Everything in double precision, so that only a wrong formula can make a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def two_threads():
    """PyTorch on two threads, as outside of the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
