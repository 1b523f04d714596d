"""Finds the instance that a command is about."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from durably.app import Durably
from durably.cli.errors import CommandError
from durably.core.errors import DurablyError


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
    found: object = _imported(module_name)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{module_name} has no attribute {attribute!r}")
        found = getattr(found, name)
    if not isinstance(found, Durably):
        raise CommandError(f"{target} is no instance made by create_durably: its type is {type(found).__name__}")
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DurablyError as error:
        # Of a wrong database URL or a driver that is not installed the message says all there is to know.
        raise CommandError(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise CommandError(f"there is no module {name!r} to import from {Path.cwd()}") from error
        traceback.print_exc()
        raise CommandError(f"{name} cannot be imported: the traceback above says why") from error
