"""Who may do what: the hooks of an application, and the one place that calls them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Generic

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from typing_extensions import TypeVar

from durably.core.errors import ValidationError
from durably.core.jobs import is_async_callable
from durably.core.runs import Run, RunFilter, RunOperation, RunsSubscribeFilter
from durably.engine.queries import run_query
from durably.engine.threads import has_threads
from durably.http.codec import Fields, trigger_from_wire
from durably.http.problems import Reject
from durably.options import TriggerRequest

ContextT = TypeVar("ContextT", default=Any)

_FILTER_KEYS: Final = tuple(RunFilter.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig(Generic[ContextT]):
    """Hooks that decide who may do what. Each is sync or async and called with positional arguments.

    `authenticate(request)` returns the context, any value, that the others get first. `on_trigger(context,
    trigger)` and `on_run_access(context, run, operation)` return nothing. `scope_runs(context, filter)` and
    `scope_runs_subscribe(context, filter)` return the narrowed filter; without the second the first serves
    the event stream too; an empty sequence of job names leaves nothing. A hook rejects by raising Starlette's
    (or FastAPI's) `HTTPException` or `Reject`.

    A hook that is a plain function runs in a worker thread, so it may block.

    >>> def authenticate(request: Request) -> str:
    ...     if (user := users.get(request.cookies.get("session"))) is None:
    ...         raise HTTPException(401, "Sign in first")
    ...     return user
    >>> AuthConfig(authenticate=authenticate)
    """

    authenticate: Callable[[Request], ContextT | Awaitable[ContextT]]
    on_trigger: Callable[[ContextT, TriggerRequest], object] | None = None
    on_run_access: Callable[[ContextT, Run[Any], RunOperation], object] | None = None
    scope_runs: Callable[[ContextT, RunFilter], RunFilter | Awaitable[RunFilter]] | None = None
    scope_runs_subscribe: (
        Callable[[ContextT, RunsSubscribeFilter], RunsSubscribeFilter | Awaitable[RunsSubscribeFilter]] | None
    ) = None

    def __post_init__(self) -> None:
        for field in fields(self):
            hook = getattr(self, field.name)
            if not callable(hook) and (hook is not None or field.name == "authenticate"):
                raise ValidationError(
                    f"Invalid auth.{field.name} {hook!r}: must be a function", field=f"auth.{field.name}", value=hook
                )


class Gate:
    """Asks the hooks; without any, everybody may do everything."""

    def __init__(self, auth: AuthConfig[Any] | None) -> None:
        self._auth: Final = auth

    async def authenticate(self, request: Request) -> Any:
        """Return the context of the caller."""
        return None if self._auth is None else await call_hook(self._auth.authenticate, request)

    async def check_trigger(self, context: Any, body: Fields) -> None:
        """Let `on_trigger` reject what the body of a trigger asks for."""
        if self._auth is not None and self._auth.on_trigger is not None:
            await call_hook(self._auth.on_trigger, context, trigger_from_wire(body))

    async def check_access(self, context: Any, run: Run[Any], operation: RunOperation) -> None:
        """Let `on_run_access` reject."""
        if self._auth is not None and self._auth.on_run_access is not None:
            await call_hook(self._auth.on_run_access, context, run, operation)

    @property
    def hides_runs(self) -> bool:
        """Tell whether there may be runs that a caller may not see."""
        return self._auth is not None and self._auth.on_run_access is not None

    async def may_read(self, context: Any, run: Run[Any]) -> bool:
        """Tell whether the caller may see a run, instead of rejecting."""
        try:
            await self.check_access(context, run, "read")
        except (HTTPException, Reject):
            return False
        return True

    async def scope_list(self, context: Any, wanted: RunFilter) -> RunFilter:
        """Return the filter of a list as far as the caller may see."""
        if self._auth is None or self._auth.scope_runs is None:
            return wanted
        scoped: RunFilter = _checked("scope_runs", await call_hook(self._auth.scope_runs, context, wanted))
        return scoped

    async def scope_stream(self, context: Any, wanted: RunsSubscribeFilter) -> RunsSubscribeFilter:
        """Return the filter of an event stream as far as the caller may see."""
        if self._auth is None:
            return wanted
        name = "scope_runs" if self._auth.scope_runs_subscribe is None else "scope_runs_subscribe"
        hook = getattr(self._auth, name)
        if hook is None:
            return wanted
        scoped: RunsSubscribeFilter = _checked(name, await call_hook(hook, context, wanted))
        if scoped.get("status"):
            # Passed over, it would show what a list hides.
            raise TypeError(
                f"auth.{name} narrows the stream of all runs by status, which cannot be: runs change theirs while they "
                "are watched. Give scope_runs_subscribe, which narrows it by jobs and labels"
            )
        return scoped


def _checked(hook: str, scoped: Any) -> Any:
    """Return the filter that a hook returned. Raises `TypeError` for what is none."""
    if not isinstance(scoped, Mapping):
        raise TypeError(f"auth.{hook} returned {scoped!r}: it must return the filter that it was given, narrowed")
    # A misspelt key would narrow nothing, and show a caller the runs of others.
    if unknown := [key for key in scoped if key not in _FILTER_KEYS]:
        raise TypeError(
            f"auth.{hook} returned a filter with {', '.join(map(repr, unknown))}: it may have {', '.join(_FILTER_KEYS)}"
        )
    try:
        run_query(**scoped)
    except ValidationError as invalid:
        # The caller's own part was valid: what is wrong now is not for them to hear of.
        raise TypeError(f"auth.{hook} returned {scoped!r}: {invalid}") from invalid
    return scoped


async def call_hook(hook: Callable[..., Any], *arguments: Any) -> Any:
    """Call a hook of the application: an async one here, a plain one where it may block."""
    if is_async_callable(hook):
        return await hook(*arguments)
    result = await run_in_threadpool(hook, *arguments) if has_threads() else hook(*arguments)
    return await result if inspect.isawaitable(result) else result
