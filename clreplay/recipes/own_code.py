"""The user's own methods and terms: the Python file that a recipe names under ``code``."""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clreplay.condensation import METHODS
from clreplay.condensation.matching.terms import TermSettings, with_terms
from clreplay.condensation.registry import OWN_METHODS, Method, entering
from clreplay.losses.term import Term, entering_terms
from clreplay.memory.decoders import DECODERS


@dataclass(frozen=True)
class _Read:
    digest: str
    module: types.ModuleType


_READ: dict[str, _Read] = {}


def own_methods(path: Path) -> dict[str, Method]:
    """The methods that a Python file registers, by name; with terms, also the matching methods that know them.

    The file is run once, as a module under a private name; again only if its content has changed. Names of its
    methods and terms count for recipes that name this file alone, so they cannot clash with those of another file.
    What it imports must be importable from where Python runs: the file's own folder is not searched.

    Raises:
        ValueError: there is no such file, or it fails; it registers nothing then.
    """
    place = str(path.resolve())
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"no file {path} to read ({error.strerror}); code is a path relative to the recipe") from error
    digest = hashlib.blake2b(source, digest_size=8).hexdigest()
    if place not in _READ or _READ[place].digest != digest:
        module, methods = _run(source, place)
        _READ[place] = _Read(digest, module)
        OWN_METHODS[place] = {name: replace(method, code=digest) for name, method in methods.items()}
    return OWN_METHODS[place]


def _run(source: bytes, place: str) -> tuple[types.ModuleType, dict[str, Method]]:
    """Run a file as a module; what fails leaves all tables as they were.

    Compiled here rather than by the import system: what runs is what was hashed, whatever bytecode lies about.
    """
    stem = re.sub(r"\W", "_", Path(place).stem)
    name = f"_clreplay_own_{stem}_{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
    module = types.ModuleType(name)
    module.__file__ = place
    methods: dict[str, Method] = {}
    terms: dict[str, type[Term]] = {}
    before, decoders = sys.modules.pop(name, None), dict(DECODERS)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with entering(methods), entering_terms(terms):
            exec(compile(source, place, "exec", dont_inherit=True), module.__dict__)
        for known_as, method in {**METHODS, **methods}.items() if terms else ():
            if issubclass(method.settings, TermSettings):
                plain: Any = method.settings  # mypy takes no class for hashable
                settings = with_terms(plain, tuple(terms.items()), is_traced=True)
                methods[known_as] = replace(method, settings=settings)
    except BaseException as error:
        sys.modules.pop(name, None)
        sys.modules.update({} if before is None else {name: before})
        DECODERS.clear()
        DECODERS.update(decoders)
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise ValueError(f"{place} fails{_line(error, place)}: {type(error).__name__}: {error}") from error
    return module, methods


def _line(error: BaseException, place: str) -> str:
    """``at line 7``: the last line of the file that led to the error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    return f" at line {lines[-1]}" if lines else ""
