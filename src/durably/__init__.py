"""Jobs that survive crashes: every finished step is a checkpoint in your own database.

>>> from durably import StepContext, create_durably, define_job
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from durably.app import Durably, DurablyPlugin, create_durably
from durably.core.errors import (
    CancelledError,
    ConflictError,
    DurablyError,
    LeaseLostError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    SchemaTooNewError,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    ValueRefusedError,
)
from durably.core.events import (
    DomainEvent,
    DurablyEvent,
    EventType,
    LogWriteEvent,
    OperationalEvent,
    RunCancelEvent,
    RunCoalescedEvent,
    RunCompleteEvent,
    RunDeleteEvent,
    RunFailEvent,
    RunLeasedEvent,
    RunLeaseRenewedEvent,
    RunProgressEvent,
    RunTriggerEvent,
    StepCancelEvent,
    StepCompleteEvent,
    StepFailEvent,
    StepStartEvent,
    WorkerErrorEvent,
    is_domain_event,
)
from durably.core.jobs import JobDefinition, define_job
from durably.core.logs import Log, LogData
from durably.core.runs import (
    ClientRun,
    Disposition,
    ProgressData,
    Run,
    RunFilter,
    RunOperation,
    RunsSubscribeFilter,
    RunStatus,
    TriggerResult,
    to_client_run,
)
from durably.core.steps import Step
from durably.core.store import Store
from durably.engine.abort import AbortSignal
from durably.engine.step_context import StepContext, SyncStepContext
from durably.handles import JobHandle, TriggerAndWaitResult
from durably.log_persistence import with_log_persistence
from durably.options import (
    BatchItem,
    DurablyOptions,
    TriggerAndWaitOptions,
    TriggerOptions,
    TriggerRequest,
    TriggerResponse,
    WaitForRunOptions,
)

if TYPE_CHECKING:
    __version__: str
    from durably.http import (
        AuthConfig,
        CreateDurablyHandlerOptions,
        DurablyHandler,
        Reject,
        create_durably_handler,
    )

__all__ = [
    "AbortSignal",
    "AuthConfig",
    "BatchItem",
    "CancelledError",
    "ClientRun",
    "ConflictError",
    "CreateDurablyHandlerOptions",
    "Disposition",
    "DomainEvent",
    "Durably",
    "DurablyError",
    "DurablyEvent",
    "DurablyHandler",
    "DurablyOptions",
    "DurablyPlugin",
    "EventType",
    "JobDefinition",
    "JobHandle",
    "LeaseLostError",
    "Log",
    "LogData",
    "LogWriteEvent",
    "NotFoundError",
    "OperationalEvent",
    "ProgressData",
    "Reject",
    "Run",
    "RunCancelEvent",
    "RunCancelledError",
    "RunCoalescedEvent",
    "RunCompleteEvent",
    "RunDeleteEvent",
    "RunFailEvent",
    "RunFailedError",
    "RunFilter",
    "RunLeaseRenewedEvent",
    "RunLeasedEvent",
    "RunOperation",
    "RunProgressEvent",
    "RunStatus",
    "RunTriggerEvent",
    "RunsSubscribeFilter",
    "SchemaTooNewError",
    "Step",
    "StepCancelEvent",
    "StepCompleteEvent",
    "StepContext",
    "StepFailEvent",
    "StepStartEvent",
    "Store",
    "StoreError",
    "StoreUnavailableError",
    "SyncStepContext",
    "TriggerAndWaitOptions",
    "TriggerAndWaitResult",
    "TriggerOptions",
    "TriggerRequest",
    "TriggerResponse",
    "TriggerResult",
    "ValidationError",
    "ValueRefusedError",
    "WaitForRunOptions",
    "WorkerErrorEvent",
    "create_durably",
    "create_durably_handler",
    "define_job",
    "is_domain_event",
    "to_client_run",
    "with_log_persistence",
]

_FROM_HTTP = frozenset(
    {"AuthConfig", "CreateDurablyHandlerOptions", "DurablyHandler", "Reject", "create_durably_handler"}
)
if not TYPE_CHECKING and find_spec("starlette") is None:
    # `from durably import *` must not need what an extra brings either.
    __all__ = [name for name in __all__ if name not in _FROM_HTTP]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Read only when asked for: `importlib.metadata` would make every `import durably` slower.
        from importlib.metadata import version  # noqa: PLC0415

        return version("durably")
    # Asked for by name only: `import durably` must not need what an extra brings.
    if name not in _FROM_HTTP:
        raise AttributeError(f"module 'durably' has no attribute {name!r}")
    from durably import http  # noqa: PLC0415

    return getattr(http, name)
