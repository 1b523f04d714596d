"""What an error says of itself, as a failed run or step keeps it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Final

from durably.core.errors import DurablyError
from durably.core.texts import shortened, storable

_MOST_SHOWN_OF_SEVERAL: Final = 200


def describe(error: BaseException) -> str:
    """Return what a failed run or step says: the error's own message, with its type where that alone says little.

    >>> describe(ValueError("no such row"))
    'no such row'
    """
    error = sole_error(error)
    if isinstance(error, BaseExceptionGroup):
        return shortened(storable(f"{error.message}: {'; '.join(_named(each) for each in _errors_in(error))}"))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot even say what it is has failed the run all the same
        message = ""
    if not message or isinstance(error, KeyError) or not isinstance(error, Exception | DurablyError):
        # A KeyError's message is nothing but the missing key, that of SystemExit a number.
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return shortened(storable(message))


def traceback_of(error: BaseException) -> str:
    """Return where an error came from; its message alone where an error among its causes cannot be written down."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - an error may raise whatever it is asked
        return describe(error)


def sole_error(error: BaseException) -> BaseException:
    """Return the one error that a group holds, as that of a `TaskGroup` mostly does; else the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _errors_in(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _errors_in(each)
    else:
        yield error


def _named(error: BaseException) -> str:
    name, message = type(error).__name__, describe(error)[:_MOST_SHOWN_OF_SEVERAL]
    return message if message.startswith(name) else f"{name}: {message}"
