"""What a request says, read and checked: the query, the body, where a stream is to go on."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote_plus

from pydantic_core import from_json
from starlette.requests import Request

from durably.core.runs import RunFilter
from durably.engine.queries import run_query
from durably.http.problems import BadRequest

_LABEL_PREFIX: Final = "label."
_LONGEST_NUMBER: Final = 18
_MOST_SILENCE_SECONDS: Final = 30

Query = list[tuple[str, str]]


def path_of(request: Request) -> str:
    """Return the path below the root path, of which servers differ in whether the path holds it.

    Of an application that is mounted in another it is the root path of the other, which a proxy may have taken away,
    and the path that it is mounted at, which it has not.
    """
    path: str = request.scope["path"]
    root: str = request.scope.get("root_path", "")
    for base in (root, root.removeprefix(request.scope.get("app_root_path", ""))):
        if base and (path == base or path.startswith(f"{base}/")):
            return path[len(base) :]
    return path


async def json_body(request: Request, limit: int) -> Any:
    """Return the body as JSON of at most `limit` bytes, nested at most 200 deep. Raises `BadRequest`."""
    body = await _body(request, limit)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}") from error


async def _body(request: Request, limit: int) -> bytearray:
    if not _announces_more(request, limit):
        body = bytearray()
        try:
            async with asyncio.timeout(_MOST_SILENCE_SECONDS) as waiting:
                async for chunk in request.stream():
                    waiting.reschedule(asyncio.get_running_loop().time() + _MOST_SILENCE_SECONDS)
                    body += chunk
                    if len(body) > limit:
                        break
                else:
                    return body
        except TimeoutError as error:
            # Few servers have a limit of their own, and a client that falls silent would be waited for for ever.
            raise BadRequest(
                f"The request body stopped arriving: nothing came for {_MOST_SILENCE_SECONDS} s", 408
            ) from error
    raise BadRequest(f"The request body is too large: at most {limit} bytes are accepted", 413)


def run_id_of(request: Request) -> str:
    """Return the first `runId` of the query. Raises `BadRequest` when it is missing, empty or holds a NUL."""
    run_id = _first(_query(request), "runId")
    if not run_id:
        raise BadRequest("runId query parameter is required")
    return run_id


def run_filter_of(request: Request) -> RunFilter:
    """Return the filter of a list. Raises `BadRequest` or `ValidationError` for what cannot be one."""
    query = _query(request)
    wanted = RunFilter(labels=_labels_of(query))
    if statuses := _all(query, "status"):
        wanted["status"] = statuses
    if job_names := _all(query, "jobName"):
        wanted["job_name"] = job_names
    if limit := _first(query, "limit"):
        wanted["limit"] = _whole_number("limit", limit)
    if offset := _first(query, "offset"):
        wanted["offset"] = _whole_number("offset", offset)
    run_query(**wanted)
    return wanted


def stream_filter_of(request: Request) -> RunFilter:
    """Return the filter of an event stream of all runs. Raises what `run_filter_of` raises."""
    query = _query(request)
    wanted = RunFilter(labels=_labels_of(query))
    if job_names := _all(query, "jobName"):
        wanted["job_name"] = job_names
    run_query(**wanted)
    return wanted


def last_event_id_of(request: Request) -> str:
    """Return the id of the last event that a reconnecting client has, empty for none.

    A client that makes a new EventSource cannot set the header and says it in the query.
    """
    return request.headers.get("last-event-id") or _first(_query(request), "lastEventId") or ""


def _query(request: Request) -> Query:
    """Return the names and values of the query in their order. Raises `BadRequest` for a NUL in it."""
    # Every request passes here, and most queries have nothing to be decoded: `parse_qsl` looks for it in each part.
    raw: bytes = request.scope["query_string"]
    text = raw.decode("latin-1")
    parts = [part.partition("=") for part in text.split("&") if part]
    if "%" in text or "+" in text:
        query = [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]
    else:
        query = [(name, value) for name, _, value in parts]
    for name, value in query:
        if "\x00" in value or "\x00" in name:
            raise BadRequest(f"Invalid {name!a}: must not hold a NUL character")
    return query


def _all(query: Query, wanted: str) -> list[str]:
    return [value for name, value in query if name == wanted]


def _first(query: Query, wanted: str) -> str | None:
    for name, value in query:
        if name == wanted:
            return value
    return None


def _labels_of(query: Query) -> dict[str, str]:
    return {name.removeprefix(_LABEL_PREFIX): value for name, value in query if name.startswith(_LABEL_PREFIX)}


def _announces_more(request: Request, limit: int) -> bool:
    for name, value in request.scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return len(value) > _LONGEST_NUMBER or int(value) > limit
    return False


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"Invalid {name}: must be a non-negative integer")
    return int(text) if len(text) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER
