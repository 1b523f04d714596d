"""Finds the instance that a command is about."""

from __future__ import annotations

import importlib
import sys
import traceback
from operator import attrgetter
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final

from durably.app import Durably
from durably.cli.errors import CommandError
from durably.core.errors import DurablyError

_OUR_OWN_FRAMES: Final = (
    __file__,
    importlib.__file__,
    "<frozen importlib._bootstrap>",
    "<frozen importlib._bootstrap_external>",
)


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
    module = _imported(module_name)
    try:
        found: object = attrgetter(attribute)(module)
    except AttributeError as error:
        raise CommandError(f"{module_name} has no attribute {attribute!r}{_instances_in(module)}") from error
    except Exception as error:
        traceback.print_exception(error.with_traceback(_without_our_own(error.__traceback__)))
        raise CommandError(f"{target} cannot be read: the traceback above says why") from error
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
            raise CommandError(f"there is no module {name!r} to import from {Path.cwd()}{_as_module(name)}") from error
        traceback.print_exception(error.with_traceback(_without_our_own(error.__traceback__)))
        raise CommandError(f"{name} cannot be imported: the traceback above says why") from error
    except SystemExit as error:
        raise CommandError(
            f"{name} ended the program while it was imported, by sys.exit({error.code!r}): put what is not for "
            "importers below `if __name__ == '__main__':`"
        ) from error


def _as_module(name: str) -> str:
    module = name.removesuffix(".py").replace("/", ".").lstrip(".")
    return f": it is named as Python imports it, {module}, not by its file" if module != name else ""


def _instances_in(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Durably)]
    if names:
        return f"; it has {', '.join(names)}"
    return (
        f"; it makes no instance where it is imported: write `durably = create_durably(...)` at the top level of "
        f"{module.__name__}, and what is to run it yourself below `if __name__ == '__main__':`"
    )


def _without_our_own(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename in _OUR_OWN_FRAMES:
        trace = trace.tb_next
    return trace
