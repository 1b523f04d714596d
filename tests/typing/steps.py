"""What a type checker must know of steps; see `jobs.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, assert_type

from pydantic import BaseModel, Field

from durably import AbortSignal, StepContext, SyncStepContext

T = TypeVar("T")


class Order(BaseModel):
    n: int


async def an_async_step(n: int, *, text: str = "") -> list[int]:
    return [n, len(text)]


def a_plain_step(n: int) -> str:
    return str(n)


async def with_signal(n: int, signal: AbortSignal) -> bool:
    return signal.aborted and n > 0


def untyped() -> object:
    return {"n": 1}


def load(path: str, **options: Any) -> dict[str, int]:
    return {"n": len(path) + len(options)}


def load_strictly(path: str, **options: object) -> dict[str, int]:
    return {"n": len(path) + len(options)}


def of_any_type(n: int) -> Any:
    return {"n": n}


def first(items: list[T]) -> T:
    return items[0]


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


async def returns_goes_before_what_the_function_says(step: StepContext, text: str) -> None:
    assert_type(await step.run("function", lambda: {"n": 1}, returns=Order), Order)
    assert_type(await step.run("any result", of_any_type, 1, returns=Order), Order)
    assert_type(await step.run("signal", with_signal, 1, returns=Order), Order)
    assert_type(await step.run("keywords", load_strictly, "p", returns=Order), Order)
    assert_type(await step.run("generic", untyped, returns=list[Order]), list[Order])
    assert_type(await step.run("abstract", untyped, returns=Sequence[int]), Sequence[int])
    assert_type(await step.run("type variable", first, [1]), int)
    # To mypy `**options: Any` fits more than one overload, and that is Any.
    assert_type(await step.run("any keyword", load, "p", returns=Order), Order)  # type: ignore[assert-type]
    assert_type(await step.run("json", json.loads, text, returns=Order), Order)  # type: ignore[assert-type]

    wrong: int = await step.run("wrong", untyped, returns=Order)  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    await step.run("argument", a_plain_step, wrong, returns=Order)
    numbers: list[str] = await step.run("wrong", untyped, returns=list[int])  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    wider: Order | None = await step.run("wider", untyped, returns=Order)
    await step.run("no function", numbers, returns=Order)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    await step.run("no function", wider, returns=Order | None)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


async def what_is_no_class_may_be_anything(step: StepContext) -> None:
    assert_type(await step.run("union", lambda: {"n": 1}, returns=Order | None), Any)
    assert_type(await step.run("annotated", lambda: {"n": 1}, returns=Annotated[Order, Field()]), Any)
    assert_type(await step.run("literal", untyped, returns=Literal["a"]), Any)
    assert_type(await step.run("signal", with_signal, 1, returns=Order | None), Any)
    assert_type(await step.run("keywords", load_strictly, "p", returns=Order | None), Any)
    assert_type(await step.run("any keyword", load, "p", returns=Order | None), Any)


def a_plain_job_does_not_await(step: SyncStepContext) -> None:
    assert_type(step.run("async", an_async_step, 1), list[int])
    assert_type(step.run("plain", a_plain_step, 1), str)
    assert_type(step.run("returns", untyped, returns=str), str)
    assert_type(step.run("signal", with_signal, 1), bool)
    assert_type(step.run("any result", of_any_type, 1, returns=Order), Order)
    assert_type(step.run("abstract", untyped, returns=Sequence[int]), Sequence[int])
    either: Order | None = step.run("union", lambda: {"n": 1}, returns=Order | None)
    assert_type(step.run("annotated", lambda: {"n": 1}, returns=Annotated[Order, Field()]), Any)
    assert_type(step.run("any keyword", load, "p", returns=Order | None), Any)
    assert_type(step.run("any keyword", load, "p", returns=Order), Order)  # type: ignore[assert-type] # mypy: Any
    wrong: int = step.run("wrong", untyped, returns=Order)  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    numbers: list[str] = step.run("wrong", of_any_type, wrong, returns=list[int])  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    step.run("no function", numbers, either, returns=Order)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    assert_type(step.signal, AbortSignal)
