"""What a request says, read and checked: the query, the body, where a stream is to go on."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request

from durably.core.runs import RunFilter
from durably.engine.queries import run_query
from durably.http.problems import BadRequest

_LABEL_PREFIX: Final = "label."
_LONGEST_NUMBER: Final = 18


async def json_body(request: Request, limit: int) -> Any:
    """Return the body as JSON of at most `limit` bytes, nested at most 200 deep. Raises `BadRequest`."""
    body = await _body(request, limit)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}") from error


async def _body(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "")
    body = bytearray()
    if not (announced.isdecimal() and len(announced) <= _LONGEST_NUMBER and int(announced) > limit):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise BadRequest(f"The request body is too large: at most {limit} bytes are accepted", 413)


def run_id_of(request: Request) -> str:
    """Return the first `runId` of the query. Raises `BadRequest` when it is missing, empty or holds a NUL."""
    run_id = _first(request, "runId")
    if not run_id:
        raise BadRequest("runId query parameter is required")
    _refuse_nul(request)
    return run_id


def run_filter_of(request: Request) -> RunFilter:
    """Return the filter of a list. Raises `BadRequest` or `ValidationError` for what cannot be one."""
    _refuse_nul(request)
    query = request.query_params
    wanted = RunFilter(labels=_labels_of(request))
    if statuses := query.getlist("status"):
        wanted["status"] = statuses
    if job_names := query.getlist("jobName"):
        wanted["job_name"] = job_names
    if limit := _first(request, "limit"):
        wanted["limit"] = _whole_number("limit", limit)
    if offset := _first(request, "offset"):
        wanted["offset"] = _whole_number("offset", offset)
    run_query(**wanted)
    return wanted


def stream_filter_of(request: Request) -> RunFilter:
    """Return the filter of an event stream of all runs. Raises what `run_filter_of` raises."""
    _refuse_nul(request)
    wanted = RunFilter(labels=_labels_of(request))
    if job_names := request.query_params.getlist("jobName"):
        wanted["job_name"] = job_names
    run_query(**wanted)
    return wanted


def last_event_id_of(request: Request) -> str:
    """Return the id of the last event that a reconnecting client has, empty for none.

    A client that makes a new EventSource cannot set the header and says it in the query.
    """
    return request.headers.get("last-event-id") or _first(request, "lastEventId") or ""


def _first(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    return values[0] if values else None


def _labels_of(request: Request) -> dict[str, str]:
    return {
        key.removeprefix(_LABEL_PREFIX): value
        for key, value in request.query_params.multi_items()
        if key.startswith(_LABEL_PREFIX)
    }


def _refuse_nul(request: Request) -> None:
    for key, value in request.query_params.multi_items():
        if "\x00" in value or "\x00" in key:
            raise BadRequest(f"Invalid {key!a}: must not hold a NUL character")


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"Invalid {name}: must be a non-negative integer")
    return int(text) if len(text) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER
