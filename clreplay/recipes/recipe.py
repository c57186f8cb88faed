"""Recipes: one YAML file a compared memory strategy, the single home of its settings.

A recipe names the registered method it uses, the paper's settings, and smaller presets beside them::

    method: matching
    settings: {iterations: 20000, lr_img: 1.0}
    presets:
      paper: {}
      cpu: {iterations: 300}
      smoke: {iterations: 5}

``label`` is what pictures call it, ``summary`` says what it keeps and ``source`` where it comes from, ``cost`` what an
iteration takes beside one of ``dm``, where that was measured.
``base`` names a shipped recipe, or a file of ``strategies/base``, whose method, settings, cases and presets a recipe
builds on; ``terms`` are the terms of a matching loss with their weights (:mod:`.terms`); ``cases`` are settings for
some data sets or numbers of images a class only (:mod:`.cases`); ``code`` names a Python file, beside the recipe,
that registers the user's own methods or terms (:mod:`.own_code`).

Unknown keys and wrong types are errors that name the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial, reduce
from pathlib import Path
from typing import Any

from clreplay.condensation import METHODS
from clreplay.condensation.configured import ConfiguredMethod
from clreplay.condensation.engine.execution import Execution
from clreplay.condensation.matching.terms import with_registered
from clreplay.condensation.registry import Method
from clreplay.networks.table import find_network, is_network
from clreplay.recipes.cases import Case
from clreplay.recipes.content import PRESETS, TRAINING_FILE, flat, on_top, read, with_bases
from clreplay.recipes.own_code import own_methods
from clreplay.recipes.terms import Known, flattened, known_terms
from clreplay.recipes.typed_settings import RecipeError, build, checked_values
from clreplay.training.augmentation import parse_strategy
from clreplay.training.cutmix import CutMixSettings
from clreplay.training.settings import TrainingSettings


@dataclass(frozen=True)
class Recipe:
    """One memory strategy: a method and its settings by preset.

    Attributes:
        name: what ``--memory`` calls it.
        label: what pictures call it.
        method: the registered condenser.
        path: the file.
    """

    name: str
    label: str
    method: Method
    path: Path
    content: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """What it keeps, in a few words; its label where the recipe does not say."""
        return str(self.content.get("summary", self.label))

    @property
    def source(self) -> str:
        """Where it comes from, in one paragraph; empty where the recipe does not say."""
        return " ".join(str(self.content.get("source", "")).split())

    @property
    def cost(self) -> float | None:
        """Time of an iteration beside that of ``dm``, where it was measured (width 128, float32, a CPU)."""
        return self.content.get("cost")

    @property
    def cases(self) -> list[Case]:
        """Settings for some data sets or numbers of images a class only."""
        return [case for _, case in self.content["cases"]]

    @property
    def terms(self) -> Known:
        """The terms of a matching loss that it may name."""
        return known_terms(self.method)

    def settings(
        self,
        preset: str = "paper",
        overrides: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        images_per_class: int | None = None,
    ) -> Any:
        """The method's settings: the recipe's, then the cases that apply, the preset, and overrides last.

        Args:
            preset: ``paper``, ``cpu`` or ``smoke``.
            overrides: single settings.
            dataset: name of the data set; None where it is not known.
            images_per_class: images stored a class; None where they change as classes arrive.

        Raises:
            RecipeError: unknown preset or key, or a value of the wrong type.
        """
        return self.configured(preset, overrides, dataset, images_per_class).settings

    def configured(
        self,
        preset: str = "paper",
        overrides: Mapping[str, Any] | None = None,
        dataset: str | None = None,
        images_per_class: int | None = None,
    ) -> ConfiguredMethod:
        """The method with its settings and how to compute; arguments and errors are those of :meth:`settings`."""
        cases = _applying(self.cases, dataset, images_per_class)
        overrides = flattened(overrides or {}, str(self.path), self.terms)
        values = _merged(self.content, preset, overrides, str(self.path), cases)
        return _configured(self.method, values, str(self.path), self.name)

    def rebuilt(self, values: Mapping[str, Any]) -> ConfiguredMethod:
        """The method with the values that :meth:`ConfiguredMethod.values` gave, whatever the recipe says by now."""
        return _configured(self.method, values, str(self.path), self.name)

    def keys(self) -> list[str]:
        """Every setting the recipe accepts."""
        return [*(field.name for field in fields(with_registered(self.method.settings))), *self.method.execution]

    def check_keywords(self, given: Iterable[str], function: Callable[..., Any]) -> None:
        """Tell a misspelt argument of a function, which takes all other keywords as settings, from a setting.

        Raises:
            RecipeError: a keyword is no setting and nearly an argument.
        """
        arguments = [
            name for name, one in inspect.signature(function).parameters.items() if one.kind != one.VAR_KEYWORD
        ]
        known = {*self.keys(), *arguments}
        for key in given:
            close = [] if key in known else difflib.get_close_matches(key, known, n=1, cutoff=0.75)
            if close and close[0] in arguments:
                raise RecipeError(f"unknown argument {key!r}, did you mean {close[0]!r}?")

    def check(self) -> None:
        """Try every preset, and every case where it applies.

        Raises:
            RecipeError: naming the file, the entry, the key and what is allowed.
        """
        _check(partial(_configured, self.method), partial(_typed, self.method), self.content, str(self.path))


def strategies_dir() -> Path:
    """Where the shipped recipes are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "strategies", package.parent / "strategies"):
        if (place / f"{TRAINING_FILE}.yaml").is_file():
            return place
    raise FileNotFoundError(f"no recipes beside {package}; reinstall clreplay")


def recipe_names() -> list[str]:
    """Names of the shipped memories, sorted."""
    return sorted(path.stem for path in strategies_dir().glob("*.yaml") if path.stem != TRAINING_FILE)


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or the user's own recipe by the path of its ``.yaml`` file.

    Raises:
        RecipeError: there is no such recipe, or the file is malformed.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = strategies_dir() / f"{name}.yaml"
        if str(name) == TRAINING_FILE or not path.is_file():
            close = difflib.get_close_matches(str(name).lower(), recipe_names(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise RecipeError(
                f"unknown memory {str(name)!r}{hint} Known: {', '.join(recipe_names())}; "
                "or give the path of a .yaml recipe"
            )
    chain = with_bases(path, strategies_dir())
    methods = [content["method"] for _, content in chain if "method" in content]
    method = _method({**chain[0][1], "method": methods[0] if methods else None}, path)
    known = known_terms(method)
    # From the lowest base up, by flat names: either spelling of a term's setting may stand in either file.
    content = reduce(on_top, [flat(content, where, known) for where, content in reversed(chain)])
    recipe = Recipe(path.stem, content.get("label", path.stem), method, path, {**content, "method": methods[0]})
    recipe.check()
    return recipe


def training_settings(
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    images_per_class: int | None = None,
) -> TrainingSettings:
    """The learner's settings; arguments and order of precedence are those of :meth:`Recipe.settings`.

    Raises:
        RecipeError: unknown preset or key, or a value of the wrong type.
    """
    path = strategies_dir() / f"{TRAINING_FILE}.yaml"
    content = flat(read(path, {"source", "settings", "cases", "presets"}), str(path), {})
    _check(partial(build, TrainingSettings), partial(checked_values, TrainingSettings), content, str(path))
    cases = _applying([case for _, case in content["cases"]], dataset, images_per_class)
    return build(TrainingSettings, _merged(content, preset, overrides or {}, str(path), cases), str(path))


def idc_settings(
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    images_per_class: int | None = None,
) -> CutMixSettings:
    """A learner trained in IDC's way: its schedule, batches, augmentation and CutMix; network, rate and, under small
    presets, length are everybody's.

    Arguments and errors are those of :func:`training_settings`.
    """
    return idc_like(lambda given: training_settings(preset, given, dataset, images_per_class), overrides or {})


def idc_like(common: Callable[[Mapping[str, Any]], TrainingSettings], given: Mapping[str, Any]) -> CutMixSettings:
    """:func:`idc_settings` where everybody's settings are at hand.

    Args:
        common: gives everybody's settings with some changed.
        given: settings that are changed, of either kind.
    """
    theirs = {name: getattr(CutMixSettings, name) for name in ("lr_drop", "batch_size", "augment", "mix")}
    like = common({name: value for name, value in given.items() if name not in theirs})
    if "flip" not in parse_strategy(like.augment).names:
        # Where nobody's images are mirrored, theirs are not: IDC's own string is for natural images.
        theirs["augment"] = "_".join(name for name in theirs["augment"].split("_") if name != "flip")
    theirs.update({name: value for name, value in given.items() if name in theirs})
    return build(CutMixSettings, {**asdict(like), **theirs}, "training")


def _method(content: Mapping[str, Any], path: Path) -> Method:
    """The method a recipe names: one of the table, or one that its own code registers."""
    method, code, known = content.get("method"), content.get("code"), METHODS
    if "code" in content:
        if not isinstance(code, str) or not code.endswith(".py"):
            raise RecipeError(f"{path}: code must be the path of a .py file, relative to the recipe, got {code!r}")
        try:
            known = own_methods(path.parent / code)
        except ValueError as error:
            raise RecipeError(f"{path}: code: {error}") from error
        if not known or (isinstance(method, str) and method not in known):
            does = f"registers {', '.join(sorted(known))}" if known else "registers no method"
            raise RecipeError(
                f"{path}: {code} does not register the method {method!r}, it {does}; "
                f"put @register({method!r}, Settings) above its function"
            )
    if not isinstance(method, str) or method not in known:
        raise RecipeError(f"{path}: method must be one of {', '.join(sorted(known))}, got {method!r}")
    return known[method]


def _applying(cases: Iterable[Case], dataset: str | None, images_per_class: int | None) -> list[Mapping[str, Any]]:
    """What the cases that apply change, in order."""
    return [case.settings for case in cases if case.applies(dataset, images_per_class)]


_Reading = Callable[[Mapping[str, Any], str], Any]


def _check(make: _Reading, check: _Reading, content: Mapping[str, Any], path: str) -> None:
    """Make something of every preset, and of every case where it applies; check the types of a case alone."""
    for preset in PRESETS:
        make(_merged(content, preset, {}, path), path)
    for where, case in content["cases"]:  # alone first: together, a wrong entry is blamed on another
        check(case.settings, where)
    cases = [case for _, case in content["cases"]]
    for where, case in content["cases"]:
        for preset, example in itertools.product(PRESETS, case.examples()):
            make(_merged(content, preset, {}, where, _applying(cases, *example)), where)


def _merged(
    content: Mapping[str, Any],
    preset: str,
    overrides: Mapping[str, Any],
    where: str,
    cases: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Values by key: the settings, then cases, the preset, and overrides last.

    A preset's width is for networks that have one.
    """
    if preset not in PRESETS:
        raise RecipeError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    values = dict(content["settings"])
    for part in cases:
        values.update(part)
    small = dict(content["presets"].get(preset, {}))
    network = {**values, **small, **overrides}.get("network")
    if "width" in small and is_network(network) and "width" not in find_network(str(network)).options():
        del small["width"]
    return {**values, **small, **overrides}


def _typed(method: Method, values: Mapping[str, Any], where: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Values sorted by name, each of its type: what makes the method's settings, and how to compute."""
    how = {key: value for key, value in values.items() if key in method.execution}
    rest = {key: value for key, value in values.items() if key not in how}
    cls = with_registered(method.settings, rest)
    return partial(cls, **checked_values(cls, rest, where, method.execution)), checked_values(Execution, how, where)


def _configured(method: Method, values: Mapping[str, Any], where: str, name: str = "") -> ConfiguredMethod:
    settings, how = _typed(method, values, where)
    try:
        return ConfiguredMethod(method, settings(), Execution(**how), name)
    except (TypeError, ValueError) as error:  # TypeError: a setting without a default that nobody gives
        raise RecipeError(f"{where}: {error}") from error
