"""A method with all that it needs to run: its settings, and how to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.real_images import RealImages
from clreplay.condensation.registry import Condensed, Condenser, Method
from clreplay.memory.decoders import decoder
from clreplay.runtime.later import identifying
from clreplay.runtime.progress import Progress


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method, its settings, and how to compute; immutable and safe to share.

    Attributes:
        method: the registered method, or the user's own callable in its place (:meth:`of_callable`).
        settings: of the method.
        execution: of which the method heeds what :attr:`Method.execution` names.
        name: what messages call it, such as the memory's name; the method's where empty.
    """

    method: Method
    settings: Any
    execution: Execution = Execution()
    name: str = ""

    def __post_init__(self) -> None:
        self.execution.check_norm(self._norm)

    @property
    def _norm(self) -> str:
        return getattr(self.settings, "norm", "none")

    @classmethod
    def of_callable(cls, condenser: Condenser, settings: Any = None) -> ConfiguredMethod:
        """The user's own callable. Nothing is known of it ahead of its work, and its results are not cached."""
        name = getattr(condenser, "__name__", "callable")
        return cls(Method(name, object, condenser, decoding=None), settings, name=name)

    # ------------------------------------------------------------------ what is known ahead

    def values(self) -> dict[str, Any]:
        """Settings, and the part of the execution that the method heeds, by flat name."""
        settings = self.settings
        own = asdict(settings) if is_dataclass(settings) else dict(settings or {})
        return {**own, **{name: getattr(self.execution, name) for name in self.method.execution}}

    def identifying(self) -> dict[str, Any]:
        """:meth:`values` without settings that came later and change nothing (:mod:`clreplay.runtime.later`)."""
        return identifying(self.settings, self.values())

    def real_images_each(self) -> int:
        """Real images that a stored one of a selection is made of."""
        return decoder(self.decoding() or "none").images_each if self.method.selects else 1

    def decoding(self) -> str | None:
        """Name of the decoder of what is stored; None for the user's own callable."""
        return None if self.method.decoding is None else self.method.decoding(self.settings)

    def separable(self) -> bool:
        """Whether a class comes out the same whatever classes are beside it."""
        return self.method.separable(self.settings)

    def cacheable(self) -> bool:
        """Whether what it makes may be kept for other runs: if so, changed code of the method or its terms is noticed,
        or belongs to the library, which says when it changes what is made.
        """
        method = self.method
        known = bool(method.code) or method.condense.__module__.startswith("clreplay.")
        traced = all(getattr(self.settings, name, True) for name in ("is_traced", "network_is_traced"))
        return method.cached and known and traced

    def check(self, counts: Mapping[int, int], shape: tuple[int, int, int], who: str = "") -> None:
        """Tell before any work what the method cannot do.

        Args:
            counts: images of every class of an experience.
            shape: of an image: channels, height, width.
            who: the memory, and the step where there is one, for the message.

        Raises:
            ValueError: naming ``who``, the images a class, and what the method says.
        """
        try:
            self.method.check(self.settings, counts, shape)
        except ValueError as error:
            each = "/".join(str(count) for count in sorted(set(counts.values())))
            who = who or (f"memory {self.name}" if self.name else f"method {self.method.name}")
            raise ValueError(f"{who}, {each} images a class: {error}") from error

    def identity(self) -> tuple[str, dict[str, Any]]:
        """All that decides a class's outcome but its images, their number, the seed and the device."""
        method = self.method
        return (f"{method.name} {method.code}" if method.code else method.name), self.identifying()

    # ------------------------------------------------------------------ how to compute

    @property
    def is_open(self) -> bool:
        """Whether something is left to be measured on the machine at hand."""
        return "auto" in self.values().values()

    def resume(self, chosen: Mapping[str, Any], device: torch.device) -> ConfiguredMethod:
        """The same with what is open as it was chosen before, by name; see :meth:`Execution.resume`."""
        same = replace(self, execution=self.execution.resume(chosen, device))
        if getattr(self.settings, "precision", None) == "auto" and "precision" in chosen:
            same = replace(same, settings=replace(self.settings, precision=chosen["precision"]))
        return same

    def with_execution(
        self, images: Callable[[], tuple[RealImages, dict[int, int]]], device: torch.device
    ) -> ConfiguredMethod:
        """The same with everything chosen that is left to the machine: measured where that pays, plain elsewhere.

        Args:
            images: gives the experience that is tried, and the number of images of every class; called only if needed,
                since it hashes every class.
            device: where the work will be done.
        """
        if self.method.choose_execution is None:
            return self
        if not self.is_open:
            plain = self.settings.plain(device) if hasattr(self.settings, "plain") else self.settings
            return replace(self, settings=plain, execution=self.execution.plain(device, self._norm))
        settings, execution = self.method.choose_execution(self.settings, self.execution, *images(), device)
        return replace(self, settings=settings, execution=execution)

    def chosen_since(self, before: ConfiguredMethod) -> dict[str, Any]:
        """What differs from ``before``, by flat name."""
        old = before.values()
        return {name: value for name, value in self.values().items() if value != old[name]}

    def summary(self) -> str | None:
        """How it is computed, in words; None for methods that leave nothing to choose."""
        if "kernels" not in self.method.execution:
            return None
        how = self.execution
        spread = f", classes in {torch.get_num_threads()} threads" if how.parallel == "classes" else ""
        return f"{how.kernels} kernels, {how.layout.replace('_', '-')} maps, {self.settings.precision}{spread}"

    # ------------------------------------------------------------------ the work

    def condense(
        self,
        real: RealImages,
        counts: dict[int, int],
        *,
        seed: int,
        device: torch.device,
        progress: Progress | None = None,
        keep: Path | None = None,
    ) -> Condensed:
        """Run the method; arguments as of :class:`clreplay.condensation.registry.Condenser`.

        Raises:
            ValueError: the method left a class out, or names another decoder than it was registered with.
        """
        more: dict[str, Any] = {} if keep is None else {"keep": keep}  # the user's own callables need not accept it
        if self.method.execution:
            more["execution"] = self.execution
        condensed = self.method.condense(
            real, counts, self.settings, seed=seed, device=device, progress=progress, **more
        )
        if set(condensed.images) != set(real.classes):
            raise ValueError(f"the condenser gave classes {sorted(condensed.images)}, but was asked for {real.classes}")
        declared = self.decoding()
        if declared is not None and condensed.decoding != declared:
            raise ValueError(
                f"method {self.method.name!r} gave images with decoding {condensed.decoding!r}, but is registered with "
                f"{declared!r}; give @register(..., decoding=...) and Condensed(..., decoding=...) the same"
            )
        return condensed
