"""Pixel codes to network input and back, bit for bit the arithmetic of torchvision's transforms."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Images per step of `invert`: bounds its temporary memory and lets a mismatch end it early.
_CHUNK = 2048
# Pixel codes that `measured_normalization` counts at a time; counting takes eight bytes for each.
_MEASURED_AT_ONCE = 1 << 24
# Images that `recognise_pixels` compares before it compares all of them.
_CHECKED_FIRST = 4


@dataclass(frozen=True)
class Normalization:
    """Per-channel `(pixel / 255 - mean) / std`.

    Args:
        mean: one value a channel, on the [0, 1] pixel scale.
        std: one value a channel, positive, on the same scale.

    Raises:
        ValueError: lengths differ or are zero, a value is not finite, or a `std` is not positive in float32.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must have one value a channel each, got {len(self.mean)} and {len(self.std)} values"
            )
        # In float32, the precision they are used in: 1e-50 is positive but would divide by zero.
        mean = torch.tensor(self.mean, dtype=torch.float32)
        std = torch.tensor(self.std, dtype=torch.float32)
        if not torch.isfinite(mean).all():
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not (torch.isfinite(std) & (std > 0)).all():
            raise ValueError(f"std must be positive and finite, got {self.std}; use 1.0 for a constant channel")

    def apply(self, images: Tensor) -> Tensor:
        """Normalise pixel codes exactly as torchvision's `ToTensor` and `Normalize` do.

        Args:
            images: uint8 (n, c, h, w), on any device.

        Returns:
            float32 (n, c, h, w) on the same device.

        Raises:
            ValueError: another dtype or shape, or another number of channels than this normalisation has.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 (n, c, h, w), got {_describe(images)}; pass the pixel codes 0..255")
        self._check_channels(images)
        full_scale, mean, std = _constants(self, images.device)
        return images.to(torch.float32).div_(full_scale).sub_(mean).div_(std)

    @torch.no_grad()
    def invert(self, images: Tensor) -> Tensor | None:
        """Recover the pixel codes of images that `apply` (or torchvision) normalised.

        Args:
            images: floating point (n, c, h, w), on any device.

        Returns:
            uint8 (n, c, h, w) on the same device if every value is, bit for bit, `apply` of a code; else None.

        Raises:
            ValueError: integer images, another shape, or another number of channels than this normalisation has.
        """
        _check_floating(images)
        self._check_channels(images)
        if images.dtype != torch.float32:
            return None
        full_scale, mean, std = _constants(self, images.device)
        codes = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK].detach()
            nearest = chunk.mul(std).add_(mean).mul_(full_scale).round_().clamp_(0, 255).nan_to_num_(0)
            nearest = nearest.to(torch.uint8)
            # As integers, so that -0.0 is not taken for 0.0.
            if not torch.equal(self.apply(nearest).view(torch.int32), chunk.view(torch.int32)):
                return None
            codes[start : start + _CHUNK] = nearest
        return codes

    def expand(self, channels: int) -> "Normalization":
        """The same normalisation for `channels` channels; one channel's constants are repeated.

        Raises:
            ValueError: this normalisation has several channels, and not that many.
        """
        if len(self.mean) == channels:
            return self
        if len(self.mean) != 1 or channels < 1:
            raise ValueError(f"channels must be {len(self.mean)} for this normalisation, got {channels}")
        return Normalization(self.mean * channels, self.std * channels)

    def _check_channels(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"images must be (n, {len(self.mean)}, h, w) for this normalisation, got {_describe(images)}; "
                "one mean and std a channel"
            )


@lru_cache(maxsize=64)
def _constants(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    # 255 is a tensor on the device because CUDA divides by a Python number through its reciprocal, which
    # rounds half of the codes differently. Cached: a copy to the device for each batch would stall it.
    full_scale = torch.tensor(255.0, dtype=torch.float32, device=device)
    mean = torch.tensor(normalization.mean, dtype=torch.float32, device=device).view(-1, 1, 1)
    std = torch.tensor(normalization.std, dtype=torch.float32, device=device).view(-1, 1, 1)
    return full_scale, mean, std


_CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# The constants of the condensation literature (those of Zhao et al.'s DC, DSA and DM code), kept although
# CIFAR-10's std is the mean of per-image deviations: published numbers were made with them.
# `avalanche_...`: what Avalanche's Split benchmarks apply by default, so that their floats are recognised.
NORMALIZATIONS: dict[str, Normalization] = {
    "cifar10": _CIFAR10,
    "cifar100": Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": Normalization((0.1307,), (0.3081,)),
    "fashionmnist": Normalization((0.2861,), (0.3530,)),
    "svhn": Normalization((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "imagenet": _IMAGENET,
    "tinyimagenet": _IMAGENET,
    # Measured on the training split of `load_digits`.
    "digits": Normalization((0.3054,), (0.3239,)),
    "half": Normalization((0.5,), (0.5,)),  # pixels to [-1, 1], for any number of channels
    "avalanche_cifar10": _CIFAR10,
    "avalanche_cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "avalanche_fashionmnist": Normalization((0.2860,), (0.3530,)),
    "avalanche_tinyimagenet": _CIFAR10,
}


def measured_normalization(images: Tensor) -> Normalization:
    """The exact mean and deviation of these images, from the histogram of every channel.

    Args:
        images: uint8 (n, c, h, w), on any device; may be mapped from a file larger than memory.
    """
    step = max(1, _MEASURED_AT_ONCE // max(1, images[:1].numel()))
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in images.split(step):
        counts += torch.stack([torch.bincount(c.flatten(), minlength=256) for c in chunk.cpu().unbind(1)])
    levels = torch.arange(256, dtype=torch.float64)
    share = counts.double() / counts.double().sum(1, keepdim=True)
    mean = share @ levels
    deviation = (share @ levels.square() - mean.square()).clamp_min(1e-6).sqrt()
    return Normalization(tuple((mean / 255).tolist()), tuple((deviation / 255).tolist()))


def recognise_pixels(images: Tensor) -> tuple[Tensor, Normalization] | None:
    """Find the pixel codes behind float images, if a known normalisation or the plain [0, 1] scale made them.

    Every entry of `NORMALIZATIONS` with this number of channels is tried, those of one channel also repeated
    (grey images copied into three channels), and `pixel / 255`.

    Args:
        images: floating point (n, c, h, w), on any device.

    Returns:
        The codes, uint8 (n, c, h, w), and the normalisation with `normalization.apply(codes)` equal to
        `images` bit for bit; None if there is no such normalisation, or no image.

    Raises:
        ValueError: integer images or another shape.
    """
    _check_floating(images)
    if images.ndim != 4:
        raise ValueError(f"images must be (n, c, h, w), got {_describe(images)}; add the missing axes")
    if images.numel() == 0:
        return None
    for normalization in _known(images.shape[1]):
        if normalization.invert(images[:_CHECKED_FIRST]) is None:
            continue
        codes = normalization.invert(images)
        if codes is not None:
            return codes, normalization
    return None


def pixel_codes(images: Tensor, normalization: Normalization | None = None) -> tuple[Tensor, Normalization | None]:
    """Float images as pixel codes with their normalisation, if that loses nothing; else the same floats and None.

    Args:
        images: floating point (n, c, h, w).
        normalization: the one to try; None tries all that are known (:func:`recognise_pixels`).
    """
    if normalization is None:
        return recognise_pixels(images) or (images, None)
    codes = normalization.invert(images)
    return (images, None) if codes is None else (codes, normalization)


def _known(channels: int) -> list[Normalization]:
    fitting = [known.expand(channels) for known in NORMALIZATIONS.values() if len(known.mean) in (1, channels)]
    plain = Normalization((0.0,) * channels, (1.0,) * channels)
    return list(dict.fromkeys([*fitting, plain]))


def _check_floating(images: Tensor) -> None:
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point (n, c, h, w), got {_describe(images)}; pixel codes need no recovering"
        )


def _describe(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
