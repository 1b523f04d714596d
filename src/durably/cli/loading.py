"""Finds the instance that a command is about."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from durably.app import Durably
from durably.cli.errors import CommandError


def load_instance(target: str) -> Durably:
    """Return the instance that `module:attribute` names; the working directory can be imported from.

    Raises `CommandError` saying what is not there.

    >>> load_instance("app:durably")
    """
    module_name, colon, attribute = target.partition(":")
    if not module_name or not colon or not attribute or module_name.startswith("."):
        raise CommandError(f"{target!r} names no instance: expected module:attribute, like app:durably")
    # For good: a job may import what it needs while it executes.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise CommandError(f"there is no module {module_name!r} to import from {Path.cwd()}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{module_name} has no attribute {attribute!r}")
        found = getattr(found, name)
    if not isinstance(found, Durably):
        raise CommandError(f"{target} is a {type(found).__name__}, not an instance made by create_durably")
    return found
