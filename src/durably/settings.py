"""The settings of an instance: defaults, and what is allowed."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from durably.core.clock import Clock
from durably.core.errors import ValidationError
from durably.core.json_values import Codec, reason_of
from durably.core.names import checked_name
from durably.core.runs import Run
from durably.core.store import LARGEST_COUNT
from durably.core.texts import is_storable

Seconds = float | int | timedelta

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])\Z")
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_MOST_CONCURRENT_RUNS: Final = 1_000
_LONGEST_RENEWAL_SECONDS: Final = 5.0
_RENEWALS_PER_LEASE: Final = 6
# Further than that from now there is no date, and no timer.
_LONGEST: Final = timedelta(days=36_500)
_DATABASE_VARIABLE: Final = "DURABLY_DATABASE_URL"
_DEFAULT_DATABASE: Final = "sqlite:///durably.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an instance was told, checked; durations are in seconds."""

    polling_seconds: float
    max_concurrent_runs: int
    lease_seconds: float
    renew_seconds: float
    preserve_steps: bool
    retain_runs: timedelta | None
    worker_id: str

    @staticmethod
    def of(
        *,
        polling_interval: Seconds,
        max_concurrent_runs: int,
        lease_duration: Seconds,
        lease_renew_interval: Seconds | None,
        preserve_steps: bool,
        retain_runs: str | timedelta | None,
        worker_id: str | None,
    ) -> Settings:
        """Return checked settings. Raises `ValidationError` naming the argument, its value and what is allowed."""
        lease = positive_seconds("lease_duration", lease_duration)
        if lease_renew_interval is None:
            renew = min(_LONGEST_RENEWAL_SECONDS, lease / _RENEWALS_PER_LEASE)
        else:
            renew = positive_seconds("lease_renew_interval", lease_renew_interval)
        if renew >= lease:
            raise refuse(
                "lease_renew_interval", lease_renew_interval, f"shorter than lease_duration ({lease_duration})"
            )
        if not isinstance(preserve_steps, bool):
            raise refuse("preserve_steps", preserve_steps, "True or False")
        return Settings(
            polling_seconds=positive_seconds("polling_interval", polling_interval),
            max_concurrent_runs=_concurrency(max_concurrent_runs),
            lease_seconds=lease,
            renew_seconds=renew,
            preserve_steps=preserve_steps,
            retain_runs=_retention(retain_runs),
            worker_id=_made_worker_id() if worker_id is None else checked_worker_id(worker_id),
        )


def database_from_environment() -> str:
    """Return the URL that the environment names, or the default file in the working directory."""
    return os.environ.get(_DATABASE_VARIABLE) or _DEFAULT_DATABASE


def positive_seconds(name: str, value: Any) -> float:
    """Return a duration in seconds. Raises `ValidationError` unless it is a finite number above 0."""
    return _seconds(name, value, "a number of seconds above 0")


def _seconds(name: str, value: Any, allowed: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not (0 < seconds <= _LONGEST.total_seconds())
    ):
        raise refuse(name, value, f"{allowed}, or a timedelta (100 years at most)")
    return float(seconds)


def waiting_seconds(name: str, value: Any) -> float | None:
    """Return how long to wait, in seconds; None is for ever. Raises `ValidationError` for less than 0."""
    return None if value is None else seconds_or_zero(name, value)


def seconds_or_zero(name: str, value: Any) -> float:
    """Return a duration in seconds that may be 0. Raises `ValidationError` for less, and for what is no number."""
    if value in (0, timedelta(0)) and not isinstance(value, bool):
        return 0.0
    return _seconds(name, value, "a number of seconds, 0 or more")


def check_waiting(
    timeout: Any, polling_interval: Any, on_progress: Any, on_log: Any
) -> tuple[float | None, float | None]:
    """Return the first two options of waiting, in seconds. Raises `ValidationError`."""
    for name, callback in (("on_progress", on_progress), ("on_log", on_log)):
        if callback is not None and not callable(callback):
            raise refuse(name, callback, "a function")
    polling = None if polling_interval is None else positive_seconds("polling_interval", polling_interval)
    return waiting_seconds("timeout", timeout), polling


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


def _retention(value: Any) -> timedelta | None:
    if value is None:
        return None
    retained = duration("retain_runs", value)
    if not retained:
        raise refuse("retain_runs", value, "longer: this purges every run as soon as it has ended. None keeps them all")
    return retained


def aware(name: str, value: Any) -> datetime:
    """Return an instant that says of which time zone it is. Raises `ValidationError` for one that does not."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise refuse(name, value, "an aware datetime, as datetime.now(UTC)")
    return value


def whole_number(name: str, value: Any) -> int:
    """Return a whole number that is 0 or more, or the largest that a database knows. Raises `ValidationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise refuse(name, value, "a whole number, 0 or more")
    return min(value, LARGEST_COUNT)


def checked_attempt(value: Any) -> int:
    """Return the number of an attempt. Raises `ValidationError` for less than 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refuse("attempt", value, "a whole number, 1 or more: the first attempt is 1")
    return value


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


def label_codec(labels: Any) -> Codec[Any] | None:
    """Return what validates the labels of an instance, None for any. Raises `ValidationError` for what is no type."""
    if labels is None:
        return None
    try:
        codec: Codec[Any] = Codec(labels)
        has_names = codec.json_schema("serialization").get("type", "object") == "object"
    except ValidationError:
        raise
    except Exception as error:
        raise refuse("labels", labels, f"a type that Pydantic can validate ({reason_of(error)})") from error
    if not has_names:
        raise refuse("labels", labels, "a type whose values have names, as a TypedDict or a Pydantic model")
    return codec


def checked_clock(value: Any) -> Clock:
    """Return what tells the time. Raises `ValidationError` for what does not."""
    if isinstance(value, type) or not all(callable(getattr(value, verb, None)) for verb in ("now", "monotonic")):
        raise refuse("clock", value, "an object with now() and monotonic(), as durably.testing.FakeClock()")
    return cast("Clock", value)


def refuse(name: str, value: object, allowed: str) -> ValidationError:
    """Return the error for an argument: its name, its value and what is allowed."""
    return ValidationError(f"Invalid {name} {value!r}: must be {allowed}", field=name, value=value)


def _concurrency(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_CONCURRENT_RUNS:
        raise refuse("max_concurrent_runs", value, f"a whole number from 1 to {_MOST_CONCURRENT_RUNS}")
    return value


def _made_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
