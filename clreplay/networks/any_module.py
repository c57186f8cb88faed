"""Any module as a network to condense with: its embedding and style maps are named by path, or found."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clreplay.networks.base import ImageSize, Network, Tap
from clreplay.networks.table import register_network

Factory = Callable[[int, int, Any], nn.Module]
"""Makes a classifier of so many classes, for images of so many channels and of so many pixels a side, or of a pair of
height and width where these differ."""
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish)
EMBEDDING = "embedding"


def register_module(
    name: str,
    factory: Factory,
    embedding: str | None = None,
    style: Sequence[str] | None = None,
    images: tuple[int, int] = (3, 32),
) -> None:
    """Enter a module of one's own in the table of networks, to condense with it: ``network=name``.

    Its parameters must be those of convolution, linear and norm layers, whose weights are drawn as PyTorch draws them
    by default: an initialisation of the module's own is not heeded. What is condensed with it is not kept for other
    runs, since a change of its code would go unseen.

    Args:
        name: found in any case, and with or without hyphens and underscores.
        factory: called with classes, channels and image size: pixels a side, or (height, width) where these differ.
        embedding: path of the module whose output, flattened, is the embedding, such as ``"avgpool"``; None takes what
            the last linear layer reads.
        style: paths of the modules whose outputs are the maps that style terms read, such as
            ``["layer1", "layer2"]``; None takes the outputs of all activation modules (:data:`ACTIVATIONS`).
        images: channels and size of images that the factory can be tried with.

    Raises:
        ValueError: the name is taken, the factory makes no module, a path is none of its modules, or neither
            ``embedding`` is given nor a linear layer found.

    Example:
        >>> def factory(classes, channels, size):
        ...     return torchvision.models.resnet18(num_classes=classes)
        >>> register_module("tv-resnet18", factory, embedding="avgpool", style=["layer1", "layer2"])
        >>> memory = condense(images, labels, "ddm", network="tv-resnet18")
    """
    if style is not None and (isinstance(style, str) or not style):
        raise ValueError(f"style must be a list of paths, or None to find maps, got {style!r}")
    space = {"own_name": name, "factory": staticmethod(factory), "embedding_path": embedding}
    space["style_paths"] = None if style is None else tuple(style)
    network = type("ModuleNetwork", (ModuleNetwork,), space)
    tried = network(2, *images)
    mixes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tried.modules())
    # The option's name says to all that a class depends on those beside it.
    network.NORMS = ("batch",) if mixes else ()
    if mixes:
        network = type("BatchNormModuleNetwork", (_WithNorm, network), {})
    register_network(name, **({"norm": "batch"} if mixes else {}))(network)


class ModuleNetwork(Network):
    """A module behind hooks that catch what it computes on the way; see :func:`register_module`.

    Several threads may run it at once.
    """

    TRACED = False
    own_name = ""
    factory: Factory
    embedding_path: str | None = None
    style_paths: tuple[str, ...] | None = None

    def __init__(self, num_classes: int, channels: int, image_size: ImageSize) -> None:
        super().__init__(num_classes, channels, image_size)
        with torch.random.fork_rng(devices=[]):
            module = type(self).factory(num_classes, channels, self.image_size)
        if not isinstance(module, nn.Module):
            raise ValueError(f"network {self.own_name}: the factory must give a module, got {type(module).__name__}")
        self.module = module
        for part in module.modules():
            if getattr(part, "inplace", False):
                part.inplace = False  # a map that was caught must not be written over
        self._caught = _Caught()
        self._last_linear = _last_linear(module)
        self._hook()
        self.embedding_size = self._tried_embedding()

    def _hook(self) -> None:
        parts = dict(self.module.named_modules())
        if self.embedding_path is not None:
            self._part(parts, "embedding", self.embedding_path).register_forward_hook(_Output(self._caught, EMBEDDING))
        elif self._last_linear is not None:
            parts[self._last_linear].register_forward_pre_hook(_Input(self._caught, EMBEDDING))
        else:
            raise ValueError(
                f"network {self.own_name}: {type(self.module).__name__} has no linear layer that would read an "
                f"embedding; name the module that gives it, embedding='...', one of {_some(parts)}"
            )
        if self.style_paths is None:
            for part in parts.values():
                if isinstance(part, ACTIVATIONS):
                    part.register_forward_hook(_Output(self._caught, "found"))
        for path in self.style_paths or ():
            self._part(parts, "style", path).register_forward_hook(_Output(self._caught, path))

    def _part(self, parts: dict[str, nn.Module], what: str, path: str) -> nn.Module:
        if path not in parts:
            close = difflib.get_close_matches(path, list(parts), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {_some(parts)}"
            raise ValueError(
                f"network {self.own_name}: {what} names {path!r}, which is no part of {type(self.module).__name__}; "
                f"{hint}"
            )
        return parts[path]

    @torch.no_grad()
    def _tried_embedding(self) -> int:
        """Length of the embedding, found by a look at two black images."""
        modes = [(part, part.training) for part in self.modules()]
        self.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                embedding = self._run(torch.zeros(2, self.channels, *self.sides))[1]
        except (RuntimeError, TypeError, IndexError) as error:
            shape = (self.channels, *self.sides)
            raise ValueError(
                f"network {self.own_name}: {type(self.module).__name__} cannot take images of shape {shape} ({error}); "
                "make the factory heed channels and image size"
            ) from error
        finally:
            for part, training in modes:
                part.training = training
        return embedding.shape[1]

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits, the embedding (n, d) and the maps of one forward pass."""
        with self._caught.catching() as found:
            logits = self.module(images)
        embeddings = found.pop(EMBEDDING, [])
        if len(embeddings) != 1 or not isinstance(embeddings[0], Tensor) or len(embeddings[0]) != len(images):
            what = self.embedding_path or self._last_linear
            raise ValueError(
                f"network {self.own_name}: {what!r} gave {len(embeddings)} embeddings of {len(images)} images in one "
                "forward pass; name a module that gives one tensor with a row an image"
            )
        in_order = [one for path in (self.style_paths or ["found"]) for one in found.get(path, [])]
        maps = [one for one in in_order if isinstance(one, Tensor) and one.ndim == 4]
        if self.style_paths is not None and len(maps) != len(in_order):
            wrong = next(one for one in in_order if not (isinstance(one, Tensor) and one.ndim == 4))
            kind = tuple(wrong.shape) if isinstance(wrong, Tensor) else type(wrong).__name__
            raise ValueError(f"network {self.own_name}: style must name modules that give (n, c, h, w), got {kind}")
        return logits, embeddings[0].flatten(1), maps

    def _embed(self, images: Tensor, tap: Tap) -> Tensor:
        _, embedding, maps = self._run(images)
        for one in maps:
            tap(one)
        return embedding

    def features_at(self, images: Tensor, points: Collection[str]) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """See :class:`Network`.

        Raises:
            ValueError: maps are wanted at a point that a module of one's own does not know.
        """
        embedding, taps = super().features_at(images, ("act",))
        others = sorted({*points} - {"act"})
        if others:
            raise ValueError(
                f"network {self.own_name} gives the maps that style names, not those at {', '.join(others)} of every "
                "block; take terms that read maps after activations, or one of clreplay's networks"
            )
        return embedding, {point: taps[point] for point in points}

    @property
    def classifier(self) -> nn.Module:
        """What reads the embedding.

        Raises:
            ValueError: the module's last linear layer does not.
        """
        last = None if self._last_linear is None else self.module.get_submodule(self._last_linear)
        if last is None or last.in_features != self.embedding_size:
            raise ValueError(
                f"network {self.own_name}: its last linear layer does not read the embedding, so there are no logits "
                "of it; leave embedding out, or the term that needs logits"
            )
        return last

    def forward(self, images: Tensor) -> Tensor:
        """Logits, as the module gives them."""
        return self.module(images)


class _WithNorm:
    """Takes the option that says that there is batch norm."""

    def __init__(self, num_classes: int, channels: int, image_size: ImageSize, norm: str = "batch") -> None:
        super().__init__(num_classes, channels, image_size)


class _Caught:
    """What hooks catch during a forward pass, apart for every thread; a copy begins with nothing."""

    def __init__(self) -> None:
        self._here = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Caught:
        return memo.setdefault(id(self), _Caught())

    @contextmanager
    def catching(self) -> Iterator[dict[str, list[Any]]]:
        """What is caught within the block."""
        found: dict[str, list[Any]] = {}
        self._here.found = found
        try:
            yield found
        finally:
            self._here.found = None

    def put(self, key: str, value: Any) -> None:
        """Take a value, if anybody is catching."""
        found = getattr(self._here, "found", None)
        if found is not None:
            found.setdefault(key, []).append(value)


class _Output:
    def __init__(self, caught: _Caught, key: str) -> None:
        self.caught, self.key = caught, key

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.caught.put(self.key, output)


class _Input(_Output):
    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        self.caught.put(self.key, inputs[0])


def _last_linear(module: nn.Module) -> str | None:
    paths = [path for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    return paths[-1] if paths else None


def _some(parts: dict[str, nn.Module]) -> str:
    paths = [path for path in parts if path]
    return ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
