"""From what went wrong to what the client is told: `{"error": text}`, never an internal message."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response

from durably.core.errors import ConflictError, NotFoundError, StoreUnavailableError, ValidationError
from durably.core.json_values import encode_stored
from durably.http.codec import error_to_wire

_LONGEST_TEXT: Final = 2_000
_NO_BODY: Final = frozenset({204, 304})

log = logging.getLogger("durably.http")


class BadRequest(Exception):  # noqa: N818 - named as HTTP names it
    """The request was refused: `status` and the text for the client."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Reject(Exception):  # noqa: N818 - it reads as what a hook does: raise Reject(response)
    """Raised by an auth hook: `response` goes out as it is.

    >>> raise Reject(RedirectResponse("/login"))
    """

    def __init__(self, response: Response) -> None:
        if not isinstance(response, Response):
            raise TypeError(f"Reject needs a Response, as Reject(PlainTextResponse('No', 403)), not {response!r}")
        super().__init__(f"rejected with status {response.status_code}")
        self.response = response


class JsonResponse(Response):
    """JSON, with the two headers that it needs and nothing that others might."""

    def __init__(self, content: Any, status: int = 200) -> None:
        self.status_code = status
        self.background = None
        # What another program stored may not be JSON, or nested without measure; one such value must not spoil a list.
        try:
            self.body = to_json(content, inf_nan_mode="null")
        except ValueError:
            self.body = encode_stored(content).encode()
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]


def problem(status: int, text: str) -> Response:
    """Return an error response."""
    # Some texts quote what was sent, and a megabyte of it helps nobody.
    return JsonResponse({"error": text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."}, status)


def not_found() -> Response:
    """Return the answer to a path or method that does not exist."""
    return PlainTextResponse("Not Found", 404)


def response_to(error: Exception) -> Response:  # noqa: PLR0911 - a table, one line of it per kind
    """Return the response for an error; what nobody expected is logged and told as no more than that."""
    match error:
        case Reject():
            return error.response
        case HTTPException():
            return _rejection(error.status_code, error.detail, error.headers)
        case BadRequest():
            return problem(error.status, str(error))
        case ValidationError():
            return problem(400, error_to_wire(error))
        case NotFoundError():
            return problem(404, error_to_wire(error))
        case ConflictError():
            return problem(409, error_to_wire(error))
        case ClientDisconnect():
            return problem(400, "The request ended before its body was complete")
        case StoreUnavailableError():
            log.warning("the database is not available: %s", error)
            return problem(503, "The database is not available, try again later")
        case _:
            log.error("a request failed", exc_info=error)
            return problem(500, "Internal server error")


def _rejection(status: int, detail: Any, headers: Mapping[str, str] | None) -> Response:
    if status in _NO_BODY:
        return Response(status_code=status, headers=headers)
    text = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False, default=str)
    return PlainTextResponse(text, status, headers)
