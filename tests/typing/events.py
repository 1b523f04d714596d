"""What a type checker must know of events; see `jobs.py`."""

from __future__ import annotations

from typing import assert_type

from durably import (
    DomainEvent,
    Durably,
    DurablyEvent,
    LogWriteEvent,
    OperationalEvent,
    ProgressData,
    RunCompleteEvent,
    RunFailEvent,
    RunProgressEvent,
    StepStartEvent,
    is_domain_event,
)


def takes_a_failure(event: RunFailEvent) -> None:
    assert_type(event.error, str)


def a_listener_gets_the_class_of_its_name(durably: Durably) -> None:
    durably.on("run:complete", lambda event: event.duration)
    durably.on("run:complete", lambda event: event.error)  # type: ignore[call-overload] # pyright: ignore[reportAttributeAccessIssue]
    durably.on("run:fail", takes_a_failure)
    durably.on("run:complete", takes_a_failure)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    durably.on("run:completed", takes_a_failure)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]

    @durably.on("run:progress")
    def on_progress(event: RunProgressEvent) -> None:
        assert_type(event.progress, ProgressData)

    @durably.on("log:write")
    async def on_log(event: LogWriteEvent) -> None:
        assert_type(event.step_name, str | None)

    on_progress(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def a_stream_narrows_by_type(durably: Durably) -> None:
    async for event in durably.subscribe("id"):
        assert_type(event, DurablyEvent)
        if event.type == "run:complete":
            assert_type(event, RunCompleteEvent)
        match event:
            case StepStartEvent():
                assert_type(event.step_name, str)
            case _:
                pass
        if is_domain_event(event):
            assert_type(event, DomainEvent)
        else:
            assert_type(event, OperationalEvent)
