"""Networks of the condensation literature; each gives ``embedding(x)`` and ``taps(x)``."""

from clreplay.networks.convnet import ConvNet
from clreplay.networks.redraw import FlatParameters, reinitialize

__all__ = ["ConvNet", "FlatParameters", "reinitialize"]
