"""The names, order and defaults of arguments, as the documentation prints them: programs are written after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import pytest

import durably
from durably import AbortSignal, Durably, JobHandle, StepContext, SyncStepContext
from durably.engine.step_context import StepLog

_SETTINGS: Final = (
    "polling_interval=1.0, max_concurrent_runs=10, lease_duration=30, lease_renew_interval=None, preserve_steps=False, "
    "retain_runs=None"
)
_TRIGGER: Final = "idempotency_key=None, concurrency_key=None, coalesce=None, labels=None"
_WAIT: Final = "timeout=None, polling_interval=None, on_progress=None, on_log=None"
_FILTER: Final = "*, status=None, job_name=None, labels=None, limit=None, offset=None"

SIGNATURES: Final[list[tuple[Callable[..., Any], str]]] = [
    (durably.define_job, "*, name, input=None, output=None, run=None"),
    (
        durably.create_durably,
        f"*, database=None, jobs=None, {_SETTINGS}, labels=None, worker_id=None, clock=None",
    ),
    (Durably.init, ""),
    (Durably.migrate, ""),
    (Durably.start, ""),
    (Durably.stop, "timeout=None"),
    (Durably.close, ""),
    (Durably.register, "jobs"),
    (Durably.get_job, "name"),
    (Durably._on, "event_type, listener=None, *, scope='database'"),
    (Durably.on_error, "handler"),
    (Durably.emit, "event"),
    (Durably.subscribe, "run_id"),
    (Durably.use, "plugin"),
    (Durably.get_run, "id"),
    (Durably.get_runs, _FILTER),
    (Durably.get_steps, "run_id"),
    (Durably.get_logs, "run_id"),
    (Durably.wait_for_run, f"id, *, {_WAIT}"),
    (Durably.retrigger, "id"),
    (Durably.cancel, "id"),
    (Durably.delete_run, "id"),
    (Durably.purge_runs, "*, older_than, limit=500"),
    (Durably.process_one, "*, worker_id=None"),
    (Durably.process_until_idle, "*, worker_id=None, max_runs=None"),
    (JobHandle.trigger, f"input, *, {_TRIGGER}"),
    (JobHandle.trigger_and_wait, f"input, *, {_WAIT}, {_TRIGGER}"),
    (JobHandle.batch_trigger, "items"),
    (JobHandle.get_run, "id"),
    (JobHandle.get_runs, _FILTER),
    (durably.BatchItem, f"input, {_TRIGGER}"),
    # The arguments of a step's function may have these names too.
    (StepContext.run, "name, fn, /, *args, returns=None, **kwargs"),
    (SyncStepContext.run, "name, fn, /, *args, returns=None, **kwargs"),
    (StepContext.progress, "current, total=None, message=None"),
    (StepContext.is_aborted, ""),
    (StepContext.throw_if_aborted, ""),
    (StepLog.info, "message, data"),
    (StepLog.warn, "message, data"),
    (StepLog.error, "message, data"),
    (AbortSignal.wait, ""),
    (AbortSignal.throw_if_aborted, ""),
    (durably.to_client_run, "run"),
    (durably.is_domain_event, "event"),
    (durably.with_log_persistence, ""),
    (
        durably.create_durably_handler,
        "durably, *, sse_throttle=0.1, on_request=None, auth=None, max_body_size=1048576",
    ),
    (durably.DurablyHandler.handle, "request, base_path"),
    (
        durably.AuthConfig,
        "*, authenticate, on_trigger=None, on_run_access=None, scope_runs=None, scope_runs_subscribe=None",
    ),
]


def printed(function: Callable[..., Any]) -> str:
    """Return the arguments as documentation prints them: without types, `self` and a default that is no value."""
    signature = inspect.signature(function)
    parameters = [
        each.replace(
            annotation=inspect.Parameter.empty,
            default=inspect.Parameter.empty if type(each.default) is object else each.default,
        )
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))[1:-1]


@pytest.mark.parametrize(("function", "documented"), SIGNATURES, ids=[each.__qualname__ for each, _ in SIGNATURES])
def test_arguments_are_called_what_is_documented(function: Callable[..., Any], documented: str) -> None:
    """Each may be given by that name."""
    assert printed(function) == documented
