"""Run a job once for every place where its process can be lost, and say where that makes a difference."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from durably.app import create_durably
from durably.core.arguments import Seconds, positive_seconds, refuse
from durably.core.errors import ValidationError
from durably.core.jobs import InputT, JobDefinition
from durably.core.names import Labels
from durably.core.runs import TriggerResult
from durably.core.store import NewRun, Store
from durably.core.ulid import new_ulid
from durably.stores import open_store
from durably.testing.clock import FakeClock
from durably.testing.crash_report import (
    CRASH_MOMENTS,
    CrashMoment,
    CrashPoint,
    CrashReport,
    CrashResult,
    Difference,
    Ending,
)
from durably.testing.crashing import CrashingProcess
from durably.testing.store_view import StoreView

_LEASE_SECONDS: Final = 30


async def crash_everywhere(
    job: JobDefinition[InputT, Any],
    input: InputT | dict[str, Any],
    *,
    observe: Callable[[], object] | None = None,
    reset: Callable[[], object] | None = None,
    on_crash: Callable[[], object] | None = None,
    moments: Collection[CrashMoment] = CRASH_MOMENTS,
    labels: Labels | None = None,
    timeout: Seconds = 10,
) -> CrashReport:
    """Lose the process of a run at every checkpoint boundary, resume it on another instance, and compare.

    The job runs undisturbed first, then once for every place that it came by: before its first line; before
    the commit of each step, after it, before the next line; before the end is recorded and after it. There
    the execution is abandoned as a kill would leave it: nothing of it runs any more, no `except`, no
    `finally`. A second instance resumes the run, and its end is compared with the undisturbed one: status,
    output, error, which steps ran, and what `observe` returns. A completed step that runs again is reported.

    `observe` returns what the job has done to the outside world, as any value that can be copied and
    compared; `reset` takes it back and is called before every run; `observe` needs `reset`. `on_crash` is called
    when a process was lost, before the run is resumed: there memory that went with it is made anew, as a lock or a
    cache of the module. All three may be async. `moments` chooses where to crash. `timeout` is in real seconds, for
    each execution.

    Raises `ValidationError` when the input or an argument is refused, `TimeoutError` when a run does not
    end. Every crash leaves a few suspended objects behind, and of a plain job one waiting thread.

    >>> report = await crash_everywhere(charge, order, observe=lambda: bank.charges, reset=bank.clear)
    >>> report.assert_no_differences()
    """
    _check(job, {"observe": observe, "reset": reset, "on_crash": on_crash}, moments)
    run_id = new_ulid(int(FakeClock().now().timestamp() * 1000))
    trial = _Trial(job, input, run_id, observe, reset, on_crash, labels, positive_seconds("timeout", timeout))
    first = await trial.run(None)
    again = _result(None, await trial.run(None), first.ending)
    crashes = [
        _result(point, await trial.run(point), first.ending) for point in first.passed if point.moment in moments
    ]
    return CrashReport(job.name, first.ending, tuple([again, *crashes] if again.differences else crashes))


@dataclass(frozen=True, slots=True)
class _Witness:
    """What was seen of one run."""

    ending: Ending
    passed: list[CrashPoint]
    has_crashed: bool
    completed_before: set[str]
    started_again: set[str]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A job, and what is needed to run it over and over."""

    job: JobDefinition[Any, Any]
    input: object
    run_id: str
    """The same every time: jobs make keys of it, and return it."""
    observe: Callable[[], object] | None
    reset: Callable[[], object] | None
    on_crash: Callable[[], object] | None
    labels: Labels | None
    timeout: float

    async def run(self, crash_at: CrashPoint | None) -> _Witness:
        """Run the job once, on a database of its own: undisturbed, or through a crash."""
        await _called(self.reset)
        clock = FakeClock()
        store = open_store("sqlite://:memory:", clock)
        named = cast("Store", _NamingStore(store, self.run_id))
        client = create_durably(database=named, jobs={"job": self.job}, clock=clock, lease_duration=_LEASE_SECONDS)
        try:
            await client.migrate()
            await client.jobs.job.trigger(self.input, labels=self.labels)
            process = CrashingProcess(store, clock, self.job, lease_seconds=_LEASE_SECONDS, crash_at=crash_at)
            await process.execute(self.timeout)
            second = CrashingProcess(store, clock, self.job, lease_seconds=_LEASE_SECONDS, resumes_after=crash_at)
            if process.has_crashed:
                clock.advance(seconds=_LEASE_SECONDS)
                await _called(self.on_crash)
                await second.execute(self.timeout)
            run = await client.storage.get_run(self.run_id)
        finally:
            await client.close()
        if run is None:
            message = f"Job {self.job.name!r} deleted its own run {self.run_id}"
            raise ValidationError(message, field="job", value=self.job)
        observed = _copied(await _called(self.observe))
        calls = dict(process.started + second.started)
        ending = Ending(str(run.status), run.output, run.error, observed, calls)
        started_again = set(process.started) & set(second.started)
        return _Witness(ending, process.passed, process.has_crashed, process.completed, started_again)


class _NamingStore(StoreView):
    """A store that gives the run that is triggered through it a certain id."""

    _run_id: str

    def __init__(self, store: Store, run_id: str) -> None:
        super().__init__(store)
        self._keep("_run_id", run_id)

    async def enqueue(self, runs: Sequence[NewRun]) -> list[TriggerResult[Any]]:
        return await self._store.enqueue([run._replace(id=self._run_id) for run in runs])


def _copied(observed: object) -> object:
    """Return a copy: what is observed is mostly a living list that the next reset empties."""
    try:
        return copy.deepcopy(observed)
    except Exception as error:
        raise ValidationError(
            f"what observe returns cannot be copied ({error}): return plain values, as the rows of a table or the "
            "calls that a fake received",
            field="observe",
            value=observed,
        ) from error


def _result(point: CrashPoint | None, witness: _Witness, undisturbed: Ending) -> CrashResult:
    in_flight = tuple(sorted(witness.started_again - witness.completed_before))
    return CrashResult(point, witness.ending, in_flight, tuple(_differences(point, witness, undisturbed)))


def _differences(point: CrashPoint | None, witness: _Witness, undisturbed: Ending) -> Iterator[Difference]:
    if point is not None and not witness.has_crashed:
        yield Difference(point, "reached", undisturbed=True, crashed=False)
    for what in ("status", "output", "error", "observed"):
        expected, found = getattr(undisturbed, what), getattr(witness.ending, what)
        if expected != found:
            yield Difference(point, what, expected, found)
    expected_steps, found_steps = sorted(undisturbed.step_calls), sorted(witness.ending.step_calls)
    if expected_steps != found_steps:
        yield Difference(point, "steps", expected_steps, found_steps)
    if repeated := sorted(witness.started_again & witness.completed_before):
        yield Difference(point, "repeated", [], repeated)


async def _called(function: Callable[[], object] | None) -> object:
    result = function() if function is not None else None
    return await result if inspect.isawaitable(result) else result


def _check(job: object, functions: Mapping[str, object], moments: Collection[str]) -> None:
    if not isinstance(job, JobDefinition):
        raise ValidationError(f"Invalid job {job!r}: must be a job made by define_job", field="job", value=job)
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise refuse(name, function, "a function without parameters, as a lambda")
    if functions["observe"] is not None and functions["reset"] is None:
        raise ValidationError(
            "observe needs reset: without it every run would see what the runs before it did", field="reset"
        )
    if isinstance(moments, str):
        raise ValidationError(
            f"Invalid moments {moments!r}: must be a collection of moments, as [{moments!r}]",
            field="moments",
            value=moments,
        )
    if unknown := [moment for moment in moments if moment not in CRASH_MOMENTS]:
        raise ValidationError(
            f"Invalid moments {unknown!r}: must be of {', '.join(CRASH_MOMENTS)}", field="moments", value=unknown
        )
