"""FakeStep and FakeSyncStep: a job's function is called directly, and what it did can be looked at."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

import pytest

from durably import (
    AbortSignal,
    CancelledError,
    ProgressData,
    RunFailedError,
    StepContext,
    SyncStepContext,
    ValidationError,
    create_durably,
    define_job,
)
from durably.core.logs import LogData
from durably.testing import FakeStep, FakeStepCall, FakeSyncStep


@dataclass
class Row:
    name: str


def parse(text: str) -> list[Row]:
    return [Row(name) for name in text.split()]


@define_job(name="import-rows")
async def import_rows(step: StepContext, input: str) -> int:
    rows = await step.run("parse", parse, input)
    for i, row in enumerate(rows):
        await step.run(f"import-{i}", lambda row=row: row.name)
        step.progress(i + 1, len(rows), row.name)
    step.log.info("done", {"count": len(rows)})
    return len(rows)


@define_job(name="import-rows-plain")
def import_rows_plain(step: SyncStepContext, input: str) -> int:
    rows = step.run("parse", parse, input)
    for i, row in enumerate(rows):
        step.run(f"import-{i}", lambda row=row: row.name)
        step.progress(i + 1, len(rows), row.name)
    step.log.info("done", {"count": len(rows)})
    return len(rows)


async def perform(job, step, input):
    return await job(step, input) if job.is_async else job(step, input)


both_kinds = pytest.mark.parametrize(
    ("job", "fake"), [(import_rows, FakeStep), (import_rows_plain, FakeSyncStep)], ids=["async", "plain"]
)


@both_kinds
async def test_a_job_called_directly_leaves_its_steps_progress_and_log(job, fake):
    step = fake()

    assert await perform(job, step, "Ada Grace") == 2

    assert step.step_names() == ["parse", "import-0", "import-1"]
    assert step.calls[1] == FakeStepCall("import-0", "completed", output="Ada")
    assert step.progress_reports == [ProgressData(1, 2, "Ada"), ProgressData(2, 2, "Grace")]
    assert step.logs == [LogData("info", "done", {"count": 2}, None)]


@both_kinds
async def test_a_given_result_takes_the_place_of_the_function_and_has_its_type(job, fake):
    """S2: as after a resume, the stored JSON comes back as the type that the step's function promises."""
    step = fake(results={"parse": [{"name": "Alan"}]})

    assert await perform(job, step, "not looked at at all") == 1

    assert step.calls[0] == FakeStepCall("parse", "replayed", output=[Row("Alan")])
    assert step.calls[1].output == "Alan"


@both_kinds
async def test_a_given_result_that_no_step_has_had_is_named(job, fake):
    """A misspelt name calls the real function; the test that asks for what is unused sees it."""
    step = fake(results={"parse": [{"name": "Alan"}], "improt-0": "Alan"})

    await perform(job, step, "not looked at at all")

    assert step.unused_results() == ["improt-0"]


@both_kinds
async def test_a_given_exception_is_raised_as_if_the_function_had_raised_it(job, fake):
    step = fake(results={"import-1": ConnectionError("the shop is closed")})

    with pytest.raises(ConnectionError, match="the shop is closed"):
        await perform(job, step, "Ada Grace")

    assert step.calls[-1] == FakeStepCall("import-1", "failed", error="the shop is closed")
    assert step.step_names() == ["parse", "import-0"]


@both_kinds
async def test_a_cancelled_run_starts_no_further_step(job, fake):
    """S5."""
    step = fake()
    step.cancel()

    with pytest.raises(CancelledError):
        await perform(job, step, "Ada")

    assert step.calls == []
    assert step.is_aborted()


@pytest.mark.parametrize("fake", [FakeStep, FakeSyncStep])
async def test_a_run_that_is_cancelled_during_a_step_ends_with_it(fake):
    """S5: as in production, where the result is not stored and the next line does not run."""
    step = fake()

    async def charge() -> None:
        result = step.run("charge", step.cancel)
        await result if fake is FakeStep else None

    with pytest.raises(CancelledError):
        await charge()

    assert step.step_names() == []


def test_results_that_have_no_names_are_refused():
    with pytest.raises(ValidationError, match=r"Invalid results \[1, 2\]: must be the results of steps by their names"):
        FakeStep(results=[1, 2])


async def test_results_that_json_cannot_carry_are_refused_as_in_production():
    """R3."""
    step = FakeStep()

    with pytest.raises(ValidationError, match="JSON cannot carry a set"):
        await step.run("letters", lambda: {"a"})

    assert step.calls[0].status == "failed"


@pytest.mark.parametrize("fake", [FakeStep, FakeSyncStep], ids=["async", "plain"])
async def test_a_result_is_returned_as_the_type_that_the_step_promises(fake):
    """S1: as in production, where the first execution and a resume see the same type."""
    step = fake()

    returned = step.run("parse", lambda: [{"name": "Ada"}], returns=list[Row])

    assert (await returned if fake is FakeStep else returned) == [Row("Ada")]
    assert step.calls == [FakeStepCall("parse", "completed", output=[Row("Ada")])]


@pytest.mark.parametrize("fake", [FakeStep, FakeSyncStep], ids=["async", "plain"])
def test_progress_is_remembered_as_it_would_be_stored(fake):
    """S7: numbers of other kinds as floats, texts of other kinds as text, and nothing that is no finite number."""
    step = fake()

    step.progress(Decimal("1.5"), Decimal(2), ["half"])
    step.progress(math.nan)
    step.progress("many")

    assert step.progress_reports == [ProgressData(1.5, 2.0, "['half']")]


async def test_a_name_used_twice_gives_the_first_result_and_a_warning():
    """S2."""
    step = FakeStep()

    assert [await step.run("same", lambda: 1), await step.run("same", lambda: 2)] == [1, 1]

    assert [line.level for line in step.logs] == ["warn"]


async def test_a_failing_step_function_raises_through_and_may_be_tried_again():
    """S3."""
    step = FakeStep()

    with pytest.raises(ZeroDivisionError):
        await step.run("divide", lambda: 1 / 0)

    assert await step.run("divide", lambda: 1) == 1
    assert [call.status for call in step.calls] == ["failed", "completed"]


async def test_log_lines_know_their_step_also_when_steps_run_side_by_side():
    step = FakeStep()

    async def work(name: str) -> None:
        step.log.warn(f"in {name}")  # noqa: G004, G010 - it is no logging.Logger
        await asyncio.sleep(0)

    await asyncio.gather(step.run("a", work, "a"), step.run("b", work, "b"))

    assert {line.message: line.step_name for line in step.logs} == {"in a": "a", "in b": "b"}


async def test_a_plain_step_function_runs_in_a_thread_and_gets_the_signal_it_asks_for():
    step = FakeStep()

    def look(signal: AbortSignal) -> bool:
        return signal is step.signal and threading.current_thread() is not threading.main_thread()

    assert await step.run("look", look)


def test_a_plain_job_may_use_async_step_functions():
    step = FakeSyncStep()

    async def fetch() -> str:
        await asyncio.sleep(0)
        return "fetched"

    assert step.run("fetch", fetch) == "fetched"


def test_the_run_is_what_the_test_says_it_is():
    step = FakeSyncStep(run_id="run-7", job_name="job", labels={"org": "a"}, attempt=3)

    assert (step.run_id, step.job_name, step.labels, step.attempt) == ("run-7", "job", {"org": "a"}, 3)


@pytest.mark.parametrize("labels", [{"org": 1}, {"a b": "c"}, "org"])
def test_labels_that_production_refuses_are_refused(labels):
    with pytest.raises(ValidationError, match="label"):
        FakeSyncStep(labels=labels)


async def test_side_by_side_a_name_stands_for_one_step():
    step, calls = FakeStep(), []

    async def count() -> int:
        await asyncio.sleep(0)
        calls.append(1)
        return len(calls)

    assert await asyncio.gather(*(step.run("same", count) for _ in range(3))) == [1, 1, 1]
    assert [line.level for line in step.logs] == ["warn", "warn"]


async def test_a_step_in_a_step_of_its_own_name_is_refused():
    step = FakeStep()

    async def outer() -> int:
        return await step.run("same", lambda: 1)

    with pytest.raises(ValidationError, match="would wait for itself"):
        await step.run("same", outer)


@pytest.mark.parametrize("attempt", [0, "1", True])
def test_the_first_attempt_is_one(attempt):
    with pytest.raises(ValidationError, match=r"Invalid attempt .*the first attempt is 1"):
        FakeStep(attempt=attempt)


@pytest.mark.parametrize("name", ["", None])
async def test_a_step_needs_a_name(name):
    with pytest.raises(ValidationError, match="Invalid step name"):
        await FakeStep().run(name, lambda: 1)


async def test_a_plain_step_that_ends_an_iteration_fails_as_in_production():
    """`StopIteration` cannot be handed to who awaits the step: on its own it would be waited for without end."""
    step = FakeStep()
    with pytest.raises(RuntimeError, match="a plain function raised StopIteration"):
        await step.run("first", lambda: next(iter([])))

    assert [(call.name, call.status) for call in step.calls] == [("first", "failed")]


async def test_a_step_that_ends_the_program_fails_as_in_production():
    """In a task of its own too, where it would end the event loop."""
    step = FakeStep()
    ended = await asyncio.gather(step.run("a", sys.exit, "enough"), step.run("b", lambda: 1), return_exceptions=True)
    with pytest.raises(SystemExit):
        await step.run("c", sys.exit, 3)

    assert [repr(end) for end in ended] == ["RuntimeError('SystemExit: enough')", "1"]
    assert {call.name: call.error for call in step.calls} == {
        "a": "SystemExit: enough",
        "b": None,
        "c": "SystemExit: 3",
    }


def test_a_log_line_is_kept_as_it_is_stored():
    """As it was when it was written, and whatever it is."""

    class Unspeakable:
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    step, rows = FakeStep(), [1]
    step.log.info("rows", {"rows": rows, "pair": (1, 2)})
    rows.append(2)
    step.log.error(Unspeakable())

    assert [(line.message, line.data) for line in step.logs] == [
        ("rows", {"rows": [1], "pair": [1, 2]}),
        ("<Unspeakable>", None),
    ]


async def as_in_production(job):
    """Return what a job returns with a fake step, or its message, having seen that a real run does the same."""
    async with create_durably(database="sqlite://:memory:", jobs={"job": job}) as durably:
        try:
            real = (await durably.jobs.job.trigger_and_wait(None, timeout=30)).output
        except RunFailedError as failed:
            real = failed.run.error
    try:
        fake = await perform(job, FakeStep() if job.is_async else FakeSyncStep(), None)
    except ValidationError as error:
        fake = str(error)
    assert fake == real
    return fake


async def test_a_plain_step_in_a_step_of_its_own_name_is_refused():
    """S2: as in production, it would wait for itself."""

    @define_job(name="nests")
    def nests(step: SyncStepContext, input: None) -> int:
        return step.run("one", lambda: step.run("one", lambda: 1))

    assert "would wait for itself" in str(await as_in_production(nests))


async def test_a_plain_jobs_step_is_refused_on_an_event_loop():
    """S2: an async step function of a plain job is awaited on one, where the context would wait for itself."""

    @define_job(name="mixes")
    def mixes(step: SyncStepContext, input: None) -> int:
        async def inner() -> int:
            return step.run("two", lambda: 1)

        return step.run("one", inner)

    assert "was used on the event loop" in str(await as_in_production(mixes))


def test_one_name_from_several_threads_is_one_step():
    """S2: the others wait for the first and get its result."""

    def slowly(number: int) -> int:
        time.sleep(0.02)
        return number

    @define_job(name="parallel")
    def parallel(step: SyncStepContext, input: None) -> list[int]:
        with ThreadPoolExecutor(3) as threads:
            return [*threads.map(lambda number: step.run("one", slowly, number), range(3))]

    first, *others = parallel(FakeSyncStep(), None)
    assert others == [first, first]


async def test_a_second_use_of_a_name_gets_a_copy_of_what_is_stored():
    """S2: what the job did to the first one is not in it."""

    @define_job(name="twice")
    async def twice(step: StepContext, input: None) -> list[list[int]]:
        first = await step.run("one", lambda: [1])
        first.append(2)
        return [first, await step.run("one", lambda: [9])]

    assert await as_in_production(twice) == [[1, 2], [1]]


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError("mine"), GeneratorExit("mine")], ids=lambda error: type(error).__name__
)
async def test_a_step_that_raises_what_is_no_exception_has_failed(error):
    """S3: it is recorded, as any other."""
    step = FakeStep()

    async def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        await step.run("one", fail)
    assert step.calls == [FakeStepCall("one", "failed", error=f"{type(error).__name__}: mine")]


async def test_a_step_that_fails_after_a_cancel_was_cancelled():
    """S5: the job sees the same as when its run is cancelled."""
    step = FakeStep()

    async def fail() -> None:
        step.cancel()
        raise ValueError("interrupted")

    with pytest.raises(CancelledError):
        await step.run("one", fail)
    assert step.calls == []


async def test_a_job_called_within_a_step_of_another_logs_outside_of_it():
    """S7: each run has steps of its own."""
    outer, inner = FakeStep(), FakeStep()

    async def call() -> None:
        inner.log.info("between the steps of its own run")

    await outer.run("outer", call)
    assert [line.step_name for line in inner.logs] == [None]
