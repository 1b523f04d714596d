"""One function per endpoint. Each has been let in already and decides what is asked of the instance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import PydanticUserError
from starlette.requests import Request
from starlette.responses import Response

from durably.app import Durably
from durably.core.errors import ConflictError, NotFoundError
from durably.core.events import DurablyEvent, RunEvent
from durably.core.jobs import JobDefinition
from durably.core.json_values import Codec, Mode, encode_leniently
from durably.core.runs import Run, RunFilter, RunOperation, RunsSubscribeFilter, TriggerResult
from durably.engine.enqueue import TriggerOrder
from durably.engine.queries import run_query
from durably.handles import JobHandle
from durably.http.auth import Gate
from durably.http.codec import log_to_wire, run_to_wire, step_to_wire
from durably.http.cursor import Cursor
from durably.http.following import follow_all_runs, follow_one_run
from durably.http.openapi import OPENAPI
from durably.http.problems import BadRequest, JsonResponse
from durably.http.request_data import json_body, last_event_id_of, path_of, run_filter_of, run_id_of, stream_filter_of
from durably.http.responses import EventStreamResponse

_NEUTRAL_CONFLICT: Final = "The trigger conflicts with another run"


@dataclass(slots=True)
class Call:
    """A request that was let in: who asks, and what there is to answer with."""

    request: Request
    context: Any
    durably: Durably
    gate: Gate
    sse_throttle: float
    max_body_size: int

    async def run(self, operation: RunOperation) -> Run[Any]:
        """Return the run that the query names, if the caller may do this with it."""
        run_id = run_id_of(self.request)
        run = await self.durably.get_run(run_id)
        if run is None:
            raise NotFoundError("run", run_id)
        await self.gate.check_access(self.context, run, operation)
        return run


async def trigger(call: Call) -> Response:
    """`POST /trigger`."""
    body = await json_body(call.request, call.max_body_size)
    job = _job_of(call.durably, body)
    await call.gate.check_trigger(call.context, body)
    _check_trigger(body)
    order = TriggerOrder(
        body["input"], body.get("idempotencyKey"), body.get("concurrencyKey"), body.get("coalesce"), body.get("labels")
    )
    triggered = await _enqueue(call, job.definition, order)
    if triggered.disposition != "created" and not await call.gate.may_read(call.context, triggered):
        raise BadRequest(_NEUTRAL_CONFLICT, 409)
    return JsonResponse({"runId": triggered.id, "disposition": triggered.disposition})


async def list_runs(call: Call) -> Response:
    """`GET /runs`."""
    scoped = await call.gate.scope_list(call.context, run_filter_of(call.request))
    if _leaves_nothing(scoped):
        return JsonResponse([])
    return JsonResponse([run_to_wire(run) for run in await call.durably.get_runs(**scoped)])


async def get_run(call: Call) -> Response:
    """`GET /run`."""
    return JsonResponse(run_to_wire(await call.run("read")))


async def get_steps(call: Call) -> Response:
    """`GET /steps`."""
    run = await call.run("steps")
    return JsonResponse([step_to_wire(step) for step in await call.durably.get_steps(run.id)])


async def get_logs(call: Call) -> Response:
    """`GET /logs`: what a run did in detail, as its steps are, so the same right opens it."""
    run = await call.run("steps")
    return JsonResponse([log_to_wire(log) for log in await call.durably.get_logs(run.id)])


async def get_jobs(call: Call) -> Response:
    """`GET /jobs`: names and the JSON Schemas of what goes in and comes out, null for anything."""
    definitions = {handle.name: handle.definition for handle in call.durably.jobs.values()}
    return JsonResponse(
        [
            {
                "name": name,
                "inputSchema": _schema(definition.input, "validation"),
                "outputSchema": _schema(definition.output, "serialization"),
            }
            for name, definition in definitions.items()
        ]
    )


async def retrigger(call: Call) -> Response:
    """`POST /retrigger`."""
    run = await call.run("retrigger")
    try:
        fresh = await call.durably.retrigger(run.id)
    except ConflictError as conflict:
        await _hide_unseen(call, conflict)
        raise
    return JsonResponse({"success": True, "runId": fresh.id})


async def cancel(call: Call) -> Response:
    """`POST /cancel`."""
    run = await call.run("cancel")
    await call.durably.cancel(run.id)
    return JsonResponse({"success": True})


async def delete_run(call: Call) -> Response:
    """`DELETE /run`."""
    run = await call.run("delete")
    await call.durably.delete_run(run.id)
    return JsonResponse({"success": True})


async def subscribe(call: Call) -> Response:
    """`GET /subscribe`: the event stream of one run."""
    run = await call.run("subscribe")
    last = Cursor.of(last_event_id_of(call.request))
    return EventStreamResponse(lambda: follow_one_run(call.durably, run, last, call.sse_throttle))


async def subscribe_runs(call: Call) -> Response:
    """`GET /runs/subscribe`: the event stream of all runs that match."""
    scoped = await call.gate.scope_stream(call.context, stream_filter_of(call.request))
    matches = _matcher(scoped)
    last = Cursor.of(last_event_id_of(call.request))
    return EventStreamResponse(lambda: follow_all_runs(call.durably, matches, last, call.sse_throttle))


async def openapi(call: Call) -> Response:
    """`GET /openapi.json`: its paths lie below the one at which it was asked for."""
    full = call.request.scope.get("root_path", "") + path_of(call.request)
    return JsonResponse({**OPENAPI, "servers": [{"url": quote(full.removesuffix("/openapi.json")) or "/"}]})


ROUTES: Final[dict[tuple[str, str], Callable[[Call], Awaitable[Response]]]] = {
    ("POST", "/trigger"): trigger,
    ("GET", "/runs"): list_runs,
    ("GET", "/run"): get_run,
    ("DELETE", "/run"): delete_run,
    ("GET", "/steps"): get_steps,
    ("GET", "/logs"): get_logs,
    ("GET", "/jobs"): get_jobs,
    ("POST", "/retrigger"): retrigger,
    ("POST", "/cancel"): cancel,
    ("GET", "/subscribe"): subscribe,
    ("GET", "/runs/subscribe"): subscribe_runs,
    ("GET", "/openapi.json"): openapi,
}


def _job_of(durably: Durably, body: Any) -> JobHandle[Any, Any]:
    name = body.get("jobName") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise BadRequest("jobName is required")
    job = durably.get_job(name)
    if job is None:
        raise NotFoundError("job", name)
    return job


def _check_trigger(body: dict[str, Any]) -> None:
    if "coalesce" in body and body["coalesce"] != "skip":
        given = body["coalesce"]
        shown = given if isinstance(given, str) else encode_leniently(given)
        raise BadRequest(f"Invalid coalesce value: '{shown}'. Valid values: 'skip'")
    if "coalesce" in body and body.get("concurrencyKey") is None:
        raise BadRequest("coalesce requires concurrencyKey")
    if "input" not in body:
        raise BadRequest("input is required")


async def _enqueue(call: Call, definition: JobDefinition[Any, Any], order: TriggerOrder) -> TriggerResult[Any]:
    """Store a run, or find the one that its keys stand for; one that the caller may not see hears nothing of it.

    Joining a run is told on its streams. So it is asked for by name, after the hook has let it be seen: if
    another run waits under the key by then, that is one more conflict, and one more question.
    """
    asks_first = order.coalesce is not None and call.gate.hides_runs
    asked = order._replace(coalesce=None) if asks_first else order
    while True:
        try:
            return (await call.durably.enqueue(definition, [asked]))[0]
        except ConflictError as conflict:
            await _hide_unseen(call, conflict)
            if not asks_first or conflict.run_id is None:
                raise
            asked = order._replace(only_into=conflict.run_id)


async def _hide_unseen(call: Call, conflict: ConflictError) -> None:
    """Say nothing of a run that stands in the way when the caller may not see it."""
    if conflict.run_id is None:
        return
    run = await call.durably.get_run(conflict.run_id)
    if run is not None and not await call.gate.may_read(call.context, run):
        raise BadRequest(_NEUTRAL_CONFLICT, 409) from conflict


def _leaves_nothing(scoped: RunFilter | RunsSubscribeFilter) -> bool:
    """Tell whether a hook allows none of the jobs, none of the states, or no run at all.

    No client can ask for that, and to a query an empty sequence is no filter: all would be shown where nothing may be.
    """
    if scoped.get("limit") == 0:
        return True
    narrowed = (scoped.get("job_name"), scoped.get("status"))
    return any(isinstance(allowed, Collection) and not isinstance(allowed, str) and not allowed for allowed in narrowed)


def _matcher(scoped: RunsSubscribeFilter) -> Callable[[DurablyEvent], bool]:
    if _leaves_nothing(scoped):
        return lambda _: False
    query = run_query(job_name=scoped.get("job_name"), labels=scoped.get("labels"))

    def matches(event: DurablyEvent) -> bool:
        if not isinstance(event, RunEvent):
            return False
        if query.job_names and event.job_name not in query.job_names:
            return False
        return all(event.labels.get(key) == value for key, value in query.labels)

    return matches


def _schema(codec: Codec[Any] | None, mode: Mode) -> dict[str, Any] | None:
    try:
        return None if codec is None else codec.json_schema(mode) or None
    except PydanticUserError:
        # Some types that Pydantic validates have no JSON Schema.
        return None
