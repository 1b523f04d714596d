"""A run: one execution of a job, from trigger to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Generic, Literal

from typing_extensions import TypedDict, TypeVar

from durably.core.quick_init import quick_init

OutputT = TypeVar("OutputT", default=Any)

Disposition = Literal["created", "idempotent", "coalesced"]
"""What a trigger did: made a run, found the one of its idempotency key, or joined a pending one."""


class RunStatus(StrEnum):
    """Where a run stands in its life."""

    PENDING = "pending"
    LEASED = "leased"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset({RunStatus.LEASED, RunStatus.CANCELLED}),
    RunStatus.LEASED: frozenset(RunStatus) - {RunStatus.LEASED},
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}
"""Which status may follow which: the life cycle, from which the rest is derived."""

TERMINAL: Final = frozenset(status for status in RunStatus if not TRANSITIONS[status])
ACTIVE: Final = frozenset(RunStatus) - TERMINAL

ALLOWED_FROM: Final[Mapping[str, frozenset[RunStatus]]] = {
    "cancel": frozenset(status for status in RunStatus if RunStatus.CANCELLED in TRANSITIONS[status]),
    "retrigger": TERMINAL,
    "delete": TERMINAL,
}
"""Which verb may be asked of a run in which status. Databases that decide in a statement say the same in SQL."""


@dataclass(frozen=True, slots=True)
class ProgressData:
    """How far a run says it has come."""

    current: float
    total: float | None = None
    message: str | None = None


@quick_init
@dataclass(frozen=True, slots=True)
class Run(Generic[OutputT]):
    """One execution of a job as it is stored. Instants are aware and in UTC."""

    id: str
    job_name: str
    status: RunStatus
    input: Any
    output: OutputT | None
    error: str | None
    progress: ProgressData | None
    labels: dict[str, str]
    idempotency_key: str | None
    concurrency_key: str | None
    current_step_index: int
    completed_step_count: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    lease_generation: int
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_terminal(self) -> bool:
        """Tell whether the run has ended for good."""
        return self.status in TERMINAL

    @property
    def is_active(self) -> bool:
        """Tell whether the run still waits or executes."""
        return self.status in ACTIVE


@quick_init
@dataclass(frozen=True, slots=True)
class TriggerResult(Run[OutputT]):
    """The run that a trigger made or found, and which of the two it was."""

    disposition: Disposition


@dataclass(frozen=True, slots=True)
class ClientRun(Generic[OutputT]):
    """What of a run may leave the server: no keys, no lease."""

    id: str
    job_name: str
    status: RunStatus
    input: Any
    output: OutputT | None
    error: str | None
    progress: ProgressData | None
    labels: dict[str, str]
    current_step_index: int
    completed_step_count: int
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    is_terminal: bool
    is_active: bool


_CLIENT_FIELDS: Final = tuple(ClientRun.__dataclass_fields__)


def to_client_run(run: Run[OutputT]) -> ClientRun[OutputT]:
    """Return the part of `run` that clients may see.

    >>> to_client_run(run).is_terminal
    True
    """
    return ClientRun(**{name: getattr(run, name) for name in _CLIENT_FIELDS})


class RunFilter(TypedDict, total=False):
    """Which runs to list; every key is optional, all given ones must match."""

    status: RunStatus | str | Sequence[RunStatus | str] | None
    job_name: str | Sequence[str] | None
    labels: Mapping[str, str] | None
    limit: int | None
    offset: int | None


class RunsSubscribeFilter(TypedDict, total=False):
    """Which runs' events to follow."""

    job_name: str | Sequence[str] | None
    labels: Mapping[str, str] | None


RunOperation = Literal["read", "subscribe", "steps", "retrigger", "cancel", "delete"]
"""What a caller wants to do with one run."""
