"""Names and keys: text by which something is looked up, that every database takes into its indexes as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from pydantic import BaseModel

from durably.core.errors import ValidationError
from durably.core.texts import is_storable

# An entry of an index of PostgreSQL holds 2,704 bytes, and the longest of ours hold two names and an id.
LONGEST_NAME: Final = 1_024
_SURELY_SHORT: Final = LONGEST_NAME // 4
"""So many characters fit, whatever they are."""
_SHOWN: Final = 40

_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9._/-]+\Z")


class _TypedDict(Protocol):
    """Any TypedDict. To type checkers it maps text to objects, whatever its fields are, so it is no mapping to text."""

    __required_keys__: ClassVar[frozenset[str]]


Labels = Mapping[str, str] | _TypedDict | BaseModel


def checked_name(what: str, value: object, *, field: str) -> str:
    """Return a name or a key; `what` says of what. Raises `ValidationError` for what cannot be one.

    >>> checked_name("step name", "parse", field="name")
    'parse'
    """
    if not isinstance(value, str) or not value or not is_storable(value):
        raise ValidationError(
            f"Invalid {what} {value!r}: must be text (without NUL) that is not empty", field=field, value=value
        )
    # Every step comes through here, most with a name that cannot be too long.
    if len(value) > _SURELY_SHORT:
        _check_length(what, value, field)
    return value


class LabelKeyError(ValidationError):
    """A label has a key that no label can have."""


def checked_labels(labels: object) -> dict[str, str]:
    """Return labels as a dict. Raises `ValidationError` for a value that is not text, `LabelKeyError` for a bad key."""
    if labels is None:
        return {}
    if isinstance(labels, BaseModel):
        labels = labels.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not isinstance(labels, Mapping):
        raise ValidationError(f"Invalid labels {labels!r}: must map text to text", field="labels", value=labels)
    for key, value in labels.items():
        if not isinstance(value, str) or not is_storable(value):
            raise ValidationError(
                f"Invalid label {key!r}: {value!r} must be text (without NUL)", field=f"labels.{key}", value=value
            )
        _check_length(f"label {key!r}:", value, f"labels.{key}")
    for key in labels:
        if not isinstance(key, str) or not _LABEL_KEY.match(key):
            raise LabelKeyError(
                f'Invalid label key "{key}": must contain only alphanumeric characters, dashes, underscores, dots, '
                "and slashes",
                field="labels",
                value=key,
            )
        _check_length("label key", key, "labels")
    return dict(labels)


def _check_length(what: str, value: str, field: str) -> None:
    if len(value) <= _SURELY_SHORT or (size := len(value.encode())) <= LONGEST_NAME:
        return
    shown = value[:_SHOWN] + "..."
    raise ValidationError(
        f"Invalid {what} {shown!r}: has {size:,} bytes in UTF-8, at most {LONGEST_NAME:,} are allowed",
        field=field,
        value=value,
    )
