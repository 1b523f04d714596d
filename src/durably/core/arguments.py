"""What callers may give for an argument, and the error that says so."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

from durably.core.errors import ValidationError
from durably.core.names import checked_name
from durably.core.runs import Run
from durably.core.store import LARGEST_COUNT
from durably.core.texts import is_storable

Seconds = float | int | timedelta

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])\Z")
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
# Further than that from now there is no date, and no timer.
_LONGEST: Final = timedelta(days=36_500)


def refuse(name: str, value: object, allowed: str) -> ValidationError:
    """Return the error for an argument: its name, its value and what is allowed."""
    return ValidationError(f"Invalid {name} {value!r}: must be {allowed}", field=name, value=value)


def whole_number(
    name: str, value: Any, allowed: str = "a whole number, 0 or more", *, least: int = 0, most: int | None = None
) -> int:
    """Return a whole number within bounds, or the largest that a database knows. Raises `ValidationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise refuse(name, value, allowed)
    return min(value, LARGEST_COUNT)


def positive_seconds(name: str, value: Any) -> float:
    """Return a duration in seconds. Raises `ValidationError` unless it is a finite number above 0."""
    return _seconds(name, value, "a number of seconds above 0")


def seconds_or_zero(name: str, value: Any) -> float:
    """Return a duration in seconds that may be 0. Raises `ValidationError` for less, and for what is no number."""
    if value in (0, timedelta(0)) and not isinstance(value, bool):
        return 0.0
    return _seconds(name, value, "a number of seconds, 0 or more")


def waiting_seconds(name: str, value: Any) -> float | None:
    """Return how long to wait, in seconds; None is for ever. Raises `ValidationError` for less than 0."""
    return None if value is None else seconds_or_zero(name, value)


def _seconds(name: str, value: Any, allowed: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not (0 < seconds <= _LONGEST.total_seconds())
    ):
        raise refuse(name, value, f"{allowed}, or a timedelta (100 years at most)")
    return float(seconds)


def duration(name: str, value: Any) -> timedelta:
    """Return a duration given as a timedelta or as text like `30d`; it may be 0. Raises `ValidationError`."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is not None and (seconds := float(match[1]) * _UNITS[match[2]]) <= _LONGEST.total_seconds():
        return timedelta(seconds=seconds)
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST:
        raise refuse(
            name, value, "a timedelta, or a number and a unit, d, h, m or s, like '30d' or '1.5h' (100 years at most)"
        )
    return value


def aware(name: str, value: Any) -> datetime:
    """Return an instant that says of which time zone it is. Raises `ValidationError` for one that does not."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise refuse(name, value, "an aware datetime, as datetime.now(UTC)")
    return value


def check_waiting(
    timeout: Any, polling_interval: Any, on_progress: Any, on_log: Any
) -> tuple[float | None, float | None]:
    """Return the first two options of waiting, in seconds. Raises `ValidationError`."""
    for name, callback in (("on_progress", on_progress), ("on_log", on_log)):
        if callback is not None and not callable(callback):
            raise refuse(name, callback, "a function")
    polling = None if polling_interval is None else positive_seconds("polling_interval", polling_interval)
    return waiting_seconds("timeout", timeout), polling


def checked_run_id(value: Any, name: str = "id") -> str:
    """Return the id of a run. Raises `ValidationError` for what cannot be one, as the run itself."""
    if isinstance(value, Run):
        raise ValidationError(f"Invalid {name}: a run was given, pass its id, {value.id!r}", field=name, value=value)
    if not isinstance(value, str) or not is_storable(value):
        raise refuse(name, value, "text (without NUL), the id of a run")
    return value


def checked_worker_id(value: Any) -> str:
    """Return a name for a worker. Raises `ValidationError` unless it is text that is not empty."""
    return checked_name("worker_id", value, field="worker_id")
