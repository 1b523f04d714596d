"""crash_everywhere: a job is lost at every checkpoint boundary, and what that changes is reported."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pytest

from durably import StepContext, SyncStepContext, ValidationError, define_job
from durably.testing import CrashPoint, Difference, crash_everywhere


class Bank:
    """An outside world: it remembers charges, with or without an idempotency key."""

    def __init__(self) -> None:
        self.charges: list[int] = []
        self.keys: set[str] = set()

    def clear(self) -> None:
        self.charges.clear()
        self.keys.clear()

    def charge(self, amount: int, key: str | None = None) -> int:
        if key is None or key not in self.keys:
            self.charges.append(amount)
            self.keys.add(key or "")
        return amount


@pytest.fixture
def bank() -> Bank:
    return Bank()


def points_with(report, what: str) -> list[str]:
    return [str(difference.point) for difference in report.differences if difference.what == what]


@pytest.fixture(params=["async", "plain"])
def pay(request, bank):
    """A job that charges in a step, by an idempotency key where its input says so."""

    @define_job(name="pay")
    async def pay(step: StepContext, input: dict[str, str | None]) -> int:
        amount = await step.run("look-up", lambda: 42)
        return await step.run("charge", bank.charge, amount, input["key"])

    @define_job(name="pay-plain")
    def pay_plain(step: SyncStepContext, input: dict[str, str | None]) -> int:
        amount = step.run("look-up", lambda: 42)
        return step.run("charge", bank.charge, amount, input["key"])

    return pay if request.param == "async" else pay_plain


async def test_a_job_whose_effects_can_be_repeated_survives_a_crash_anywhere(pay, bank):
    report = await crash_everywhere(pay, {"key": "order-1"}, observe=lambda: bank.charges, reset=bank.clear)

    report.assert_no_differences()
    assert (report.undisturbed.output, report.undisturbed.observed) == (42, [42])
    assert [str(crash.point) for crash in report.crashes] == [
        "before the first line",
        "before the commit of 'look-up'",
        "after the commit of 'look-up'",
        "before the line after 'look-up'",
        "before the commit of 'charge'",
        "after the commit of 'charge'",
        "before the line after 'charge'",
        "before the end is recorded",
        "after the end was recorded",
    ]


async def test_only_the_step_in_flight_runs_again(pay, bank):
    """S2: where nothing was committed the function is called again, and nowhere else."""
    report = await crash_everywhere(pay, {"key": "order-1"})

    again = {str(crash.point): crash.in_flight for crash in report.crashes if crash.in_flight}
    assert again == {"before the commit of 'look-up'": ("look-up",), "before the commit of 'charge'": ("charge",)}
    calls = [crash.ending.step_calls["charge"] for crash in report.crashes]
    assert calls == [1, 1, 1, 1, 2, 1, 1, 1, 1]


async def test_an_effect_that_is_repeated_is_reported_where_it_is(pay, bank):
    report = await crash_everywhere(pay, {"key": None}, observe=lambda: bank.charges, reset=bank.clear)

    assert report.differences == [Difference(CrashPoint("before-commit", "charge"), "observed", [42], [42, 42])]
    with pytest.raises(AssertionError, match=r"before the commit of 'charge' +charge +observed: \[42, 42\]"):
        report.assert_no_differences()


async def test_an_effect_outside_of_any_step_is_reported_at_every_later_crash(bank):
    @define_job(name="careless")
    async def careless(step: StepContext, input: None) -> None:
        await step.run("prepare", lambda: None)
        bank.charge(1)
        await step.run("finish", lambda: None)

    report = await crash_everywhere(careless, None, observe=lambda: bank.charges, reset=bank.clear)

    assert points_with(report, "observed") == [
        "before the commit of 'finish'",
        "after the commit of 'finish'",
        "before the line after 'finish'",
        "before the end is recorded",
    ]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_crash_runs_no_except_and_no_finally(kind, bank):
    """As a kill: the code of the lost process does not get another line, and no exception to catch."""

    @define_job(name="tidy")
    async def tidy(step: StepContext, input: None) -> None:
        try:
            await step.run("work", lambda: None)
        except BaseException:
            bank.charge(1)
            raise
        finally:
            bank.charge(2)

    @define_job(name="tidy-plain")
    def tidy_plain(step: SyncStepContext, input: None) -> None:
        try:
            step.run("work", lambda: None)
        except BaseException:
            bank.charge(1)
            raise
        finally:
            bank.charge(2)

    report = await crash_everywhere(
        tidy if kind == "async" else tidy_plain,
        None,
        observe=lambda: bank.charges,
        reset=bank.clear,
        moments=["before-commit", "after-commit", "next-line"],
    )

    report.assert_no_differences()
    assert report.undisturbed.observed == [2]


async def test_tasks_that_the_job_started_are_lost_with_it(bank):
    @define_job(name="fan-out")
    async def fan_out(step: StepContext, input: None) -> None:
        async def in_the_background() -> None:
            await step.run("slow", asyncio.sleep, 0)
            bank.charge(1, "once")

        async with asyncio.TaskGroup() as group:
            group.create_task(in_the_background())
            group.create_task(in_the_background_too())

    async def in_the_background_too() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        bank.charge(2, "also once")

    report = await crash_everywhere(fan_out, None, observe=lambda: sorted(bank.charges), reset=bank.clear)

    report.assert_no_differences()
    assert report.undisturbed.observed == [1, 2]
    assert len(asyncio.all_tasks()) == 1


async def test_steps_side_by_side_that_were_not_completed_run_again():
    @define_job(name="side-by-side")
    async def side_by_side(step: StepContext, input: None) -> list[str]:
        slow_may_end = asyncio.Event()

        async def slow() -> str:
            await slow_may_end.wait()
            return "slow"

        async def quick() -> str:
            value = await step.run("quick", lambda: "quick")
            slow_may_end.set()
            return value

        return await asyncio.gather(step.run("slow", slow), quick())

    report = await crash_everywhere(side_by_side, None)

    report.assert_no_differences()
    in_flight = {str(crash.point): crash.in_flight for crash in report.crashes}
    assert in_flight["before the commit of 'quick'"] == ("quick", "slow")
    assert in_flight["after the commit of 'quick'"] == ("slow",)
    assert in_flight["before the line after 'slow'"] == ()


async def test_the_end_of_a_failing_job_is_compared_too(bank):
    """S3: a failed step is crashed around as well, and may succeed the second time."""

    @define_job(name="gives-up")
    async def gives_up(step: StepContext, input: None) -> None:
        if step.attempt == 1:
            await step.run("try", lambda: 1 / 0)

    report = await crash_everywhere(gives_up, None)

    assert (report.undisturbed.status, report.undisturbed.error) == ("failed", "division by zero")
    assert set(points_with(report, "status")) == {
        "before the first line",
        "before the commit of 'try'",
        "after the commit of 'try'",
        "before the line after 'try'",
        "before the end is recorded",
    }
    assert Difference(CrashPoint("before-end"), "error", "division by zero", None) in report.differences


async def test_a_job_that_always_fails_is_not_taken_for_one_that_survives():
    """What breaks at its first line ends alike everywhere; a test of it must not be green unless it was meant."""

    @define_job(name="breaks")
    async def breaks(step: StepContext, input: None) -> None:
        raise LookupError("no such order")

    report = await crash_everywhere(breaks, None)

    assert report.differences == []
    with pytest.raises(AssertionError, match="no differences; the undisturbed run failed: no such order"):
        report.assert_no_differences()
    report.assert_no_differences(status="failed")


async def test_a_job_that_takes_another_way_after_a_crash_is_reported():
    @define_job(name="wanders")
    async def wanders(step: StepContext, input: None) -> None:
        await step.run("begin", lambda: None)
        await step.run(f"attempt-{step.attempt}", lambda: None)

    report = await crash_everywhere(wanders, None, moments=["next-line"])

    assert (
        Difference(CrashPoint("next-line", "begin"), "steps", ["attempt-1", "begin"], ["attempt-2", "begin"])
        in report.differences
    )


async def test_a_job_that_differs_from_itself_is_said_to(bank):
    counted = iter(range(1000))

    @define_job(name="counts")
    async def counts(step: StepContext, input: None) -> int:
        return await step.run("count", lambda: next(counted))

    report = await crash_everywhere(counts, None)

    assert report.differences[0].point is None
    assert "undisturbed, once more" in str(report)


async def test_a_place_that_is_not_reached_again_is_reported():
    names = iter(["first", "second", "third", "fourth", "fifth", "sixth", "seventh"])

    @define_job(name="renames")
    async def renames(step: StepContext, input: None) -> None:
        await step.run(next(names), lambda: None)

    report = await crash_everywhere(renames, None, moments=["before-commit"])

    assert [difference.what for difference in report.crashes[-1].differences] == ["reached", "steps"]


async def test_plain_step_functions_end_before_the_run_is_resumed(bank):
    """A thread cannot be killed: one that is busy when the process is lost ends first, unrecorded."""
    started = threading.Event()

    def slow() -> None:
        started.set()
        time.sleep(0.02)
        bank.charge(1, "slow")

    def quick() -> None:
        started.wait()

    @define_job(name="threads")
    async def threads(step: StepContext, input: None) -> None:
        await asyncio.gather(step.run("slow", slow), step.run("quick", quick))

    report = await crash_everywhere(threads, None, observe=lambda: bank.charges, reset=bank.clear)

    report.assert_no_differences()


async def test_observe_and_reset_may_be_async(bank):
    @define_job(name="pays")
    async def pays(step: StepContext, input: int) -> None:
        await step.run("charge", bank.charge, input, "key")

    async def observe() -> list[int]:
        return bank.charges

    async def reset() -> None:
        bank.clear()

    report = await crash_everywhere(pays, 7, observe=observe, reset=reset)

    report.assert_no_differences()
    assert report.undisturbed.observed == [7]


async def test_a_job_that_waits_for_what_the_crash_took_with_it_times_out_with_advice():
    lock = asyncio.Lock()

    @define_job(name="locks")
    async def locks(step: StepContext, input: None) -> None:
        async with lock:
            await step.run("work", lambda: None)

    with pytest.raises(TimeoutError, match=r"did not end within 1\.0 s after a crash .*on_crash"):
        await crash_everywhere(locks, None, timeout=1)

    assert len(asyncio.all_tasks()) == 1


async def test_what_goes_with_the_process_is_made_anew_where_the_test_says_so():
    memory: dict[str, object] = {}
    lives = []

    def begin_anew() -> None:
        memory.clear()
        memory["lock"] = asyncio.Lock()
        lives.append("new")

    @define_job(name="remembers")
    async def remembers(step: StepContext, input: int) -> int:
        async with memory["lock"]:
            await step.run("load", lambda: memory.update(rows=input))
            return await step.run("use", lambda: memory["rows"] * 2)

    report = await crash_everywhere(remembers, 1, reset=begin_anew, on_crash=begin_anew)

    assert len(lives) == 2 + 2 * len(report.crashes)
    assert points_with(report, "error") == [
        "after the commit of 'load'",
        "before the line after 'load'",
        "before the commit of 'use'",
    ]


async def test_the_run_has_one_id_whatever_happens_to_it(bank):
    @define_job(name="pays-once")
    async def pays_once(step: StepContext, input: int) -> str:
        await step.run("charge", bank.charge, input, f"{step.run_id}/charge")
        return step.run_id

    report = await crash_everywhere(pays_once, 7, observe=lambda: (bank.charges, bank.keys), reset=bank.clear)

    report.assert_no_differences()


async def test_bad_arguments_are_refused(pay):
    with pytest.raises(ValidationError, match="observe needs reset"):
        await crash_everywhere(pay, {"key": None}, observe=list)
    with pytest.raises(ValidationError, match="before-lunch"):
        await crash_everywhere(pay, {"key": None}, moments=["before-lunch"])
    with pytest.raises(ValidationError, match=r"as \['after-commit'\]"):
        await crash_everywhere(pay, {"key": None}, moments="after-commit")
    with pytest.raises(ValidationError, match="must be a job made by define_job"):
        await crash_everywhere(print, {"key": None})
    with pytest.raises(ValidationError, match="input"):
        await crash_everywhere(pay, "not a dict")
    with pytest.raises(ValidationError, match=r"Invalid observe \[\]: must be a function"):
        await crash_everywhere(pay, {"key": None}, observe=[], reset=list)
    with pytest.raises(ValidationError, match="Invalid on_crash 3"):
        await crash_everywhere(pay, {"key": None}, on_crash=3)
    with pytest.raises(ValidationError, match="what observe returns cannot be copied"):
        await crash_everywhere(pay, {"key": None}, observe=threading.Lock, reset=list)


async def test_the_event_loop_is_left_as_it_was(pay):
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    await crash_everywhere(pay, {"key": "order-1"})

    assert loop.get_task_factory() is before
    assert len(asyncio.all_tasks()) == 1


async def test_plain_code_ends_as_in_production():
    """An error that no caller can be handed fails the run, and an awaitable that is returned is awaited."""

    async def double(n: int) -> int:
        return 2 * n

    @define_job(name="later", input=int, output=int)
    def later(step: SyncStepContext, input):
        return double(input)

    @define_job(name="first")
    def first(step: SyncStepContext, input: list[int]) -> int:
        return next(iter(input))

    @define_job(name="closes")
    async def closes(step: StepContext, input: None) -> None:
        def close():
            raise GeneratorExit

        await step.run("close", close)

    ends = [
        (report.undisturbed.status, report.undisturbed.output or report.undisturbed.error)
        for report in [
            await crash_everywhere(later, 2),
            await crash_everywhere(first, []),
            await crash_everywhere(closes, None),
        ]
    ]
    assert ends == [
        ("completed", 4),
        ("failed", "a plain function raised StopIteration"),
        ("failed", "a plain function raised GeneratorExit"),
    ]


async def test_many_jobs_are_lost_side_by_side(pay):
    """Each in processes of its own; and the event loop is left as it was."""
    loop = asyncio.get_running_loop()
    reports = await asyncio.gather(
        *(crash_everywhere(pay, {"key": "order-1"}, moments=["after-commit"]) for _ in range(20))
    )

    assert all(report.crashes for report in reports)
    assert loop.get_task_factory() is None


def test_a_crash_closes_no_asynchronous_generator():
    """A kill runs no `finally` of one, and neither does the end of the event loop."""
    closed: list[str] = []

    async def rows():
        try:
            yield 1
            yield 2
        finally:
            closed.append("closed")

    @define_job(name="streams")
    async def streams(step: StepContext, input: None) -> int:
        total = 0
        async for row in rows():
            total += await step.run(f"row-{row}", lambda row=row: row)
        return total

    async def lose_it() -> int:
        report = await crash_everywhere(streams, None, moments=["after-commit"])
        assert len(report.crashes) == 2
        return len(closed)

    closed_by_those_that_ended = asyncio.run(lose_it())
    gc.collect()

    assert len(closed) == closed_by_those_that_ended


PROGRAM_WITH_A_POOL = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

from durably import SyncStepContext, define_job
from durably.testing import crash_everywhere


@define_job(name="pooled")
def pooled(step: SyncStepContext, input: None) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(lambda number: step.run(f"step-{number}", lambda: number), range(2))]


print(asyncio.run(crash_everywhere(pooled, None)).differences)
"""


def test_a_program_ends_whatever_threads_its_lost_jobs_had_begun():
    """Python waits for the threads of a pool when it ends."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITH_A_POOL], capture_output=True, text=True, check=False, timeout=60
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")
