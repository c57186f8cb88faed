"""Settings and execution told apart, for tests that change either by its flat name."""

from dataclasses import fields, replace

from clreplay.condensation.engine.execution import Execution

NAMES = {field.name for field in fields(Execution)}


def mixed(settings, **changes):
    """The pair of settings and execution with some changes, which :func:`apart` takes."""
    settings, execution = apart(settings)
    how = {name: value for name, value in changes.items() if name in NAMES}
    rest = {name: value for name, value in changes.items() if name not in NAMES}
    return replace(settings, **rest), replace(execution, **how)


def apart(settings):
    """Settings and execution, of a pair or of settings alone."""
    return settings if isinstance(settings, tuple) else (settings, Execution())
