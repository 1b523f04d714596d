"""The handler: lets a request in, finds its endpoint, and turns whatever happens into a response."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from durably.app import Durably
from durably.core.arguments import Seconds, refuse, seconds_or_zero, whole_number
from durably.http.auth import AuthConfig, Gate, call_hook
from durably.http.problems import not_found, response_to
from durably.http.request_data import path_of
from durably.http.routes import ROUTES, Call

_MAX_BODY_SIZE: Final = 1_048_576
_SSE_THROTTLE: Final = 0.1


class CreateDurablyHandlerOptions(TypedDict, total=False):
    """What `create_durably_handler` takes beside the instance."""

    sse_throttle: Seconds
    on_request: Callable[..., object] | None
    auth: AuthConfig[Any] | None
    max_body_size: int


def create_durably_handler(
    durably: Durably,
    *,
    sse_throttle: Seconds = _SSE_THROTTLE,
    on_request: Callable[..., object] | None = None,
    auth: AuthConfig[Any] | None = None,
    max_body_size: int = _MAX_BODY_SIZE,
) -> DurablyHandler:
    """Make the handler that serves an instance over HTTP, to Durably's clients and React hooks.

    `sse_throttle`: seconds between two progress events of a run on one stream; 0 sends all of them.
    `on_request`: called before each request that was authenticated, with the request if it takes one.
    `auth`: who may do what; without it everybody may do everything. `max_body_size`: bytes that a request
    may bring.

    Raises `ValidationError` naming the argument, its value and what is allowed.

    >>> app.mount("/api/durably", create_durably_handler(durably))
    """
    if not isinstance(durably, Durably):
        raise refuse("durably", durably, "an instance made by create_durably")
    if auth is not None and not isinstance(auth, AuthConfig):
        raise refuse("auth", auth, "an AuthConfig")
    if on_request is not None and not callable(on_request):
        raise refuse("on_request", on_request, "a function")
    return DurablyHandler(
        durably,
        Gate(auth),
        on_request,
        sse_throttle=seconds_or_zero("sse_throttle", sse_throttle),
        max_body_size=whole_number("max_body_size", max_body_size, "a number of bytes above 0", least=1),
    )


class DurablyHandler:
    """Serves an instance over HTTP. Made by `create_durably_handler`.

    An ASGI application: mount it, or serve it alone; then the server's start and end are those of the
    instance, its worker included. `handle` answers single requests inside a route of one's own.
    """

    def __init__(
        self,
        durably: Durably,
        gate: Gate,
        on_request: Callable[..., object] | None,
        *,
        sse_throttle: float,
        max_body_size: int,
    ) -> None:
        self._durably = durably
        self._gate = gate
        self._on_request = on_request
        self._takes_request = on_request is not None and _takes_argument(on_request)
        self._sse_throttle = sse_throttle
        self._max_body_size = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application."""
        match scope["type"]:
            case "http":
                request = Request(scope, receive)
                response = await self._answer(request, path_of(request))
                await response(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})

    async def handle(self, request: Request, base_path: str) -> Response:
        """Return the response to a request whose path lies below `base_path`.

        >>> async def durably_route(request: Request) -> Response:
        ...     return await handler.handle(request, "/api/durably")
        >>> Route("/api/durably/{path:path}", durably_route, methods=["GET", "POST", "DELETE"])
        """
        for below in (request.scope["path"], path_of(request)):
            if below.startswith(f"{base_path.rstrip('/')}/"):
                return await self._answer(request, below[len(base_path.rstrip("/")) :])
        return await self._answer(request, "")

    async def _answer(self, request: Request, path: str) -> Response:
        try:
            context = await self._gate.authenticate(request)
            if self._on_request is not None:
                await call_hook(self._on_request, *[request] * self._takes_request)
            route = ROUTES.get((request.scope["method"], path))
            if route is None:
                return not_found()
            call = Call(request, context, self._durably, self._gate, self._sse_throttle, self._max_body_size)
            return await route(call)
        except Exception as error:  # noqa: BLE001 - every error has its response
            return response_to(error)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._durably.init()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must not start
            await self._durably.close()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            try:
                await self._durably.stop()
            finally:
                await self._durably.close()
        await send({"type": "lifespan.shutdown.complete"})


def _takes_argument(function: Callable[..., object]) -> bool:
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
        for parameter in inspect.signature(function).parameters.values()
    )
