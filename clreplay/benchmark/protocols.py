"""Evaluation protocols: how a network is trained on a condensed set, or on all real images, before it is tested.

``common`` is the same for every method (DM's protocol: ``strategies/training.yaml``). ``authors`` trains on each
method's images as its authors do, ``idc`` on everybody's as IDC's authors do. In all of them the last epoch of every
network counts: authors who report the best of several test accuracies are not followed in that. Numbers of two
protocols are never in one column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

from clreplay.benchmark.cells import WHOLE
from clreplay.networks.settings import network_settings
from clreplay.networks.table import find_network
from clreplay.recipes.recipe import idc_like, training_settings
from clreplay.recipes.typed_settings import build
from clreplay.runtime.progress import counted
from clreplay.training.cutmix import CutMixSettings
from clreplay.training.settings import TrainingSettings

PROTOCOLS = {
    "common": "one evaluator for all methods: DM's protocol, last epoch",
    "authors": "each method evaluated as its authors do, but always by the last epoch",
    "idc": "all methods evaluated as IDC's authors do (CutMix, longer schedule), but by the last epoch",
}
NO_AUGMENTATION = {"epochs": 300, "augment": None}
"""DC's protocol, from which the published coreset rows were copied as well."""
AUTHORS: dict[str, dict[str, Any]] = {
    "random": NO_AUGMENTATION,
    "herding": NO_AUGMENTATION,
    "forgetting": NO_AUGMENTATION,
    "dc": NO_AUGMENTATION,
    "datadam": {"epochs": 1800, "batch_size": 64, "norm": "batch"},
    "datadam+sm": {"epochs": 1800, "batch_size": 64, "norm": "batch"},
}
"""What the authors do otherwise than DM; who is not named trains as DM does (DSA, CAFE+DSA, IDM on four times the
images, DDM). The network that DataDAM's code calls ConvNet has batch norm."""
IDC_LIKE = ("idc", "dance")
"""Recipes whose authors evaluate as IDC's do."""
WHOLE_EPOCHS = {"paper": {"epochs": 200}, "cpu": {"updates": 2000}, "smoke": {"updates": 20}}
"""Length of a training on all real images, by preset. The papers do not say; the length is ours."""
SEARCH_LENGTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({"epochs": 200}, {"epochs": 200}),
    "cpu": ({"updates": 60}, {"updates": 400}),
    "smoke": ({"updates": 2}, {"updates": 2}),
}
"""Length of the architecture search's trainings, on condensed and on all real images, by preset (the paper's: 200)."""
WHOLE_NETWORKS = 5
"""Networks trained on all real images at most, by default: there is no condensed set to repeat."""


@dataclass(frozen=True)
class Training:
    """How one network is trained; plain, so that it can be hashed and sent to another process.

    Attributes:
        loop: ``dm`` or ``cutmix``.
        settings: of the loop, network included.
    """

    loop: str
    settings: TrainingSettings

    def as_plain(self) -> dict[str, Any]:
        """What identifies it, as JSON knows it."""
        # Not asdict, which copies: a search asks for it thousands of times.
        return {"loop": self.loop, **{one.name: getattr(self.settings, one.name) for one in fields(self.settings)}}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Training:
        """The reverse of :meth:`as_plain`."""
        values = {name: value for name, value in plain.items() if name != "loop"}
        return cls(plain["loop"], build(_SETTINGS[plain["loop"]], values, "training"))


_SETTINGS = {"dm": TrainingSettings, "cutmix": CutMixSettings}


def training_of(
    protocol: str,
    recipe: str,
    network: str,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    images_per_class: int | None = None,
) -> Training:
    """How networks are trained on the images of one method.

    Args:
        protocol: a key of :data:`PROTOCOLS`.
        recipe: the method's recipe, or :data:`clreplay.benchmark.cells.WHOLE`.
        network: what is trained, by name.
        preset: ``paper``, ``cpu`` or ``smoke``.
        overrides: single settings of the learner.
        dataset, images_per_class: what the networks are trained on; the learner's recipe may have cases for it.

    Raises:
        ValueError: a setting does not fit, or the authors' way cannot be gone.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "authors" and recipe == "dd":
        raise ValueError(
            "dd's authors train with the steps and step sizes that were learned with the images; "
            "a set of images does not hold them"
        )
    given = {**dict(overrides or {}), **network_settings(network)}
    by_idc = protocol == "idc" or (protocol == "authors" and recipe in IDC_LIKE)
    where = (dataset, images_per_class)
    settings = _idc_settings(preset, given, *where) if by_idc else _learner(preset, given, *where)
    changes: dict[str, Any] = {}
    if recipe == WHOLE:
        changes = WHOLE_EPOCHS[preset]
    elif protocol == "authors":
        changes = _scaled(AUTHORS.get(recipe, {}), settings)
        if "norm" not in find_network(network).options():
            changes.pop("norm", None)
    settings = replace(settings, **{name: value for name, value in changes.items() if name not in given})
    return Training("cutmix" if by_idc else "dm", settings)


def search_trainings(
    options: Mapping[str, Any],
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    images_per_class: int | None = None,
) -> tuple[Training, Training]:
    """How one architecture of the search is trained on condensed images, and on all real ones.

    Args:
        options: of the ConvNet, see :func:`clreplay.networks.search_space`.
        preset: ``paper``, ``cpu`` or ``smoke``.
        overrides: single settings of the learner, for both.
        dataset, images_per_class: what the networks are trained on, see :func:`training_of`.
    """
    given, counts = dict(overrides or {}), (images_per_class, None)  # all real images have no such number
    first, second = (
        Training("dm", _learner(preset, {"network": "convnet", **length, **given, **options}, dataset, count))
        for length, count in zip(SEARCH_LENGTH[preset], counts)
    )
    return first, second


def lasting(settings: TrainingSettings) -> str:
    """Length of a training in words: DM's loop runs one epoch more than its setting says."""
    if settings.updates is not None:
        return f"{settings.updates} updates"
    return f"{settings.epochs} epochs ({settings.epochs + 1}, as DM's authors count)"


def whole_note(settings: TrainingSettings, networks: int) -> str:
    """What is said wherever all real images are trained on."""
    are = "is" if networks == 1 else "are"
    return (
        f"On all real images {counted(networks, 'network')} {are} trained for {lasting(settings)}; the papers do not "
        "say how many, nor for how long."
    )


@cache
def _recipe(preset: str, dataset: str | None, images_per_class: int | None) -> dict[str, Any]:
    """The learner's recipe, read once: a plan asks for it thousands of times."""
    return asdict(training_settings(preset, None, dataset, images_per_class))


def _learner(
    preset: str, given: Mapping[str, Any], dataset: str | None, images_per_class: int | None
) -> TrainingSettings:
    """The learner's settings under a preset, with single settings changed."""
    return build(TrainingSettings, {**_recipe(preset, dataset, images_per_class), **given}, "training")


def _idc_settings(
    preset: str, given: Mapping[str, Any], dataset: str | None, images_per_class: int | None
) -> CutMixSettings:
    """See :func:`clreplay.recipes.recipe.idc_settings`."""
    return idc_like(lambda others: _learner(preset, others, dataset, images_per_class), given)


def _scaled(changes: Mapping[str, Any], settings: TrainingSettings) -> dict[str, Any]:
    """Authors' changes under a preset that counts updates: their length relative to DM's 1000 epochs."""
    scaled = dict(changes)
    if settings.updates is not None and "epochs" in scaled:
        scaled["updates"] = max(1, round(settings.updates * scaled.pop("epochs") / 1000))
    return scaled
