"""Listeners of this process: told synchronously, in the order in which they registered."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

from durably.core.clock import Clock
from durably.core.errors import DurablyError, ValidationError
from durably.core.events import DurablyEvent, EventType, stamp
from durably.engine.interruption import is_being_cancelled
from durably.tasks import begin_task

Scope = Literal["database", "process"]
Listener = Callable[[Any], object]
ErrorHandler = Callable[[Any, DurablyEvent], object]

_TYPES: Final = get_args(EventType)
_SCOPES: Final = get_args(Scope)

log = logging.getLogger("durably")


@dataclass(slots=True, eq=False)
class _Registration:
    listener: Listener
    scope: Scope
    is_removed: bool = False


class EventBus:
    """Delivers events to listeners; a listener that fails is reported and stops nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: dict[str, list[_Registration]] = {}
        self._error_handlers: list[ErrorHandler] = []
        self._started: set[asyncio.Future[Any]] = set()
        self._sequence = 0

    def on(self, event_type: EventType, listener: Listener, scope: Scope) -> Callable[[], None]:
        """Register a listener; return what removes it.

        Raises `ValidationError` for an unknown type or scope and for what cannot be called.
        """
        if event_type not in _TYPES:
            raise ValidationError(
                f"Invalid event type {event_type!r}: must be one of {', '.join(_TYPES)}",
                field="event_type",
                value=event_type,
            )
        _check_callable("listener", listener)
        if scope not in _SCOPES:
            raise ValidationError(
                f"Invalid scope {scope!r}: must be one of {', '.join(_SCOPES)}", field="scope", value=scope
            )
        registration = _Registration(listener, scope)
        registered = self._listeners.setdefault(event_type, [])
        registered.append(registration)

        def remove() -> None:
            if not registration.is_removed:
                registration.is_removed = True
                registered.remove(registration)

        return remove

    @property
    def hears_of_others(self) -> bool:
        """Tell whether anyone listens to the events of other processes."""
        return any(each.scope == "database" for registered in self._listeners.values() for each in registered)

    def on_error(self, handler: ErrorHandler) -> Callable[[], None]:
        """Register what is told of failing listeners, as `(error, event)`; an async one is started.

        Returns what removes it.

        Raises `ValidationError` for what cannot be called.
        """
        _check_callable("handler", handler)
        self._error_handlers.append(handler)

        def remove() -> None:
            if handler in self._error_handlers:
                self._error_handlers.remove(handler)

        return remove

    def number(self, event: DurablyEvent) -> None:
        """Give an event that was read back from the log its number; one that was delivered here has it."""
        if not event.sequence:
            self._sequence += 1
            stamp(event, self._sequence, self._clock)

    def emit(self, event: DurablyEvent, *, is_foreign: bool = False) -> None:
        """Give the event its number and tell every listener of its type."""
        self._sequence = sequence = self._sequence + 1
        stamp(event, sequence, self._clock)
        if not (listeners := self._listeners.get(event.type)):
            return
        for each in tuple(listeners):
            # One listener may remove another, which is not to hear even of this event then.
            if each.is_removed or (is_foreign and each.scope == "process"):
                continue
            try:
                result = each.listener(event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a listener raises is reported
                self.report(error, event)
                continue
            if inspect.isawaitable(result):
                self._start(result, partial(self.report, event=event))

    def _start(self, awaitable: Any, failed: Callable[[BaseException], None]) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            failed(RuntimeError("an async listener needs an event loop: none runs where the event was emitted"))
            return

        async def settle() -> None:
            try:
                await awaitable
            except (Exception, DurablyError, SystemExit, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                    raise
                failed(error)

        task = begin_task(settle())
        self._started.add(task)
        task.add_done_callback(self._started.discard)

    def report(self, error: BaseException, event: DurablyEvent) -> None:
        """Tell the error handlers, or the log when there is none, of what was raised by somebody told of an event."""
        if not self._error_handlers:
            log.error("a listener of %s failed", event.type, exc_info=error)
        for handler in tuple(self._error_handlers):
            failed = partial(_handler_failed, error)
            try:
                result = handler(error, event)
            except (Exception, DurablyError, SystemExit, asyncio.CancelledError) as failure:  # noqa: BLE001 - it ends here
                failed(failure)
                continue
            if inspect.isawaitable(result):
                self._start(result, failed)


def _handler_failed(told_of: BaseException, failure: BaseException) -> None:
    log.error("an error handler failed while it was told of %r", told_of, exc_info=failure)


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise ValidationError(f"Invalid {name} {value!r}: must be a function", field=name, value=value)
