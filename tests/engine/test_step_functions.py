"""What `step.run` makes of the function it is given: its signal and the type of its result."""

from __future__ import annotations

import functools
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from durably import RunFailEvent, StepContext, SyncStepContext, ValidationError, define_job
from durably.engine.abort import AbortSignal
from durably.engine.step_types import result_codec, takes_signal
from durably.testing import FakeStep, FakeSyncStep, crash_everywhere, in_memory, run_until_idle
from tests.conftest import OpenDurably


class Row(BaseModel):
    n: int


class Line(BaseModel):
    n: int


@dataclass
class Point:
    n: int
    pairs: list[int] = field(default_factory=list)


RowT = TypeVar("RowT", bound=BaseModel)


class Fetch:
    def __call__(self) -> Row:
        return Row(n=1)


class FetchSlowly:
    async def __call__(self) -> Row:
        return Row(n=1)


def patiently(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stand for any decorator that hands on what it is called with."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class TestResults:
    @pytest.mark.parametrize(
        "fetch", [Fetch(), FetchSlowly(), functools.partial(Fetch())], ids=["plain", "async", "partial"]
    )
    async def test_the_result_of_an_object_has_the_type_of_its_call(self, fetch: Callable[[], Row]) -> None:
        """S2: after a crash too."""

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> str:
            return type(await step.run("fetch", fetch)).__name__

        assert (await crash_everywhere(job, None, moments=["after-commit"])).differences == []
        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, None)).output == "Row"

    async def test_a_type_variable_says_nothing_of_a_result(self) -> None:
        """S2: its bound would keep of a value only what every value has."""

        def save(row: RowT) -> RowT:
            return row

        def save_all(rows: list[RowT]) -> list[RowT]:
            return rows

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[Any]:
            return [await step.run("one", save, Row(n=1)), await step.run("all", save_all, [Row(n=2)])]

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, None)).output == [{"n": 1}, [{"n": 2}]]

    async def test_a_callable_that_has_whatever_it_is_asked_for_is_called(self) -> None:
        """S2: as the proxies of `xmlrpc.client`."""

        class Proxy:
            def __getattr__(self, name: str) -> Any:
                return Proxy()

            def __call__(self, n: int) -> int:
                return n + 1

        @define_job(name="job")
        async def job(step: StepContext, input: int) -> Any:
            return await step.run("call", Proxy(), input)

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, 1)).output == 2

    async def test_an_instance_is_looked_at_like_any_other_value(self) -> None:
        """S2, S3: nobody has checked what code put into it, and the first execution sees what a resume would."""

        def broken() -> Point:
            return Point(n=2.5)  # type: ignore[arg-type] # the mistake

        def pairs() -> Point:
            return Point(n=1, pairs=(1, 2))  # type: ignore[arg-type] # another

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[int]:
            with pytest.raises(ValidationError, match=r"result of step 'broken' would be stored as .*\.n"):
                await step.run("broken", broken)
            return (await step.run("pairs", pairs)).pairs

        assert (await crash_everywhere(job, None, moments=["after-commit"])).differences == []

        @define_job(name="out")
        async def out(step: StepContext, input: Point) -> Point:
            return Point(n="x")  # type: ignore[arg-type] # the mistake

        async with in_memory({"job": out}) as durably:
            with pytest.raises(ValidationError, match="input would be stored as"):
                await durably.jobs.job.trigger(Point(n=2.5))  # type: ignore[arg-type] # the mistake
            assert "output would be stored as" in ((await run_until_idle(durably, out, Point(n=1))).error or "")

    async def test_the_order_of_a_union_decides_whatever_was_called_before(self) -> None:
        """S2: in the process that resumes, other steps may have been called first."""

        def found() -> Row | Line:
            return Row(n=1)

        def missed() -> Line | Row:
            return Line(n=1)

        @define_job(name="job")
        async def job(step: StepContext, input: list[str]) -> list[str]:
            steps = {"found": found, "missed": missed}
            return [type(await step.run(name, steps[name])).__name__ for name in input]

        async with in_memory({"job": job}) as durably:
            for names in (["found", "missed"], ["missed", "found"]):
                run = await run_until_idle(durably, job, names)
                assert run.output == [{"found": "Row", "missed": "Line"}[name] for name in names]

    async def test_an_object_that_shows_the_code_of_what_it_calls_has_its_own_type(self) -> None:
        """S2: as proxies do, whichever of the two was used first."""

        def count() -> int:
            return 3

        class Described:
            def __getattr__(self, name: str) -> Any:
                return getattr(count, name)

            def __call__(self) -> str:
                return f"count is {count()}"

        class Traced:
            __code__ = count.__code__

            def __call__(self) -> str:
                return f"count is {count()}"

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[Any]:
            functions: list[Callable[[], Any]] = [Described(), count, Described(), Traced()]
            return [await step.run(str(place), function) for place, function in enumerate(functions)]

        async with in_memory({"job": job}) as durably:
            run = await run_until_idle(durably, job, None)
            assert run.output == ["count is 3", 3, "count is 3", "count is 3"]

    async def test_a_name_that_the_library_has_too_is_that_of_the_function(self) -> None:
        """S2: quoted within an annotation, it is looked up where the function stands."""

        @dataclass
        class Mode:
            n: int

        def modes() -> list[Mode]:
            return [Mode(1)]

        modes.__annotations__["return"] = list["Mode"]

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[bool]:
            return [isinstance(each, Mode) for each in await step.run("modes", modes)]

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, None)).output == [True]

    async def test_functions_that_one_line_makes_keep_each_its_own_type(self) -> None:
        """S2: as those of a factory, or of a decorator that copies what it wraps."""

        def reader_of(model: type[BaseModel]) -> Callable[[], BaseModel]:
            def read() -> Any:
                return {"n": 1}

            read.__annotations__["return"] = model
            return read

        readers = {"row": reader_of(Row), "line": reader_of(Line)}

        @define_job(name="job")
        async def job(step: StepContext, input: list[str]) -> list[str]:
            return [type(await step.run(str(place), readers[name])).__name__ for place, name in enumerate(input)]

        async with in_memory({"job": job}) as durably:
            run = await run_until_idle(durably, job, ["row", "line", "line", "row", "row"])
            assert run.output == ["Row", "Line", "Line", "Row", "Row"]

    async def test_a_name_of_the_closure_without_a_value_keeps_no_step_from_its_function(self) -> None:
        """S2: as one that is assigned further down, or that of an `except` clause."""

        @define_job(name="job")
        async def job(step: StepContext, input: bool) -> str:
            def rows() -> list[Row]:
                return [Row(n=1)] if input else [Row(n=len(later))]

            result = await step.run("rows", rows)
            later = "x"
            return type(result[0]).__name__ + later

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, True)).output == "Rowx"

    async def test_a_result_of_none_is_one_of_the_type_or_refused(self) -> None:
        """S3: as any other value that the annotation or `returns` does not allow."""

        def find(n: int) -> int:
            return None  # type: ignore[return-value] # the mistake

        def look(n: int) -> int | None:
            return None

        def store(n: int) -> None: ...

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[None]:
            return [
                await step.run("look", look, 1),
                await step.run("store", store, 1),
                await step.run("anything", lambda: None),
                await step.run("find", find, 1),
            ]

        async with in_memory({"job": job}, preserve_steps=True) as durably:
            run = await run_until_idle(durably, job, None)
            assert "result of step 'find': Input should be a valid integer" in (run.error or "")
            outputs = {step.name: (step.status, step.output) for step in await durably.get_steps(run.id)}
        assert outputs == {
            "look": ("completed", None),
            "store": ("completed", None),
            "anything": ("completed", None),
            "find": ("failed", None),
        }
        with pytest.raises(ValidationError, match="result of step 'find'"):
            await FakeStep().run("find", lambda: None, returns=int)


class TestSignal:
    async def test_it_reaches_a_function_behind_a_decorator(self) -> None:
        """`fn` gets the signal, also if it is `functools.wraps` that tells of the parameter."""

        def fetch(url: str, *, signal: AbortSignal) -> str:
            return f"{url} {signal.aborted}"

        @define_job(name="async")
        async def async_job(step: StepContext, input: None) -> str:
            return await step.run("fetch", patiently(patiently(fetch)), "/")

        @define_job(name="plain")
        def plain_job(step: SyncStepContext, input: None) -> str:
            return step.run("fetch", patiently(fetch), "/")

        async with in_memory({"async": async_job, "plain": plain_job}) as durably:
            for job in (async_job, plain_job):
                assert (await run_until_idle(durably, job, None)).output == "/ False"

    async def test_it_is_not_forced_on_a_function_that_does_not_take_it_by_name(self) -> None:
        """By position only, or a decorator that takes less than what it wraps."""

        def by_position(signal: str = "none", /) -> str:
            return signal

        def collected(**signal: str) -> dict[str, str]:
            return signal

        def wide(signal: Any = None) -> str:
            return f"wide {signal}"

        @functools.wraps(wide)
        def narrow() -> str:
            return wide()

        step = FakeStep()
        assert await step.run("by position", by_position) == "none"
        assert await step.run("collected", functools.partial(collected, a="b")) == {"a": "b"}
        assert await step.run("narrow", narrow) == "wide None"

    async def test_one_that_the_caller_gives_is_kept(self) -> None:
        """By name, by position, in a partial."""

        def show(signal: Any, end: str = ".") -> str:
            return f"{signal}{end}"

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> list[str]:
            return [
                await step.run("by name", show, signal=1),
                await step.run("by position", show, 2, "!"),
                await step.run("partial", functools.partial(show, signal=3)),
                await step.run("partial by position", functools.partial(show, 4)),
            ]

        async with in_memory({"job": job}) as durably:
            assert (await run_until_idle(durably, job, None)).output == ["1.", "2!", "3.", "4."]
        assert FakeSyncStep().run("by name", show, signal=1) == "1."
        with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
            await FakeStep().run("too many", show, 1, 2, 3)


class TestErrors:
    @pytest.mark.filterwarnings("error")
    async def test_a_result_in_place_of_a_function_is_refused(self) -> None:
        """S3: by the name of the step and with what to do; a coroutine leaves no warning behind."""

        async def fetch() -> int:
            return 1

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> int:
            return await step.run("fetch", fetch())  # type: ignore[call-overload] # the mistake

        message = r"step 'fetch' needs a function.*type 'coroutine': pass the function, not its result"
        async with in_memory({"job": job}) as durably:
            assert re.match(message, (await run_until_idle(durably, job, None)).error or "")
        with pytest.raises(ValidationError, match=message):
            await job(FakeStep(), None)
        with pytest.raises(ValidationError, match="type 'int'"):
            FakeSyncStep().run("sum", sum([1, 2]), returns=int)  # type: ignore[call-overload] # the same
        gc.collect()

    @pytest.mark.parametrize("returns", [5, print, "Row", [Row], Fetch], ids=["5", "print", "text", "list", "class"])
    async def test_returns_that_is_no_type_is_refused(self, returns: Any) -> None:
        """Not ignored: after a crash the job would get plain JSON where it was promised the type."""
        with pytest.raises(ValidationError, match=r"of step 'one' cannot be stored: returns=.* is no type"):
            await FakeStep().run("one", lambda: None, returns=returns)

        assert await FakeStep().run("one", lambda: 1, returns=Any) == 1  # type: ignore[call-overload] # no `type`

    async def test_a_step_that_fails_with_a_group_of_one_says_what_is_in_it(self) -> None:
        """S3: also in groups within groups; the step that failed is still known."""

        def fail() -> None:
            raise ExceptionGroup("rows", [ExceptionGroup("row", [KeyError("n")])])

        @define_job(name="job")
        async def job(step: StepContext, input: None) -> None:
            await step.run("import", fail)

        async with in_memory({"job": job}) as durably:
            failed: list[RunFailEvent] = []
            durably.on("run:fail", failed.append)
            run = await run_until_idle(durably, job, None)
        assert run.error == "KeyError: 'n'"
        assert [event.failed_step_name for event in failed] == ["import"]


def test_annotations_that_cannot_be_had_are_none() -> None:
    """S2: then the value is stored unchecked."""

    def unknown() -> Nowhere: ...  # type: ignore[name-defined] # noqa: F821 - unknown on purpose

    def broken() -> Any: ...

    broken.__annotations__["return"] = "not ] python"

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    def odd() -> Any: ...

    odd.__annotations__["return"] = Unhashable()
    assert result_codec("step", unknown, None) is None
    assert result_codec("step", broken, None) is None
    assert result_codec("step", odd, None) is None
    assert result_codec("step", print, None) is None


def test_a_signal_parameter_is_found_where_it_can_be_seen() -> None:
    """`fn` gets the signal if it has a parameter of that name."""

    class WithSignal:
        def __call__(self, *, signal: Any) -> None: ...

    assert takes_signal(lambda signal: signal)
    assert takes_signal(WithSignal())
    assert not takes_signal(lambda: None)
    assert not takes_signal(dict)


async def test_steps_that_would_wait_for_themselves_are_refused(open_durably: OpenDurably) -> None:
    """S2: the error names the step, or the place."""

    @define_job(name="itself")
    async def itself(step: StepContext, input: Any) -> None:
        async def outer() -> Any:
            return await step.run("a", lambda: 1)

        await step.run("a", outer)

    @define_job(name="plain")
    def plain(step: SyncStepContext, input: Any) -> None:
        async def outer() -> Any:
            return step.run("inner", lambda: 1)

        step.run("outer", outer)

    durably = await open_durably(itself, plain)
    await durably.jobs.itself.trigger(1)
    await durably.jobs.plain.trigger(1)
    await durably.process_until_idle()
    errors = {run.job_name: run.error or "" for run in await durably.get_runs()}
    assert "would wait for itself" in errors["itself"]
    assert "on the event loop" in errors["plain"]
