"""The settings of an instance: defaults, and what is allowed."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from durably.core.arguments import Seconds, checked_worker_id, duration, positive_seconds, refuse, whole_number
from durably.core.clock import Clock
from durably.core.errors import ValidationError
from durably.core.json_values import Codec, reason_of

_MOST_CONCURRENT_RUNS: Final = 1_000
_LONGEST_RENEWAL_SECONDS: Final = 5.0
_RENEWALS_PER_LEASE: Final = 6
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
        allowed_runs = f"a whole number from 1 to {_MOST_CONCURRENT_RUNS}"
        return Settings(
            polling_seconds=positive_seconds("polling_interval", polling_interval),
            max_concurrent_runs=whole_number(
                "max_concurrent_runs", max_concurrent_runs, allowed_runs, least=1, most=_MOST_CONCURRENT_RUNS
            ),
            lease_seconds=lease,
            renew_seconds=renew,
            preserve_steps=preserve_steps,
            retain_runs=_retention(retain_runs),
            worker_id=_made_worker_id() if worker_id is None else checked_worker_id(worker_id),
        )


def database_from_environment() -> str:
    """Return the URL that the environment names, or the default file in the working directory."""
    return os.environ.get(_DATABASE_VARIABLE) or _DEFAULT_DATABASE


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


def _retention(value: Any) -> timedelta | None:
    if value is None:
        return None
    retained = duration("retain_runs", value)
    if not retained:
        raise refuse("retain_runs", value, "longer: this purges every run as soon as it has ended. None keeps them all")
    return retained


def _made_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
