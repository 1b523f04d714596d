"""From the filters that callers give to a checked query."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from durably.core.arguments import whole_number
from durably.core.errors import ValidationError
from durably.core.names import Labels, checked_labels
from durably.core.runs import RunStatus
from durably.core.store import RunQuery
from durably.core.texts import is_storable

T = TypeVar("T")

_MOST_NAMES: Final = 1_000
_MOST_LABELS: Final = 100


def run_query(
    *,
    status: RunStatus | str | Sequence[RunStatus | str] | None = None,
    job_name: str | Sequence[str] | None = None,
    labels: Labels | None = None,
    limit: int | None = None,
    offset: int | None = None,
) -> RunQuery:
    """Return the query for a filter. Raises `ValidationError` naming what is wrong with it.

    >>> run_query(status="failed", limit=10).statuses
    (<RunStatus.FAILED: 'failed'>,)
    """
    return RunQuery(
        statuses=tuple(dict.fromkeys(_status(each) for each in _several("status", status))),
        job_names=_at_most(
            _MOST_NAMES,
            "job_name",
            dict.fromkeys(_text("job_name", each) for each in _several("job_name", job_name)),
        ),
        labels=_at_most(_MOST_LABELS, "labels", checked_labels(labels).items()),
        limit=None if limit is None else whole_number("limit", limit),
        offset=0 if offset is None else whole_number("offset", offset),
    )


def _at_most(most: int, name: str, values: Collection[T]) -> tuple[T, ...]:
    # Databases bound how much one statement may ask for, each in its own way.
    if len(values) > most:
        raise ValidationError(f"Invalid {name}: {len(values)} were given, at most {most} can be asked for", field=name)
    return tuple(values)


def _several(name: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence | set | frozenset):
        return tuple(value)
    raise ValidationError(f"Invalid {name} {value!r}: must be text or a sequence of texts", field=name, value=value)


def _status(value: Any) -> RunStatus:
    try:
        return RunStatus(value)
    except ValueError:
        shown = value or "empty value"
        raise ValidationError(
            f"Invalid status: {shown}. Must be one of: {', '.join(RunStatus)}", field="status", value=value
        ) from None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not is_storable(value):
        raise ValidationError(f"Invalid {name} {value!r}: must be text (without NUL)", field=name, value=value)
    return value
