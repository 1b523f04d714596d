"""What JSON cannot carry, and what a type refuses: found by place, said in one line."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from datetime import datetime, time, timedelta
from typing import Final

from pydantic import Secret, SecretBytes, SecretStr
from pydantic import ValidationError as PydanticValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from durably.core.errors import ValidationError
from durably.core.texts import text_of

LEAVES: Final = frozenset({str, int, float, bool, type(None)})
"""The classes of values that hold no keys; most values are of one of these."""

_MINUTE: Final = timedelta(minutes=1)
_SHOWN_ERRORS: Final = 5
_SHOWN_TEXT: Final = 80


def refusal(error: PydanticValidationError, what: str, value: object) -> ValidationError:
    """Return our error for Pydantic's: one line that names every place and what is expected there."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{place(what, item['loc'])}: {item['msg']}" for item in found[:_SHOWN_ERRORS]]
    if len(found) > _SHOWN_ERRORS:
        lines.append(f"and {len(found) - _SHOWN_ERRORS} more")
    first = place(what, found[0]["loc"]) if found else what
    return ValidationError(f"Invalid {'; '.join(lines)}", field=first, value=value)


def place(what: str, path: tuple[int | str, ...]) -> str:
    """Return where in `what` a path leads.

    >>> place("input", ("rows", 3, "price"))
    'input.rows[3].price'
    """
    return what + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def raised_by_type(error: Exception, what: str) -> ValidationError:
    """Return the error for what the code of a type raised, as a validator does that has a mistake."""
    if isinstance(error, RecursionError):
        return ValidationError(f"{what} is nested too deeply", field=what)
    return ValidationError(f"{what}: its type raised {text_of(error)}", field=what)


def not_json(text: str, what: str) -> ValidationError:
    """Return the error for stored text that should be JSON and is not."""
    return ValidationError(f"The stored {what} is not JSON: {_shown(text)!r}", field=what, value=text)


def unreadable(text: str, what: str, error: ValidationError) -> ValidationError:
    """Return the error for a value whose type refuses what it has written itself."""
    return ValidationError(
        f"{what} would be stored as {_shown(text)}, which its type does not read again: {error}", field=what
    )


def changed(text: str, other: str, what: str) -> ValidationError:
    """Return the error for a value that its type reads back as another one."""
    return ValidationError(
        f"{what} would be stored as {_shown(text)}, which its type reads as {_shown(other)}: a field is "
        "not stored (an InitVar, exclude_if) or not read (init=False)",
        field=what,
    )


def _shown(text: str) -> str:
    return str(text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + "...")


def refuse_half(text: str, where: str) -> None:
    """Raise `ValidationError` for text with a lone surrogate: JSON can hold it, but nobody can write it as UTF-8."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(
            f"{where} holds text that is not valid Unicode (a lone surrogate, {error.object[error.start]!a})",
            field=where,
        ) from error


def refuse_foreign(value: object, where: str) -> None:  # noqa: C901, PLR0912 - one case per kind of value
    """Raise `ValidationError` for the first value that JSON cannot carry, naming its place."""
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value):
                raise ValidationError(f"{where}: JSON cannot carry {value}", field=where, value=value)
        case bytes() | bytearray() | memoryview():
            raise ValidationError(
                f"{where}: JSON cannot carry bytes; encode them as text (base64, hex) first", field=where, value=value
            )
        case set() | frozenset():
            raise ValidationError(f"{where}: JSON cannot carry a set; use a list", field=where, value=value)
        case Secret() | SecretStr() | SecretBytes():
            raise ValidationError(
                f"{where}: a secret is written as asterisks and would be lost; store its name instead", field=where
            )
        case Mapping():
            for key, item in value.items():
                if isinstance(key, str):
                    refuse_half(key, where)
                refuse_foreign(item, f"{where}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                refuse_foreign(item, f"{where}[{index}]")
        case datetime() | time():
            _refuse_zone(value, where)
        case Iterator():
            raise ValidationError(
                f"{where}: JSON cannot carry an iterator, which can be gone through only once; use a list",
                field=where,
                value=value,
            )
        case AsyncIterator():
            raise ValidationError(
                f"{where}: JSON cannot carry an async iterator; collect what it yields in a list",
                field=where,
                value=value,
            )
        case Coroutine():
            # Nobody will await it any more, and Python would warn of that too.
            value.close()
            raise ValidationError(f"{where}: JSON cannot carry a coroutine; is an `await` missing?", field=where)
        case _:
            try:
                to_jsonable_python(value)
            except PydanticSerializationError as error:
                raise ValidationError(
                    f"{where}: JSON cannot carry an object of type {type(value).__name__!r}", field=where, value=value
                ) from error


def _refuse_zone(value: datetime | time, where: str) -> None:
    offset = value.utcoffset()
    if offset is None:
        if isinstance(value, time) and value.tzinfo is not None:
            raise ValidationError(
                f"{where}: JSON cannot carry a time of day with a time zone's rules, {value.tzinfo}; use a datetime",
                field=where,
                value=value,
            )
    elif offset % _MINUTE:
        raise ValidationError(
            f"{where}: JSON cannot carry an offset from UTC with seconds, {offset}; convert it to UTC",
            field=where,
            value=value,
        )


def foreign_key(value: object) -> tuple[str, object] | None:
    """Return where the first key of a mapping is that is not text, and the key."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key.__class__ is not str and not isinstance(key, str):
                return "", key
            if item.__class__ not in LEAVES and (found := foreign_key(item)) is not None:
                return f".{key}{found[0]}", found[1]
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if item.__class__ not in LEAVES and (found := foreign_key(item)) is not None:
                return f"[{index}]{found[0]}", found[1]
    return None


def key_refused(what: str, found: tuple[str, object]) -> ValidationError:
    """Return the error for a key that was found so."""
    where, key = what + found[0], found[1]
    return ValidationError(
        f"{where}: JSON cannot carry the key {key!r}, keys are text there; use text, or a type that says what the keys "
        f"are, as dict[{type(key).__name__}, ...]",
        field=where,
        value=key,
    )
