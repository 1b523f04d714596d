# ruff: noqa: G010 - `step.log` is the log of a run, not one of the logging module
"""S1 to S4, S8: checkpoints, and what a resume makes of them."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from pydantic import BaseModel, model_validator

from durably import (
    Durably,
    Run,
    RunFailedError,
    RunStatus,
    StepContext,
    SyncStepContext,
    ValidationError,
    define_job,
    with_log_persistence,
)
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably


class Interruption:
    """A job that stands still in its first execution, is given back, and goes on in its second."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.executions = 0

    async def here(self) -> None:
        """Stand still the first time."""
        self.executions += 1
        if self.executions == 1:
            await self.gate.pass_through()

    async def resume(self, durably: Durably, run_id: str) -> Run[Any]:
        """Give the run back where it stands, execute it again, and return it as it ended."""
        await durably.start()
        await self.gate.reached()
        await durably.stop(timeout=0)
        given_back = await durably.get_run(run_id)
        assert given_back is not None
        assert (given_back.status, given_back.lease_owner, given_back.lease_expires_at) == ("pending", None, None)
        assert await durably.process_one()
        run = await durably.get_run(run_id)
        assert run is not None
        return run


class TestCheckpoints:
    async def test_a_step_returns_after_its_result_is_stored(self, open_durably: OpenDurably) -> None:
        """S1: the next line runs when the result is durably committed, and the run counts it."""
        seen = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            assert await step.run("one", lambda: {"n": 1}) == {"n": 1}
            seen.append((await durably.get_steps(step.run_id), await durably.get_run(step.run_id)))

        durably = await open_durably(job, start=True)
        await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        ((steps, run),) = seen
        (stored,) = steps
        assert (stored.name, stored.index, stored.status, stored.output, stored.error) == (
            "one", 0, "completed", {"n": 1}, None,
        )  # fmt: skip
        assert stored.run_id == run.id
        assert stored.started_at <= stored.completed_at
        assert (run.completed_step_count, run.current_step_index) == (1, 1)

    async def test_a_step_typed_to_return_nothing_at_times_stores_null(self, open_durably: OpenDurably) -> None:
        """S2, D1: None is the result of a step that says so, and no result of one without a type."""

        def first_of(rows: list[int]) -> int | None:
            return rows[0] if rows else None

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> int | None:
            await step.run("untyped", lambda: None)
            return await step.run("typed", first_of, [])

        durably = await open_durably(job, start=True)
        events = Events(durably)
        await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert [event.output_json for event in events.of("step:complete")] == [None, "null"]
        assert [event.output_json for event in events.of("run:complete")] == ["null"]

    async def test_arguments_reach_the_step_and_a_signal_the_one_that_asks(self, open_durably: OpenDurably) -> None:
        """`run(name, fn, *args, **kwargs)`; `fn` gets the signal as keyword `signal` if it has such a parameter."""

        def plain(a: int, *, b: int) -> int:
            return a + b

        async def asking(a: int, signal: Any) -> bool:
            return signal.aborted

        class Callable_:
            async def __call__(self, a: int) -> int:
                return a

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            return [
                await step.run("plain", plain, 1, b=2),
                await step.run("asking", asking, 1),
                await step.run("partial", functools.partial(plain, 3), b=4),
                await step.run("object", Callable_(), 5),
                await step.run("builtin", max, 6, 7),
                await step.run("mock", MagicMock(return_value=8), 1),
                await step.run("async mock", AsyncMock(return_value=9)),
            ]

        durably = await open_durably(job, start=True)

        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert result.output == [3, False, 7, 5, 7, 8, 9]

    async def test_a_plain_step_runs_in_a_thread_and_an_async_one_on_the_loop(self, open_durably: OpenDurably) -> None:
        """Plain functions never run on the event loop."""
        threads: dict[str, int] = {}

        def note(name: str) -> None:
            threads[name] = threading.get_ident()

        async def note_async() -> None:
            note("async step")

        @define_job(name="async")
        async def async_job(step: StepContext, input: Any) -> None:
            note("async job")
            await step.run("plain", note, "plain step")
            await step.run("async", note_async)

        @define_job(name="plain")
        def plain_job(step: SyncStepContext, input: Any) -> str:
            note("plain job")
            step.run("plain", note, "plain step of a plain job")
            step.run("async", note_async)
            return step.job_name

        durably = await open_durably(async_job, plain_job, start=True)
        loop_thread = threading.get_ident()

        await durably.get_job(async_job).trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert threads["async job"] == threads["async step"] == loop_thread
        assert threads["plain step"] != loop_thread

        result = await durably.jobs.plain.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert result.output == "plain"
        assert threads["plain job"] == threads["plain step of a plain job"] != loop_thread
        assert threads["async step"] == loop_thread

    @pytest.mark.parametrize("name", ["", None, 5, "\ud800", "a\x00b"], ids=repr)
    async def test_a_bad_step_name_is_refused(self, open_durably: OpenDurably, name: Any) -> None:
        """A step needs a name that can be stored; nothing else is harmed."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> str:
            with pytest.raises(ValidationError, match="step name"):
                await step.run(name, lambda: 1)
            return await step.run("good", lambda: "unharmed")

        durably = await open_durably(job, start=True)

        assert (await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)).output == "unharmed"

    @pytest.mark.parametrize(
        "result", [{1, 2}, b"x", pytest.param(object(), id="object"), float("nan"), "\ud800"], ids=repr
    )
    async def test_a_result_that_json_cannot_carry_fails_the_step_by_name(
        self, open_durably: OpenDurably, result: Any
    ) -> None:
        """S3: a result that could not be replayed is an error at once, not after a crash."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            return await step.run("odd", lambda: result)

        durably = await open_durably(job, start=True)
        events = Events(durably)

        with pytest.raises(RunFailedError, match="step 'odd'"):
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert "step 'odd'" in (await events.until("step:fail")).error
        assert (await events.until("run:fail")).failed_step_name == "odd"


class TestResume:
    async def test_a_completed_step_is_never_executed_again(self, open_durably: OpenDurably) -> None:
        """S2: on resume `run` returns the stored value; S8: the index goes on where the steps do."""
        executed: list[str] = []
        interruption = Interruption()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            one = await step.run("one", lambda: executed.append("one") or {"n": [1]})
            two = await step.run("two", lambda: executed.append("two"))
            await interruption.here()
            three = await step.run("three", lambda: executed.append("three") or 3)
            return [step.attempt, one, two, three]

        durably = await open_durably(job, preserve_steps=True)
        run = await durably.jobs.job.trigger(None)
        ended = await interruption.resume(durably, run.id)

        assert ended.output == [2, {"n": [1]}, None, 3]
        assert executed == ["one", "two", "three"]
        steps = await durably.get_steps(run.id)
        assert [(step.name, step.index) for step in steps] == [("one", 0), ("two", 1), ("three", 2)]
        assert (ended.completed_step_count, ended.current_step_index, ended.lease_generation) == (3, 3, 2)
        assert ended.started_at is not None
        assert ended.started_at <= steps[0].started_at

    @pytest.mark.two_processes
    async def test_another_process_resumes_from_the_checkpoints(self, open_durably: OpenDurably) -> None:
        """S2, L4: checkpoints belong to the run, not to the process."""
        executed: list[str] = []
        interruption = Interruption()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            results = [await step.run(f"step-{n}", lambda n=n: executed.append(f"{n}") or n) for n in range(50)]
            await interruption.here()
            return sum(results)

        first, second = await open_durably(job, start=True), await open_durably(job)
        run = await first.jobs.job.trigger(None)
        await interruption.gate.reached()
        await first.stop(timeout=0)

        assert await second.process_one()
        ended = await first.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        assert ended.output == sum(range(50))
        assert len(executed) == 50

    async def test_a_failed_step_can_run_again_after_a_resume(self, open_durably: OpenDurably) -> None:
        """S3: under the same name; the failure stays on record."""
        attempts: list[int] = []
        interruption = Interruption()

        def flaky() -> str:
            attempts.append(1)
            if len(attempts) == 1:
                raise ConnectionError("first try")
            return "second try"

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            try:
                return await step.run("flaky", flaky)
            except ConnectionError:
                await interruption.here()
                raise

        durably = await open_durably(job, preserve_steps=True)
        run = await durably.jobs.job.trigger(None)
        ended = await interruption.resume(durably, run.id)

        assert (ended.status, ended.output) == (RunStatus.COMPLETED, "second try")
        assert [(step.status, step.error) for step in await durably.get_steps(run.id)] == [
            ("failed", "first try"),
            ("completed", None),
        ]
        assert ended.completed_step_count == 1

    async def test_a_failed_step_can_be_tried_again_by_the_job(self, open_durably: OpenDurably) -> None:
        """S3: the exception goes on to the job, which may catch it and try again."""
        attempts: list[int] = []

        async def flaky() -> int:
            attempts.append(1)
            if len(attempts) < 3:
                raise ConnectionError(f"try {len(attempts)}")
            return len(attempts)

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            while True:
                try:
                    return await step.run("flaky", flaky)
                except ConnectionError as error:
                    step.log.warn(str(error))

        durably = await open_durably(job, start=True, preserve_steps=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert result.output == 3
        assert [step.error for step in await durably.get_steps(result.id)] == ["try 1", "try 2", None]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("no such row"), "no such row"),
            (KeyError("name"), "KeyError: 'name'"),
            (RuntimeError(), "RuntimeError"),
            (ValueError("\ud800"), "?"),
            (ValueError("nul \x00"), "nul \ufffd"),
            (TimeoutError("step"), "step"),
        ],
        ids=repr,
    )
    async def test_a_step_that_raises_fails_the_run_with_its_message(
        self, open_durably: OpenDurably, error: Exception, message: str
    ) -> None:
        """S3: recorded as failed with its error; a job that does not catch it fails with that message."""

        def fail() -> None:
            raise error

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("bad", fail)

        durably = await open_durably(job, start=True, preserve_steps=True)
        events = Events(durably)
        with pytest.raises(RunFailedError) as failed:
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        run = failed.value.run
        assert (run.error, run.output) == (message, None)
        assert [(step.status, step.error) for step in await durably.get_steps(run.id)] == [("failed", message)]
        assert (await events.until("run:fail")).failed_step_name == "bad"
        assert (await events.until("step:fail")).error == message

    async def test_an_error_of_the_job_itself_names_no_step(self, open_durably: OpenDurably) -> None:
        """S3: `failed_step_name` is empty when no step caused it."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            try:
                await step.run("bad", lambda: 1 / 0)
            except ZeroDivisionError:
                raise ValueError("something else") from None

        durably = await open_durably(job, start=True)
        events = Events(durably)
        with pytest.raises(RunFailedError, match="something else"):
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert (await events.until("run:fail")).failed_step_name == ""

    async def test_an_error_without_a_readable_message_fails_the_run_too(self, open_durably: OpenDurably) -> None:
        """R1: not even an error whose text cannot be had."""

        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            raise UnspeakableError

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        await durably.process_one()

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.error) == (RunStatus.FAILED, "UnspeakableError")

    async def test_an_error_whose_causes_cannot_be_written_down_fails_the_run_too(
        self, open_durably: OpenDurably
    ) -> None:
        """R1: one that is never recorded would be executed again and again."""

        class AnswerError(Exception):
            def __getattr__(self, name: str) -> Any:
                return {}[name]

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            try:
                raise AnswerError
            except AnswerError as error:
                raise RuntimeError("import failed") from error

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        await durably.process_one()

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.error) == (RunStatus.FAILED, "import failed")

    async def test_a_type_whose_code_raises_fails_the_step_and_the_run(self, open_durably: OpenDurably) -> None:
        """R1, S3: the name of the step is free again."""

        class Total(BaseModel):
            total: int

            @model_validator(mode="before")
            @classmethod
            def rename(cls, values: dict[str, int]) -> dict[str, int]:
                return {"total": values["sum"]}

        values = iter([{"value": 1}, {"sum": 2}])

        @define_job(name="job", output=Total)
        async def job(step: StepContext, input: Any) -> Any:
            with pytest.raises(ValidationError, match="result of step 'count': its type raised KeyError"):
                await step.run("count", lambda: next(values), returns=Total)
            assert await step.run("count", lambda: next(values), returns=Any) == {"sum": 2}  # type: ignore[call-overload] # no `type`
            return {"value": 3}

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        assert await durably.process_until_idle() == 1

        found = await durably.get_run(run.id)
        assert found is not None
        assert (found.status, found.error) == (RunStatus.FAILED, "output: its type raised KeyError('sum')")


class Row(BaseModel):
    day: date
    amount: int


@dataclass
class Point:
    x: int
    y: int


async def a_model() -> Row:
    return Row(day=date(2026, 1, 2), amount=3)


def some_models() -> list[Row]:
    return [Row(day=date(2026, 1, 2), amount=3)]


def a_dataclass() -> Point:
    return Point(1, 2)


def an_instant() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


def a_tuple() -> tuple[int, str]:
    return (1, "a")


def by_number() -> dict[int, str]:
    return {1: "a"}


def a_local_annotation() -> Point:
    return Point(3, 4)


def quoted_within() -> list["Point"]:  # noqa: UP037
    return [Point(3, 4)]


def quoted_and_no_text() -> Any:
    return [Point(3, 4)]


# As in a module without `from __future__ import annotations`.
quoted_and_no_text.__annotations__["return"] = list["Point"]


def untyped() -> Any:
    return {"x": 5, "y": "6"}


class TestTypedResults:
    @pytest.mark.parametrize(
        ("function", "options", "expected"),
        [
            (a_model, {}, Row(day=date(2026, 1, 2), amount=3)),
            (some_models, {}, [Row(day=date(2026, 1, 2), amount=3)]),
            (a_dataclass, {}, Point(1, 2)),
            (an_instant, {}, datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)),
            (a_tuple, {}, (1, "a")),
            (by_number, {}, {1: "a"}),
            (a_local_annotation, {}, Point(3, 4)),
            (quoted_within, {}, [Point(3, 4)]),
            (quoted_and_no_text, {}, [Point(3, 4)]),
            (functools.partial(a_dataclass), {}, Point(1, 2)),
            (untyped, {"returns": Point}, Point(5, 6)),
            (untyped, {}, {"x": 5, "y": "6"}),
            (lambda: (1, [2]), {"returns": tuple[int, list[int]]}, (1, [2])),
        ],
        ids=[
            *("model", "list", "dataclass", "instant", "tuple", "dict", "text", "quoted", "no text", "partial"),
            *("returns", "none", "lambda"),
        ],
    )
    async def test_both_executions_see_the_same_type(
        self, open_durably: OpenDurably, function: Callable[..., Any], options: dict[str, Any], expected: Any
    ) -> None:
        """S2: the decoded value is validated into the annotation, or `returns`, of the step."""
        seen: list[Any] = []
        interruption = Interruption()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            seen.append(await step.run("typed", function, **options))
            await interruption.here()

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        await interruption.resume(durably, run.id)

        assert seen == [expected, expected]
        assert type(seen[0]) is type(seen[1]) is type(expected)

    async def test_a_result_that_is_not_of_its_type_fails_the_step(self, open_durably: OpenDurably) -> None:
        """S2: what a resume could not validate is an error in the first execution already."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> None:
            await step.run("typed", lambda: "text", returns=int)

        durably = await open_durably(job, start=True)
        with pytest.raises(RunFailedError, match=r"result of step 'typed'.*integer"):
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

    async def test_a_plain_job_resumes_like_an_async_one(self, open_durably: OpenDurably) -> None:
        """S2: the same for `SyncStepContext`."""
        executed: list[str] = []
        interruption = Interruption()

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> Any:
            point = step.run("one", lambda: executed.append("one") or {"x": 1, "y": 2}, returns=Point)
            step.run("two", interruption.here)
            return [point.x, step.attempt]

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        ended = await interruption.resume(durably, run.id)

        assert ended.output == [1, 2]
        assert executed == ["one"]


class TestPlainJobs:
    async def test_a_plain_step_that_raises_is_recorded_and_can_be_caught(self, open_durably: OpenDurably) -> None:
        """S3: in the thread of the job, with its signal, labels and attempt."""

        def look(n: int, signal: Any) -> list[Any]:
            return [n, signal.aborted]

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> Any:
            try:
                step.run("bad", lambda: 1 / 0)
            except ZeroDivisionError as error:
                step.throw_if_aborted()
                return [str(error), step.run("look", look, 5), step.labels, step.attempt, step.is_aborted()]

        durably = await open_durably(job, start=True, preserve_steps=True)
        result = await durably.jobs.job.trigger_and_wait(None, labels={"a": "b"}, timeout=PATIENCE_SECONDS)

        assert result.output == ["division by zero", [5, False], {"a": "b"}, 1, False]
        steps = await durably.get_steps(result.id)
        assert [(step.name, step.status) for step in steps] == [("bad", "failed"), ("look", "completed")]

    async def test_a_plain_function_may_return_an_awaitable(self, open_durably: OpenDurably) -> None:
        """A lambda around a coroutine is awaited, in both kinds of jobs."""

        async def work(n: int) -> int:
            return n

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: Any) -> Any:
            return step.run("one", lambda: work(1))

        @define_job(name="async")
        async def async_job(step: StepContext, input: Any) -> Any:
            return await step.run("one", lambda: work(2))

        durably = await open_durably(plain, async_job, start=True)
        for job, expected in ((plain, 1), (async_job, 2)):
            assert (await durably.get_job(job).trigger_and_wait(None, timeout=PATIENCE_SECONDS)).output == expected


class TestDuplicateNames:
    async def test_the_second_use_of_a_name_returns_the_first_result_and_warns(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """S2: it is a mistake nearly always: a warning names the step, and the run's log has it."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            return [await step.run("same", lambda: 1), await step.run("same", lambda: 2)]

        durably = await open_durably(job, start=True)
        durably.use(with_log_persistence())
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await durably.stop()

        assert result.output == [1, 1]
        assert "step 'same' was used twice" in caplog.text
        (line,) = await durably.get_logs(result.id)
        assert (line.level, "step 'same'" in line.message) == ("warn", True)

    async def test_the_same_name_side_by_side_executes_once(self, open_durably: OpenDurably) -> None:
        """S2: also when the second use comes while the first is under way."""
        executed: list[int] = []
        gate = Gate()

        async def work(n: int) -> int:
            executed.append(n)
            await gate.pass_through()
            return n

        async def open_when_reached() -> None:
            await gate.reached()
            gate.open()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            *results, _ = await asyncio.gather(*[step.run("same", work, n) for n in range(3)], open_when_reached())
            return results

        durably = await open_durably(job, start=True, preserve_steps=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert result.output == [0, 0, 0]
        assert executed == [0]
        assert len(await durably.get_steps(result.id)) == 1

    async def test_after_a_resume_a_name_used_twice_warns_too(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """S2: the replay of the first use is a use."""
        interruption = Interruption()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            first = await step.run("same", lambda: 1)
            await interruption.here()
            return [first, await step.run("same", lambda: 2)]

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        ended = await interruption.resume(durably, run.id)

        assert ended.output == [1, 1]
        assert "step 'same' was used twice" in caplog.text

    async def test_a_failing_twin_lets_the_other_try(self, open_durably: OpenDurably) -> None:
        """S3: who waited for a step that failed executes its own."""

        gate = Gate()

        async def fail() -> None:
            await gate.pass_through()
            raise ValueError("first")

        async def open_when_reached() -> None:
            await gate.reached()
            gate.open()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            failed, second, _ = await asyncio.gather(
                step.run("same", fail),
                step.run("same", lambda: "second"),
                open_when_reached(),
                return_exceptions=True,
            )
            return [repr(failed), second]

        durably = await open_durably(job, start=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert result.output == ["ValueError('first')", "second"]


class TestGivenUpSteps:
    """S2, S3: a step that the job gives up while its result is being committed."""

    async def test_a_step_whose_result_was_stored_is_not_executed_again(self, open_durably: OpenDurably) -> None:
        """The commit goes on, and the next use of the name has its result."""
        executed: list[int] = []

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def work() -> int:
                executed.append(len(executed))
                # The next turn of the loop finds the result on its way to the database.
                asyncio.get_running_loop().call_soon(first.cancel)
                return len(executed)

            first = asyncio.create_task(step.run("work", work))
            await asyncio.wait([first])
            again = await asyncio.gather(step.run("work", work), step.run("work", work))
            return [first.cancelled(), *again]

        durably = await open_durably(job, preserve_steps=True)
        events = Events(durably)
        run = await durably.jobs.job.trigger(None)
        await durably.process_one()

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == [True, 1, 1]
        assert executed == [0]
        assert [step.name for step in await durably.get_steps(run.id)] == ["work"]
        assert len(events.of("step:start")) == len(events.of("step:complete")) == 1

    async def test_a_step_whose_result_was_not_stored_is_executed_again(
        self, open_durably: OpenDurably, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether it was is asked of the database."""
        executed: list[int] = []
        away = Gate()

        async def never(*args: Any) -> bool:
            monkeypatch.undo()
            await away.pass_through()
            raise AssertionError

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def work() -> int:
                executed.append(len(executed))
                return len(executed)

            monkeypatch.setattr(durably.storage, "record_step", never)
            first = asyncio.create_task(step.run("work", work))
            await away.reached()
            first.cancel()
            await asyncio.wait([first])
            return await step.run("work", work)

        durably = await open_durably(job)
        run = await durably.jobs.job.trigger(None)
        await durably.process_one()
        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 2


class TestStepsThatWait:
    """S2: a second use of a name waits for the first; where that would be for ever it is refused."""

    async def test_steps_that_would_wait_for_each_other_are_refused(self, open_durably: OpenDurably) -> None:
        """One of the two is refused, by name; the other one can go on."""
        both_run = asyncio.Barrier(2)

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def outer(inner: str) -> Any:
                await both_run.wait()
                return await step.run(inner, lambda: "inner")

            return [
                str(result)
                for result in await asyncio.gather(
                    step.run("a", outer, "b"), step.run("b", outer, "a"), return_exceptions=True
                )
            ]

        durably = await open_durably(job, start=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        refused, went_on = sorted(result.output)
        assert went_on == "inner"
        assert "for which the step of this name waits, so that both would wait for ever" in refused

    async def test_a_circle_of_steps_is_found_through_the_steps_within_them(self, open_durably: OpenDurably) -> None:
        """Three steps, each of which waits from within a step of its own for the next one."""
        all_run = asyncio.Barrier(3)

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def within(following: str) -> Any:
                await all_run.wait()
                return await step.run(following, lambda: "never called")

            async def outer(name: str, following: str) -> Any:
                return await step.run(f"within {name}", within, following)

            await asyncio.gather(*(step.run(name, outer, name, following) for name, following in ("ab", "bc", "ca")))

        durably = await open_durably(job, start=True)
        with pytest.raises(RunFailedError, match="both would wait for ever"):
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

    async def test_a_step_two_levels_around_is_one_that_would_wait_for_itself(self, open_durably: OpenDurably) -> None:
        """In a plain job as well, whose steps run in its thread."""

        @define_job(name="job")
        def job(step: SyncStepContext, input: Any) -> None:
            step.run("a", lambda: step.run("b", lambda: step.run("a", lambda: 1)))

        durably = await open_durably(job, start=True)
        with pytest.raises(RunFailedError, match="'a': the step of this name runs around it and would wait for itself"):
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

    async def test_steps_that_wait_in_one_direction_only_are_not_refused(self, open_durably: OpenDurably) -> None:
        """Waiting is no mistake as long as somebody can go on."""
        a_runs = asyncio.Event()

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def a() -> Any:
                a_runs.set()
                return await step.run("c", lambda: "c")

            async def b() -> Any:
                await a_runs.wait()
                return await asyncio.gather(step.run("a", lambda: "again"), step.run("c", lambda: "again"))

            return await asyncio.gather(step.run("a", a), step.run("b", b))

        durably = await open_durably(job, start=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        assert result.output == ["c", ["c", "c"]]


class TestStepsSideBySide:
    async def test_each_has_its_own_index_and_its_own_log(self, open_durably: OpenDurably) -> None:
        """S8: the index is given when the step starts, whoever ends first."""
        second_ended = asyncio.Event()

        async def slow(step: StepContext) -> str:
            step.log.info("slow begins")
            await second_ended.wait()
            step.log.info("slow ends")
            return "slow"

        def fast(step: StepContext) -> str:
            step.log.info("fast in its thread")
            return "fast"

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async def then_release() -> str:
                result = await step.run("fast", fast, step)
                second_ended.set()
                return result

            results = await asyncio.gather(step.run("slow", slow, step), then_release())
            step.log.info("after both")
            return results

        durably = await open_durably(job, start=True, preserve_steps=True)
        durably.use(with_log_persistence())
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)
        await durably.stop()

        assert result.output == ["slow", "fast"]
        assert [(step.name, step.index) for step in await durably.get_steps(result.id)] == [("slow", 0), ("fast", 1)]
        assert {(line.message, line.step_name) for line in await durably.get_logs(result.id)} == {
            ("slow begins", "slow"),
            ("slow ends", "slow"),
            ("fast in its thread", "fast"),
            ("after both", None),
        }
        run = await durably.get_run(result.id)
        assert run is not None
        assert (run.current_step_index, run.completed_step_count) == (2, 2)

    async def test_one_that_fails_does_not_undo_the_others(self, open_durably: OpenDurably) -> None:
        """S3: with a task group the job fails with the error in the group; finished siblings stay on record."""

        async def fail() -> None:
            raise ValueError("broken")

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            await step.run("before", lambda: 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("bad", fail))

        durably = await open_durably(job, start=True, preserve_steps=True)
        events = Events(durably)
        with pytest.raises(RunFailedError, match=r"^broken$") as failed:
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert (await events.until("run:fail")).failed_step_name == "bad"
        steps = await durably.get_steps(failed.value.run.id)
        assert [(step.name, step.status) for step in steps] == [("before", "completed"), ("bad", "failed")]

    async def test_several_that_fail_are_all_named(self, open_durably: OpenDurably) -> None:
        """S3: each with its type and the beginning of its message."""
        both_run = asyncio.Barrier(2)

        async def fail(error: Exception) -> None:
            await both_run.wait()
            raise error

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("row", fail, ValueError("no such row" + "!" * 1000)))
                group.create_task(step.run("key", fail, ExceptionGroup("rows", [KeyError("n"), RuntimeError()])))

        durably = await open_durably(job, start=True)
        events = Events(durably)
        with pytest.raises(RunFailedError) as failed:
            await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        message = str(failed.value)
        assert message.startswith("unhandled errors in a TaskGroup: ")
        assert "ValueError: no such row!!!" in message
        assert "KeyError: 'n'; RuntimeError" in message
        assert len(message) < 300
        assert (await events.until("run:fail")).failed_step_name == ""

    async def test_a_timeout_around_a_step_is_the_jobs_to_handle(self, open_durably: OpenDurably) -> None:
        """S3: a step that was interrupted by the job itself is recorded as nothing and can run again."""

        @define_job(name="job")
        async def job(step: StepContext, input: Any) -> Any:
            try:
                async with asyncio.timeout(0.01):
                    await step.run("slow", asyncio.Event().wait)
            except TimeoutError:
                return await step.run("slow", lambda: "quick this time")

        durably = await open_durably(job, start=True, preserve_steps=True)
        result = await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)

        assert result.output == "quick this time"
        assert [step.status for step in await durably.get_steps(result.id)] == ["completed"]
