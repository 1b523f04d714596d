"""What a type checker must know of steps; see `jobs.py`."""

from __future__ import annotations

from typing import assert_type

from durably import AbortSignal, StepContext, SyncStepContext


async def an_async_step(n: int, *, text: str = "") -> list[int]:
    return [n, len(text)]


def a_plain_step(n: int) -> str:
    return str(n)


async def with_signal(n: int, signal: AbortSignal) -> bool:
    return signal.aborted and n > 0


def untyped() -> object:
    return {"n": 1}


async def a_step_returns_what_its_function_returns(step: StepContext) -> None:
    assert_type(await step.run("async", an_async_step, 1, text="a"), list[int])
    assert_type(await step.run("plain", a_plain_step, 1), str)
    assert_type(await step.run("lambda", lambda: 5), int)
    assert_type(await step.run("async lambda", lambda: an_async_step(1)), list[int])
    assert_type(await step.run("signal", with_signal, 1), bool)
    assert_type(await step.run("returns", untyped, returns=str), str)

    await step.run(5, a_plain_step, 1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    await step.rum("plain", a_plain_step, 1)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    wrong: int = await step.run("plain", a_plain_step, 1)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    step.progress("half")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    step.progress(1, 2, "half")
    step.log.info("text", {"any": [1]})
    step.log.info(wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def a_plain_job_does_not_await(step: SyncStepContext) -> None:
    assert_type(step.run("async", an_async_step, 1), list[int])
    assert_type(step.run("plain", a_plain_step, 1), str)
    assert_type(step.run("returns", untyped, returns=str), str)
    assert_type(step.signal, AbortSignal)
