"""A planned domain-incremental experiment: the same classes at every step, each time as another domain has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from clreplay.condensation import RealImages
from clreplay.data import Dataset, ImageSet
from clreplay.data.domains import DomainDataset, check_domains
from clreplay.incremental.experiment_plan import SAMPLE, ExperimentPlan
from clreplay.incremental.settings import ContinualSettings
from clreplay.memory.replay_memory import ReplayMemory
from clreplay.recipes.recipe import Recipe


@dataclass(frozen=True, eq=False)
class DomainPlan(ExperimentPlan):
    """A domain-incremental experiment: all classes come at every step, each time as another domain has them.

    What a class may have is shared by the domains in which it came: their images are made of each domain's own real
    ones, and dropped as others come.
    """

    kind = "domain-incremental"
    returning = "share"

    @property
    def _domains(self) -> tuple[Dataset, ...]:
        assert isinstance(self.data, DomainDataset)
        return self.data.domains

    @property
    def domain_names(self) -> tuple[str, ...]:
        """In the order in which they come."""
        assert isinstance(self.data, DomainDataset)
        return self.data.domain_names

    def classes(self, order: int) -> list[list[int]]:
        """All of them, at every step."""
        return [list(range(self.data.num_classes)) for _ in range(self.settings.steps)]

    @property
    def sizes(self) -> list[int]:
        """Classes of every step."""
        return [self.data.num_classes] * self.settings.steps

    def seen_at(self, step: int) -> int:
        """All classes."""
        return self.data.num_classes

    def images_at(self, step: int) -> int:
        """Images stored after a step (0-based), about."""
        there = sum(
            torch.bincount(one.train.labels, minlength=one.num_classes) for one in self._domains[: step + 1]
        ).tolist()
        return sum(min(quota, most) for quota, most in zip(self.quotas(self.data.num_classes), there))

    def counts_at(self, step: int) -> dict[int, int]:
        """Stored images to make of every class at a step: equal parts of what it may have."""
        return {label: quota // (step + 1) for label, quota in enumerate(self.quotas(self.data.num_classes))}

    def tested_at(self, step: int) -> float:
        """Test images of the domains seen."""
        return sum(len(one.test) for one in self._domains[: step + 1])

    def test_sets(self, classes: list[int], step: int) -> list[ImageSet]:
        """Those of every domain seen."""
        return [one.test for one in self._domains[: step + 1]]

    @property
    def train_images(self) -> int:
        """Real images of all domains."""
        return sum(len(one.train) for one in self._domains)

    def holds(self, memory: ReplayMemory, order: int, step: int) -> bool:
        """Whether a memory has images of a step's domain."""
        return all(label in memory.slots and len(memory.sources(label)) > step for label in self.classes(order)[step])

    @property
    def shrinks(self) -> bool:
        """Always."""
        return True

    def new_memory(self, recipe: Recipe, order: int) -> ReplayMemory:
        """An empty memory, which says which domains will come."""
        memory = super().new_memory(recipe, order)
        memory.total_sources = self.settings.steps
        memory.info["domains"] = list(self.domain_names)
        return memory

    def real_images(self, classes: list[int], step: int = 0) -> RealImages:
        """The training images of a step's domain."""
        part = self._domains[step].train.of_classes(classes)
        return RealImages(part.images, part.labels, self.data.normalization)

    def benchmark_sets(self) -> list[tuple[ImageSet, ImageSet]]:
        """Training and test images of every domain."""
        return [(one.train, one.test) for one in self._domains]

    def shown_images(self, each: int) -> ImageSet:
        """See :meth:`clreplay.data.domains.DomainDataset.shown_images`."""
        assert isinstance(self.data, DomainDataset)
        return self.data.shown_images(each)

    def check_shares(self) -> None:
        """Whether every domain gets an image of every class.

        Raises:
            ValueError: it does not.
        """
        s, domains = self.settings, self.settings.steps
        if s.budget.in_bytes:
            share = s.budget.share(self.data.num_classes) // domains
            fits = s.memory(self.data.normalization).expected_images(share, self.data.train.images[:SAMPLE])
            least = f"{share:,} bytes of each, too few for an image"
        else:
            quota = min(self.quotas(self.data.num_classes))
            fits, least = quota // domains, f"{quota} images of a class"
        if fits < 1:
            raise ValueError(
                f"a budget of {s.budget} leaves {least} for {domains} domains that share it; raise it, or give fewer "
                "domains"
            )

    def as_settings(self) -> dict[str, Any]:
        """With the domains."""
        found = super().as_settings()
        return {**found, "steps": self.settings.steps, "domains": list(self.domain_names)}


def check_steps_of_domains(settings: ContinualSettings) -> list[str]:
    """The domains of an experiment, of which nothing else may say what comes when.

    Raises:
        ValueError: there is a class order as well, or as :func:`clreplay.data.domains.load_domains`.
    """
    assert settings.domains is not None
    if settings.class_order is not None or settings.first_step is not None or settings.class_orders not in (None, 1):
        raise ValueError(
            "domains come in the order in which they are given, all classes at once: leave class_order, class_orders "
            "and first_step out"
        )
    return check_domains(settings.domains, settings.dataset or None)
