"""How listeners are registered: `on` gives each the event class that belongs to the name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, overload

from durably.core import events
from durably.engine.event_bus import Scope

EventT = TypeVar("EventT")
R = TypeVar("R")
Unsubscribe = Callable[[], None]


class Decorator(Protocol[EventT]):
    """Registers the function it decorates, and leaves it as it is."""

    def __call__(self, listener: Callable[[EventT], R], /) -> Callable[[EventT], R]:
        """Register `listener`."""
        ...


class OnEvent(Protocol):
    """The type of `Durably.on`."""

    @overload
    def __call__(
        self,
        event_type: Literal["run:trigger"],
        listener: Callable[[events.RunTriggerEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:trigger"], *, scope: Scope = ...
    ) -> Decorator[events.RunTriggerEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:coalesced"],
        listener: Callable[[events.RunCoalescedEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:coalesced"], *, scope: Scope = ...
    ) -> Decorator[events.RunCoalescedEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:leased"],
        listener: Callable[[events.RunLeasedEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:leased"], *, scope: Scope = ...
    ) -> Decorator[events.RunLeasedEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:lease-renewed"],
        listener: Callable[[events.RunLeaseRenewedEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:lease-renewed"], *, scope: Scope = ...
    ) -> Decorator[events.RunLeaseRenewedEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:progress"],
        listener: Callable[[events.RunProgressEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:progress"], *, scope: Scope = ...
    ) -> Decorator[events.RunProgressEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:complete"],
        listener: Callable[[events.RunCompleteEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:complete"], *, scope: Scope = ...
    ) -> Decorator[events.RunCompleteEvent]: ...
    @overload
    def __call__(
        self, event_type: Literal["run:fail"], listener: Callable[[events.RunFailEvent], object], *, scope: Scope = ...
    ) -> Unsubscribe: ...
    @overload
    def __call__(self, event_type: Literal["run:fail"], *, scope: Scope = ...) -> Decorator[events.RunFailEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:cancel"],
        listener: Callable[[events.RunCancelEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:cancel"], *, scope: Scope = ...
    ) -> Decorator[events.RunCancelEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["run:delete"],
        listener: Callable[[events.RunDeleteEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["run:delete"], *, scope: Scope = ...
    ) -> Decorator[events.RunDeleteEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["step:start"],
        listener: Callable[[events.StepStartEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["step:start"], *, scope: Scope = ...
    ) -> Decorator[events.StepStartEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["step:complete"],
        listener: Callable[[events.StepCompleteEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["step:complete"], *, scope: Scope = ...
    ) -> Decorator[events.StepCompleteEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["step:fail"],
        listener: Callable[[events.StepFailEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(self, event_type: Literal["step:fail"], *, scope: Scope = ...) -> Decorator[events.StepFailEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["step:cancel"],
        listener: Callable[[events.StepCancelEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["step:cancel"], *, scope: Scope = ...
    ) -> Decorator[events.StepCancelEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["log:write"],
        listener: Callable[[events.LogWriteEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(self, event_type: Literal["log:write"], *, scope: Scope = ...) -> Decorator[events.LogWriteEvent]: ...
    @overload
    def __call__(
        self,
        event_type: Literal["worker:error"],
        listener: Callable[[events.WorkerErrorEvent], object],
        *,
        scope: Scope = ...,
    ) -> Unsubscribe: ...
    @overload
    def __call__(
        self, event_type: Literal["worker:error"], *, scope: Scope = ...
    ) -> Decorator[events.WorkerErrorEvent]: ...
    @overload
    def __call__(
        self, event_type: events.EventType, listener: Callable[[events.DurablyEvent], object], *, scope: Scope = ...
    ) -> Unsubscribe: ...
    def __call__(
        self, event_type: events.EventType, listener: Callable[[Any], object] | None = None, *, scope: Scope = ...
    ) -> Any:
        """Register a listener."""
        ...
