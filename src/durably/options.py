"""The keyword arguments of the public calls, as typed dictionaries for those who wrap them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Literal

from typing_extensions import TypedDict, TypeVar

from durably.core.arguments import Seconds
from durably.core.clock import Clock
from durably.core.jobs import JobDefinition
from durably.core.logs import LogData
from durably.core.names import Labels
from durably.core.runs import Disposition, ProgressData
from durably.core.store import Store

InputT_co = TypeVar("InputT_co", default=Any, covariant=True)


class InstanceOptions(TypedDict, total=False):
    """What `create_durably` takes beside a database, jobs and a clock."""

    polling_interval: Seconds
    max_concurrent_runs: int
    lease_duration: Seconds
    lease_renew_interval: Seconds | None
    preserve_steps: bool
    retain_runs: str | timedelta | None
    labels: Any
    worker_id: str | None


class DurablyOptions(InstanceOptions, total=False):
    """What `create_durably` takes."""

    database: str | Path | Store | None
    jobs: Mapping[str, JobDefinition[Any, Any]]
    clock: Clock | None


class TriggerOptions(TypedDict, total=False):
    """What `JobHandle.trigger` takes beside the input."""

    idempotency_key: str | None
    concurrency_key: str | None
    coalesce: Literal["skip"] | None
    labels: Labels | None


class WaitForRunOptions(TypedDict, total=False):
    """What `Durably.wait_for_run` takes beside the id; durations in seconds."""

    timeout: Seconds | None
    polling_interval: Seconds | None
    on_progress: Callable[[ProgressData], object] | None
    on_log: Callable[[LogData], object] | None


class TriggerAndWaitOptions(TriggerOptions, WaitForRunOptions, total=False):
    """What `JobHandle.trigger_and_wait` takes beside the input."""


class TriggerRequest(TypedDict):
    """A trigger that came over HTTP, as the auth hook sees it."""

    job_name: str
    input: Any
    idempotency_key: str | None
    concurrency_key: str | None
    coalesce: str | None
    labels: dict[str, str] | None


class TriggerResponse(TypedDict):
    """What a trigger over HTTP answers."""

    run_id: str
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class BatchItem(Generic[InputT_co]):
    """One trigger of `JobHandle.batch_trigger` that has options.

    >>> await handle.batch_trigger([BatchItem({"n": 1}, idempotency_key="n-1"), {"n": 2}])
    """

    input: InputT_co
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    coalesce: Literal["skip"] | None = None
    labels: Labels | None = None
