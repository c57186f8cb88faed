"""A replay buffer of condensed images for a training loop of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clreplay.api import as_pixel_codes
from clreplay.buffer.met import Met
from clreplay.condensation import Condenser, ConfiguredMethod, RealImages, condense_experience
from clreplay.condensation.intake import check_returning
from clreplay.data import Normalization
from clreplay.memory.balanced import balanced_rows
from clreplay.memory.class_cache import ClassCache
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.given import checked_seed, given_memory, given_method, loaded_method, warn_of_long_work
from clreplay.recipes.presets import default_preset
from clreplay.recipes.recipe import Recipe
from clreplay.runtime.device import default_device
from clreplay.runtime.progress import Progress, check_progress, shown
from clreplay.runtime.seeding import generator
from clreplay.training.augmentation import augment_images, draw, parse_strategy


class ReplayBuffer:
    """Collects the images of the present experience, condenses them when it ends, and gives batches of what is kept.

    Args:
        method: a memory's name (``ddm``, ``dm``, ``herding``, ``random``), the path of a recipe, a recipe, a
            configured method, or a callable of one's own, see :class:`clreplay.condensation.Condenser`.
        images_per_class, mem_size, bytes_per_class, mem_bytes: the budget, one of them, of every class or of all
            together; 10 images of every class where none is given.
        preset: ``paper`` (meant for a GPU), ``cpu`` or ``smoke``; None takes ``paper`` on a GPU and ``cpu`` otherwise,
            and says so in the log.
        normalization: as for :func:`clreplay.condense`; None takes mean and deviation of the first experience, if it
            is uint8, and what can be recovered from floats. All later experiences are normalised alike.
        augment: strategy of the batches of :meth:`sample`, such as ``"color_crop_flip"``: one operator a batch, with
            parameters an image; None for none.
        seed: of all chance, that of :meth:`sample` included.
        device: where to condense; None takes a GPU if there is one.
        progress: called with (done, total, unit), or with a line now and then where it takes a text (``print``); None
            draws a bar on a terminal, False shows nothing.
        dataset: name of the data, for a recipe's settings for some data sets.
        memory: a :class:`clreplay.ReplayMemory` to go on with, or the path of its file, in place of a budget and store.
        store, quality, pixels: how images are kept, see :class:`clreplay.ReplayMemory`.
        cache: folder where condensed classes are stored for other runs; None stores none.
        returning: what becomes of classes that come again: ``condense`` makes them anew of what is stored and what
            comes, each by the number of real images that it stands for; ``keep`` leaves what is stored and says so;
            ``refuse`` is an error when they are observed.
        **settings: any setting of the recipe, such as ``iterations=500``.

    Attributes:
        memory: the :class:`clreplay.ReplayMemory`, to be saved with ``memory.save(path)``.

    Raises:
        ValueError: budgets, seed, strategy or settings are none.

    Example:
        >>> buffer = ReplayBuffer("ddm", images_per_class=20, preset="cpu", normalization="cifar10")
        >>> for images, labels in loader:
        ...     if not buffer.is_empty():
        ...         old_images, old_labels = buffer.sample(len(images))
        ...     buffer.observe(images, labels)
        >>> buffer.consolidate()  # at the end of every experience
    """

    def __init__(
        self,
        method: str | Path | Recipe | ConfiguredMethod | Condenser = "ddm",
        images_per_class: int | None = None,
        mem_size: int | None = None,
        *,
        preset: str | None = None,
        normalization: Normalization | str | None = None,
        augment: str | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: Progress | bool | None = None,
        dataset: str | None = None,
        memory: ReplayMemory | str | Path | None = None,
        store: str | None = None,
        quality: int | str | None = None,
        pixels: int | None = None,
        bytes_per_class: int | None = None,
        mem_bytes: int | None = None,
        cache: str | Path | None = None,
        returning: str = "condense",
        **settings: Any,
    ) -> None:
        budget = {"images_per_class": images_per_class, "mem_size": mem_size}
        budget.update(bytes_per_class=bytes_per_class, mem_bytes=mem_bytes)
        if memory is None and all(value is None for value in budget.values()):
            budget["images_per_class"] = 10
        self.memory = given_memory(memory, budget, store, quality, pixels)
        check_progress(progress)
        self.seed, self.device, self.progress = checked_seed("seed", seed), default_device(device), progress
        method = loaded_method(method, settings, ReplayBuffer.__init__)
        chosen = default_preset(self.device) if preset is None else preset
        where = (dataset, self.memory.images_per_class)
        self.configured, self._unasked = given_method(method, preset, chosen, settings, where)
        self.normalization, self.strategy = normalization, parse_strategy(augment)
        self.cache = None if cache is None else ClassCache(cache)
        self.returning = check_returning(returning)
        self._met, self._draws = Met(), 0

    def __len__(self) -> int:
        """Stored images; those of the present experience are not among them."""
        return len(self.memory)

    def __repr__(self) -> str:
        return f"ReplayBuffer({self.configured.name}, {self.memory!r}, {len(self._met)} images met since)"

    def is_empty(self) -> bool:
        """Whether there is nothing yet to draw from: before the first :meth:`consolidate`."""
        return not self.memory.slots

    @property
    def classes(self) -> list[int]:
        """Labels in memory, in order of arrival."""
        return self.memory.classes

    def observe(self, images: Tensor, labels: Tensor, task_labels: Tensor | int | None = None) -> None:
        """Take note of a batch of the present experience, such as a loop trains on; the same image counts once.

        Args:
            images: (n, c, h, w), before augmentation: uint8 pixel codes, floats within [0, 1] if the buffer has
                a normalization, or normalised floats. Copied to the CPU.
            labels: (n,) integers of at least 0, in any numbering.
            task_labels: (n,) integers, or one for all; 0 where they are not given.

        Raises:
            ValueError: they are unusable, unlike those before, or of a class that may not come again; nothing is
                noted then.
        """
        shape = next((slot.shape for slot in self.memory.slots.values()), None)
        if len(images):  # an empty batch is no error of a stream
            self._check_new(labels)
            self._met.add(images, labels, task_labels, shape)

    def consolidate(self) -> float:
        """Condense what was observed since the last call into the memory, and forget the images.

        Returns:
            seconds spent; 0 where nothing was observed.

        Raises:
            ValueError: as :func:`clreplay.condense`; what was observed is still there then.
        """
        if not len(self._met):
            return 0.0
        warn_of_long_work(self.configured, self.device)
        images, labels, tasks = self._met.all()
        of_class = {label: sorted({*tasks[labels == label].tolist()}) for label in self._met.classes()}
        several = {label: found for label, found in of_class.items() if len(found) > 1}
        if several:
            label, found = next(iter(several.items()))
            raise ValueError(f"class {label} comes with several task labels {found}; a class needs one")
        # What learns needs gradients, also where the caller has switched them off.
        with torch.inference_mode(False), torch.enable_grad():
            images, normalization = self._normalised(images)
            real = RealImages(images, labels, normalization)
            before = self.memory.normalization
            self.memory.normalization = before if self.memory.slots else normalization
            if self._unasked is not None and not self.memory.slots:
                self._unasked.say(self.configured, real, self.memory.images_per_class, self.device)
            try:
                with shown(self.progress, f"{self.configured.name}, condensing") as progress:
                    seconds = condense_experience(
                        self.memory,
                        real,
                        self.configured,
                        seed=self.seed,
                        device=self.device,
                        task_labels={label: found[0] for label, found in of_class.items()},
                        progress=progress,
                        cache=self.cache,
                        returning=self.returning,
                        keep_whole=True,
                    )
            except BaseException:
                self.memory.normalization = before
                raise
        self.memory.info["method"] = self.configured.name
        self._met.clear()
        return seconds

    def sample(self, size: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Draw a class-balanced batch; all images of a class come before one of them comes again.

        Args:
            size: images; it may exceed those that are stored.
            device: where to put them; None leaves them on the CPU.

        Returns:
            images float32 (size, c, h, w), decoded and normalised, and labels (size,) int64. The seed and the number of
            earlier draws decide what is drawn, never the global generator.

        Raises:
            ValueError: the size is none, or nothing has been consolidated yet.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"size must be an integer of at least 1, got {size!r}")
        if self.is_empty():
            raise ValueError("the buffer is empty; call observe and consolidate first, or ask is_empty()")
        chance, self._draws = generator(self.seed, "sample", self._draws), self._draws + 1
        rows = balanced_rows(self.memory.labels, size, chance)
        choice, *_ = torch.rand(1, generator=chance).tolist()
        images = self.memory.images[rows].to(device)
        parameters = draw(size, self.strategy, chance)[:, 1:].to(device)
        return augment_images(images, choice, parameters, self.strategy), self.memory.labels[rows].to(device)

    # ------------------------------------------------------------------ saving and going on

    def state_dict(self) -> dict[str, Any]:
        """Memory, images met since the last consolidation, and draws made; tensors and plain values only."""
        met = dict(zip(("images", "labels", "task_labels"), self._met.all())) if len(self._met) else {}
        return {"memory": self.memory.state_dict(), "met": met, "draws": self._draws, "made_with": self._made_with()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is incomplete, or of a buffer that was made otherwise; nothing is changed then.
        """
        missing = [name for name in ("memory", "met", "draws", "made_with") if name not in state]
        if missing:
            raise ValueError(f"the buffer's state lacks {', '.join(missing)}; it is incomplete")
        ours, theirs = self._made_with(), state["made_with"]
        other = [f"{name} {value!r} (here {ours.get(name)!r})" for name, value in theirs.items() if ours[name] != value]
        if other:
            raise ValueError(f"the state is of a buffer with {', '.join(other)}; make this one as that was made")
        met = Met()
        if state["met"]:
            found = state["met"]
            met.add(found["images"], found["labels"], found["task_labels"], None)
        self.memory.load_state_dict(state["memory"])
        self._met, self._draws = met, state["draws"]

    def save(self, path: str | Path) -> None:
        """Write the memory as a file, which ``ReplayBuffer(memory=path)`` goes on with.

        Raises:
            ValueError: images were observed and not consolidated, which a memory's file cannot hold.
        """
        if len(self._met):
            raise ValueError(
                f"{len(self._met)} images were observed and not consolidated; call consolidate first, or save "
                "state_dict(), which holds them"
            )
        self.memory.save(path)

    # ------------------------------------------------------------------ inside

    def _check_new(self, labels: Any) -> None:
        again = sorted({*torch.as_tensor(labels).tolist()} & {*self.memory.classes})
        if again and self.returning == "refuse":
            raise ValueError(f"classes {again} are in memory already, and returning='refuse' lets none come again")

    def _normalised(self, images: Tensor) -> tuple[Tensor, Normalization | None]:
        """Pixel codes with the memory's normalisation where they are known, normalised floats otherwise."""
        if not self.memory.slots:
            return as_pixel_codes(images, self.normalization)
        wanted = self.memory.normalization
        if wanted is None:
            if images.dtype == torch.uint8:
                raise ValueError("the memory was made of floats, now uint8 images came; give all in one type")
            return images, None
        return as_pixel_codes(images, wanted)

    def _made_with(self) -> dict[str, Any]:
        budget, value = self.memory.budget.given
        return {
            "method": self.configured.name,
            "seed": self.seed,
            budget: value,
            "store": self.memory.store,
            "pixels": self.memory.stored_pixels,
        }
