"""One frozen class per event: what happened to runs, steps, logs and workers.

JSON values (input, output, log data) travel as the text they are stored as and are decoded when someone
looks: most events are never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, get_args

from typing_extensions import TypeIs

from durably.core.clock import Clock
from durably.core.logs import LogLevel
from durably.core.quick_init import quick_init
from durably.core.runs import ProgressData

NOT_STAMPED: Final = datetime.fromtimestamp(0, UTC)
"""Stands for the time of an event that nobody has delivered yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have: `timestamp`, when it happened, and `sequence`, which goes up as one instance delivers them.

    Where they are left out, as in an event for `emit`, the instance that delivers it gives them.
    """

    timestamp: datetime = NOT_STAMPED
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent(Event):
    """Something happened to a run."""

    run_id: str
    job_name: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(RunEvent):
    """Something happened to a step of a run."""

    step_name: str
    step_index: int


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class RunTriggerEvent(RunEvent):
    """A run was made."""

    type: ClassVar[Literal["run:trigger"]] = "run:trigger"
    input_json: str

    @property
    def input(self) -> Any:
        """Return the input of the run."""
        return json.loads(self.input_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCoalescedEvent(RunEvent):
    """A trigger joined a pending run; the event names the run that was kept."""

    type: ClassVar[Literal["run:coalesced"]] = "run:coalesced"
    skipped_input_json: str
    skipped_labels: dict[str, str]

    @property
    def skipped_input(self) -> Any:
        """Return the input that was not used."""
        return json.loads(self.skipped_input_json)


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class RunLeasedEvent(RunEvent):
    """A worker claimed the run."""

    type: ClassVar[Literal["run:leased"]] = "run:leased"
    input_json: str
    lease_owner: str
    lease_expires_at: datetime

    @property
    def input(self) -> Any:
        """Return the input of the run."""
        return json.loads(self.input_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLeaseRenewedEvent(RunEvent):
    """The holder of the lease prolonged it."""

    type: ClassVar[Literal["run:lease-renewed"]] = "run:lease-renewed"
    lease_owner: str
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgressEvent(RunEvent):
    """The run says how far it has come."""

    type: ClassVar[Literal["run:progress"]] = "run:progress"
    progress: ProgressData


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class RunCompleteEvent(RunEvent):
    """The run completed. `duration` is in seconds, from its first start; `output_json` is None without output."""

    type: ClassVar[Literal["run:complete"]] = "run:complete"
    output_json: str | None
    duration: float

    @property
    def output(self) -> Any:
        """Return the output of the run."""
        return None if self.output_json is None else json.loads(self.output_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailEvent(RunEvent):
    """The run failed; `failed_step_name` is empty when no step caused it."""

    type: ClassVar[Literal["run:fail"]] = "run:fail"
    error: str
    failed_step_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCancelEvent(RunEvent):
    """The run was cancelled."""

    type: ClassVar[Literal["run:cancel"]] = "run:cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeleteEvent(RunEvent):
    """The run was deleted, by name or by a purge."""

    type: ClassVar[Literal["run:delete"]] = "run:delete"


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class StepStartEvent(StepEvent):
    """A step began to execute."""

    type: ClassVar[Literal["step:start"]] = "step:start"


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleteEvent(StepEvent):
    """A step's result is committed. `duration` is in seconds."""

    type: ClassVar[Literal["step:complete"]] = "step:complete"
    output_json: str | None
    duration: float

    @property
    def output(self) -> Any:
        """Return the result of the step."""
        return None if self.output_json is None else json.loads(self.output_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailEvent(StepEvent):
    """A step raised."""

    type: ClassVar[Literal["step:fail"]] = "step:fail"
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCancelEvent(StepEvent):
    """A step was interrupted because its run was cancelled."""

    type: ClassVar[Literal["step:cancel"]] = "step:cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWriteEvent(RunEvent):
    """The job wrote a log line; `data_json` is None without data, `step_name` None outside a step."""

    type: ClassVar[Literal["log:write"]] = "log:write"
    step_name: str | None
    level: LogLevel
    message: str
    data_json: str | None

    @property
    def data(self) -> Any:
        """Return what was logged beside the message."""
        return None if self.data_json is None else json.loads(self.data_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerErrorEvent(Event):
    """Something went wrong outside user code; `context` says where, `run_id` which run, if one."""

    type: ClassVar[Literal["worker:error"]] = "worker:error"
    error: str
    context: str
    run_id: str | None = None


DomainEvent = RunTriggerEvent | RunCoalescedEvent | RunCompleteEvent | RunFailEvent | RunCancelEvent | RunDeleteEvent
OperationalEvent = (
    RunLeasedEvent
    | RunLeaseRenewedEvent
    | RunProgressEvent
    | StepStartEvent
    | StepCompleteEvent
    | StepFailEvent
    | StepCancelEvent
    | LogWriteEvent
    | WorkerErrorEvent
)
DurablyEvent = DomainEvent | OperationalEvent
TerminalEvent = RunCompleteEvent | RunFailEvent | RunCancelEvent | RunDeleteEvent

EventType = Literal[
    "run:trigger",
    "run:coalesced",
    "run:complete",
    "run:fail",
    "run:cancel",
    "run:delete",
    "run:leased",
    "run:lease-renewed",
    "run:progress",
    "step:start",
    "step:complete",
    "step:fail",
    "step:cancel",
    "log:write",
    "worker:error",
]

EVENT_CLASSES: Final[dict[str, type[DurablyEvent]]] = {
    event_class.type: event_class for event_class in get_args(DurablyEvent)
}
TERMINAL_EVENTS: Final = get_args(TerminalEvent)
WAKING_EVENTS: Final = frozenset({RunTriggerEvent.type, *(event_class.type for event_class in TERMINAL_EVENTS)})
"""What a process has to know of others though nobody listens: there is work, a key is free, a run has ended."""
_DOMAIN_EVENTS: Final = get_args(DomainEvent)
COMMITTED_EVENTS: Final = frozenset(
    event_class.type for event_class in (*_DOMAIN_EVENTS, RunLeasedEvent, StepCompleteEvent, StepFailEvent)
)
"""What is told by the commit of what it tells of; everything else is announced before."""


def is_domain_event(event: DurablyEvent) -> TypeIs[DomainEvent]:
    """Tell whether `event` is part of a run's life, as against how it is being worked on.

    >>> is_domain_event(RunCancelEvent(timestamp=now, run_id="r", job_name="j", labels={}))
    True
    """
    return isinstance(event, _DOMAIN_EVENTS)


_write_sequence: Final[Callable[[Event, int], None]] = vars(Event)["sequence"].__set__


def stamp(event: DurablyEvent, sequence: int, clock: Clock) -> None:
    """Give `event` its place in the order of delivery, and the time if it has none."""
    # Written into the frozen object: it happens once, before anybody else has seen the event, and a copy
    # per event would cost more than all the rest of its delivery.
    _write_sequence(event, sequence)
    if event.timestamp is NOT_STAMPED:
        object.__setattr__(event, "timestamp", clock.now())
