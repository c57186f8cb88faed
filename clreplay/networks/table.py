"""The table of networks: names as the literature uses them, and what each of them fixes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from clreplay.networks.base import ImageSize, Network

AnyNetwork = TypeVar("AnyNetwork", bound=type[Network])
IMAGES = ("num_classes", "channels", "image_size")
"""What every network's constructor takes first, and what is no option."""

POOLS = {
    "instance": ("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"),
    "batch": ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
}
"""Networks that condensed images are tried on across architectures, in DC's and DM's code. Numbers from the two
pools are not comparable: DM's own table uses the second, the DDM paper's architectures are of the first."""


@dataclass(frozen=True)
class Entry:
    """A name of the table.

    Attributes:
        name: as the literature writes it.
        network: the class behind it.
        fixed: the options that the name stands for, such as ``{"norm": "batch"}``.
    """

    name: str
    network: type[Network]
    fixed: Mapping[str, Any]

    def options(self) -> list[str]:
        """Every option of the network."""
        return list(_options_of(self.network))


@cache
def _options_of(network: type) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(network).parameters if name not in IMAGES)


NETWORKS: dict[str, Entry] = {}
"""Every network by its name in lower case, without hyphens and underscores."""


def register_network(name: str, **fixed: Any) -> Callable[[AnyNetwork], AnyNetwork]:
    """Enter a network class in the table under ``name``; a class may have several names.

    Args:
        name: found in any case, and with or without hyphens and underscores.
        **fixed: options that the name stands for.

    Raises:
        ValueError: the name is taken, or ``fixed`` is not what the network allows.
    """

    def enter(network: AnyNetwork) -> AnyNetwork:
        entry = Entry(name, network, fixed)
        if _key(name) in NETWORKS:
            raise ValueError(f"network {name!r} is registered already")
        _check(entry, fixed)
        NETWORKS[_key(name)] = entry
        return network

    return enter


def network_names() -> list[str]:
    """Every name of the table, in the order of registration."""
    return [entry.name for entry in NETWORKS.values()]


def is_network(name: object) -> bool:
    """Whether there is a network of that name."""
    return isinstance(name, str) and _key(name) in NETWORKS


def find_network(name: str) -> Entry:
    """The entry of a name; case, hyphens and underscores do not matter.

    Raises:
        ValueError: there is none; the message has the closest name and all others.
    """
    entry = NETWORKS.get(_key(name))
    if entry is None:
        close = difflib.get_close_matches(_key(name), list(NETWORKS), n=1)
        hint = f"; did you mean {NETWORKS[close[0]].name!r}?" if close else "."
        raise ValueError(f"unknown network {name!r}{hint} Known: {', '.join(network_names())}")
    return entry


def network_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network: those given and those that the name stands for.

    Raises:
        ValueError: the name is unknown, the network has no such option or does not allow its value, or the
            name stands for another value.
    """
    entry = find_network(name)
    _check(entry, given)
    for option, value in entry.fixed.items():
        if given.get(option, value) != value:
            raise ValueError(
                f"{entry.name} stands for {option} {value!r}, got {given[option]!r}; leave {option} out, or take a "
                "network of another name"
            )
    return {**given, **entry.fixed}


def build_network(name: str, classes: int, channels: int = 3, image_size: ImageSize = 32, **options: Any) -> Network:
    """A network by the name that the literature gives it.

    Args:
        name: ``ConvNet``, ``ResNet18BN``, ...; see :func:`network_names`.
        classes: outputs of the classifier.
        channels, image_size: of the images; one number, or height and width.
        **options: of the network, beside those that the name stands for.

    Raises:
        ValueError: the name or an option is unknown or wrong, or the images do not fit.

    Example:
        >>> net = build_network("VGG-11", 10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return find_network(name).network(classes, channels, image_size, **network_options(name, options))


def _key(name: str) -> str:
    return "".join(letter for letter in str(name).lower() if letter not in "-_ ")


def _check(entry: Entry, options: Mapping[str, Any]) -> None:
    allowed = entry.options()
    for option, value in options.items():
        if option not in allowed:
            has = f"it has {', '.join(allowed)}" if allowed else "it has no options"
            raise ValueError(f"{entry.name} has no option {option!r} (got {value!r}); {has}")
    entry.network.check(options)
