"""Differentiable siamese augmentation (DSA, Zhao & Bilen 2021) on whole batches.

One operator of the strategy is drawn for a whole batch (DSA's "single" mode). Its parameters are either
*shared* by all images of a class, real and synthetic alike (siamese: condensation), or drawn *per image*
(training on a memory). A draw is a row of uniform numbers in [0, 1): the first chooses the operator, the
others become its parameters. Rows are drawn in blocks from a keyed generator, never from the global one.

All operators act on normalised images (n, c, h, w); zeros fill what is vacated, which is the mean colour.
Grids follow PyTorch's present default, ``align_corners=False``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, FLIP, SCALE, ROTATE = 0.125, 0.5, 0.5, 1.2, 15.0


@dataclass(frozen=True)
class Strategy:
    """The operators, and whether one of them is drawn for every batch (DSA) or all are applied in order.

    Attributes:
        names: operators; empty means no augmentation.
        every: apply all in order instead of drawing one.
    """

    names: tuple[str, ...]
    every: bool = False

    @property
    def draw_size(self) -> int:
        """Uniform numbers of one draw: the choice of an operator, then three parameters an operator applied."""
        return 1 + 3 * (len(self.names) if self.every else 1)

    def chosen(self, choice: float) -> list[str]:
        """The operators that a uniform number in [0, 1) leads to, in order."""
        if self.every or not self.names:
            return list(self.names)
        return [self.names[min(int(choice * len(self.names)), len(self.names) - 1)]]


def parse_strategy(strategy: str | None, setting: str = "augment") -> Strategy:
    """Read a strategy: ``color_crop_flip`` draws one of the three a batch, ``crop+flip`` applies both.

    ``None``, an empty string and ``none`` mean no augmentation.

    Raises:
        ValueError: an operator is unknown or named twice; ``setting`` is what the message calls the strategy.
    """
    if strategy is not None and not isinstance(strategy, str):
        raise ValueError(f"{setting} must be a text such as 'color_crop_flip', or None for nothing, got {strategy!r}")
    if strategy is None or strategy.lower() in ("", "none"):
        return Strategy(())
    every = "+" in strategy
    names = tuple(strategy.lower().split("+" if every else "_"))
    for name in names:
        if name not in OPERATORS:
            raise ValueError(
                f"{setting} must join operators of {', '.join(OPERATORS)} with '_' (one a batch) or '+' (all), "
                f"got {strategy!r}"
            )
    if len(set(names)) != len(names):
        raise ValueError(f"{setting} names an operator twice: {strategy!r}")
    return Strategy(names, every)


def draw(count: int, strategy: Strategy, generator: torch.Generator) -> Tensor:
    """``count`` draws for a strategy, (count, draw_size) uniform in [0, 1)."""
    return torch.rand(count, strategy.draw_size, generator=generator, device=generator.device)


def augment_shared(images: Tensor, one_draw: Tensor, strategy: Strategy) -> Tensor:
    """Apply one draw to every image: the same operators with the same parameters (siamese).

    Args:
        images: (n, c, h, w), normalised.
        one_draw: (draw_size,), on the host.
        strategy: from :func:`parse_strategy`.
    """
    for name, u in _steps(one_draw, strategy):
        if name == "crop":
            # One shift for all is a slice, far cheaper than a gather.
            dy, dx = (int(_shift_range(u[axis], images.shape[2 + axis])) for axis in (0, 1))
            images = F.pad(images, (-dx, dx, -dy, dy))
        elif name == "flip":
            images = images.flip(3) if u[0] < FLIP else images
        else:
            images = OPERATORS[name](images, u.to(images.device, images.dtype).expand(len(images), 3))
    return images


def augment_classes(images: Tensor, draws: Tensor, strategy: Strategy) -> Tensor:
    """Apply one draw a class to a batch of classes, grouped by operator so that each runs once.

    Args:
        images: (classes, n, c, h, w), normalised.
        draws: (classes, draw_size), on the host; row i is shared by all images of class i.
        strategy: from :func:`parse_strategy`.
    """
    if len(images) == 1 or not strategy.names:
        return augment_shared(images[0], draws[0], strategy).unsqueeze(0) if len(images) == 1 else images
    if strategy.every:
        return torch.stack([augment_shared(one, row, strategy) for one, row in zip(images, draws)])
    count = images.shape[1]
    chosen = [strategy.chosen(choice)[0] for choice in draws[:, 0].tolist()]
    parameters = draws[:, 1:].to(images.device, images.dtype, non_blocking=True)
    pieces, order = [], []
    for name in dict.fromkeys(chosen):
        members = [i for i, other in enumerate(chosen) if other == name]
        index = torch.tensor(members, device=images.device)
        rows = parameters[index].repeat_interleave(count, dim=0)
        pieces.append(OPERATORS[name](images[index].flatten(0, 1), rows).unflatten(0, (-1, count)))
        order += members
    return torch.cat(pieces)[torch.tensor(order, device=images.device).argsort()]


def augment_images(images: Tensor, choice: float, parameters: Tensor, strategy: Strategy) -> Tensor:
    """Apply a strategy to a batch, every image with its own parameters (training on a memory).

    Args:
        images: (n, c, h, w), normalised.
        choice: uniform number that chooses the operator for the whole batch.
        parameters: (n, draw_size - 1) uniform numbers, one row an image, on the images' device.
        strategy: from :func:`parse_strategy`.
    """
    for position, name in enumerate(strategy.chosen(choice)):
        images = OPERATORS[name](images, parameters[:, 3 * position : 3 * position + 3])
    return images


def _steps(one_draw: Tensor, strategy: Strategy) -> list[tuple[str, Tensor]]:
    names = strategy.chosen(float(one_draw[0]))
    return [(name, one_draw[1 + 3 * i : 4 + 3 * i]) for i, name in enumerate(names)]


# ---------------------------------------------------------------- operators: images (n, c, h, w), u (n, 3)


def color(images: Tensor, u: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast: one operator of the strategy with three parameters."""
    u = u[:, :, None, None, None]  # n, 3, 1, 1, 1
    images = images + (u[:, 0] - 0.5) * BRIGHTNESS
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (u[:, 1] * SATURATION) + grey
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (u[:, 2] + CONTRAST) + level


def crop(images: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the side in both directions; vacated pixels are zero."""
    n, c, h, w = images.shape
    dy, dx = _shift_range(u[:, 0], h), _shift_range(u[:, 1], w)
    rows = torch.arange(h, device=images.device) + dy[:, None]  # n, h
    columns = torch.arange(w, device=images.device) + dx[:, None]  # n, w
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
    shifted = images.gather(2, rows[:, None, :, None].expand(n, c, h, w))
    shifted = shifted.gather(3, columns[:, None, None, :].expand(n, c, h, w))
    return shifted * inside[:, None].to(images.dtype)


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Zero a rectangle of half the height and width, centred anywhere in the image and clipped at its border."""
    h, w = images.shape[-2:]
    rows, columns = _cutout_band(u[:, 0], h), _cutout_band(u[:, 1], w)
    hole = rows[:, :, None] & columns[:, None, :]
    return images * (~hole)[:, None].to(images.dtype)


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Mirror horizontally with probability one half."""
    return torch.where((u[:, 0] < FLIP)[:, None, None, None], images.flip(3), images)


def scale(images: Tensor, u: Tensor) -> Tensor:
    """Stretch both directions independently by factors of U(1/1.2, 1.2); more than 1 shrinks the content."""
    factors = u[:, :2] * (SCALE - 1 / SCALE) + 1 / SCALE
    zero = torch.zeros_like(factors[:, 0])
    rows = [factors[:, 0], zero, zero, zero, factors[:, 1], zero]
    return _warp(images, torch.stack(rows, 1).view(-1, 2, 3))


def rotate(images: Tensor, u: Tensor) -> Tensor:
    """Rotate by an angle of U(-15, 15) degrees, by pixels: of images that are not square, too, nothing is sheared."""
    angle = (u[:, 0] - 0.5) * 2 * ROTATE * math.pi / 180
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    high, wide = images.shape[2] / images.shape[3], images.shape[3] / images.shape[2]  # of a grid from -1 to 1
    return _warp(images, torch.stack([cos, -sin * high, zero, sin * wide, cos, zero], 1).view(-1, 2, 3))


OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


def _shift_range(u: Tensor, side: int) -> Tensor:
    reach = int(CROP * side + 0.5)
    return (u * (2 * reach + 1)).long().clamp(max=2 * reach) - reach


def _cutout_band(u: Tensor, side: int) -> Tensor:
    """(n, side) mask of the rows (or columns) inside the rectangle."""
    size = int(CUTOUT * side + 0.5)
    positions = side + 1 - size % 2  # an even square may be centred on the upper border itself
    centre = (u * positions).long().clamp(max=positions - 1)
    index = torch.arange(side, device=u.device)
    start = (centre - size // 2)[:, None]
    return (index >= start) & (index < start + size)


def _warp(images: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
