"""One pretended process that executes a run, watches its checkpoints and is lost at one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from durably.app import create_durably
from durably.core.events import DurablyEvent, StepStartEvent
from durably.core.jobs import JobDefinition
from durably.core.leases import Claim
from durably.core.outcomes import Completed, Failed
from durably.core.store import StepRecord, Store
from durably.engine.execution import Execution
from durably.engine.step_context import StepContext, SyncStepContext
from durably.testing.clock import FakeClock
from durably.testing.crash_report import CrashMoment, CrashPoint
from durably.testing.life import DaemonThreads, Life
from durably.testing.store_view import StoreView

T = TypeVar("T")


class CrashingProcess:
    """A process with one worker, on a store that it shares with others.

    `passed` are the crash points it came by, `started` and `completed` the steps whose functions it called
    and whose results it stored.
    """

    def __init__(
        self,
        store: Store,
        clock: FakeClock,
        job: JobDefinition[Any, Any],
        *,
        lease_seconds: float,
        crash_at: CrashPoint | None = None,
        resumes_after: CrashPoint | None = None,
    ) -> None:
        self.passed: list[CrashPoint] = []
        self.started: Counter[str] = Counter()
        self.completed: set[str] = set()
        self._job = job
        self._crash_at = crash_at
        self._resumes_after = resumes_after
        self._life = Life()
        self._threads = DaemonThreads()
        self._execution: Execution | None = None
        self._durably = create_durably(
            database=cast("Store", _WatchedStore(store, self)),
            jobs={"job": self._watched_job()},
            clock=clock,
            lease_duration=lease_seconds,
        )

    @property
    def has_crashed(self) -> bool:
        """Tell whether this process was lost."""
        return self._life.crashed.is_set()

    async def execute(self, timeout: float) -> None:
        """Execute what can be claimed, to its end or to the crash. Raises `TimeoutError`."""
        working = asyncio.create_task(self._life.run(self._durably.process_one()))
        crashed = asyncio.create_task(self._life.crashed.wait())
        try:
            ended, _ = await asyncio.wait({working, crashed}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                raise TimeoutError(self._timed_out(timeout))
            if not self.has_crashed:
                working.result()
        finally:
            crashed.cancel()
            await self._life.bury()
            await asyncio.wait({working})
            await self._leave(timeout)

    async def passes(self, moment: CrashMoment, step: str | None = None) -> None:
        """Note that a crash point was reached; does not return when it is the one to crash at."""
        occurrence = 1 + sum(1 for point in self.passed if (point.moment, point.step) == (moment, step))
        point = CrashPoint(moment, step, occurrence)
        self.passed.append(point)
        if point == self._crash_at:
            await self._life.crash()

    def _timed_out(self, timeout: float) -> str:
        where = f" after a crash {self._resumes_after}" if self._resumes_after is not None else ""
        return (
            f"job {self._job.name!r} did not end within {timeout} s{where}. Does it wait for something that a lost "
            "process took with it, as a lock in memory? Then `on_crash` should make it anew"
        )

    async def _leave(self, timeout: float) -> None:
        if self._execution is not None:
            # Its timers are callbacks of the event loop and belong to no task.
            self._execution.close()
        await self._durably.close()
        if self._job.is_async:
            # No kill can be pretended for a thread that is busy with a step: it was lost a little later.
            await self._threads.settle(timeout)

    # --- the job, watched ----------------------------------------------------------------------------

    def _watched_job(self) -> JobDefinition[Any, Any]:
        job = self._job

        async def watched(step: StepContext, input: Any) -> Any:
            execution = self._execution = step._execution  # noqa: SLF001 - this is the same context, watched
            execution.threads = self._threads
            await self.passes("first-line")
            if job.is_async:
                return await job.function(_WatchedStep(execution, self), input)
            plain_step = _WatchedPlainStep(execution, self, self._life)
            return await self._threads.call(job.function, plain_step, input)

        return JobDefinition(job.name, watched, job.input, job.output)


class _WatchedStep(StepContext):
    """The step context of an async job; between a step and the next line the process can be lost."""

    def __init__(self, execution: Execution, process: CrashingProcess) -> None:
        super().__init__(execution)
        self._process = process

    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        try:
            value = await self._execution.run_step(name, fn, args, kwargs, returns)
        except Exception:
            await self._process.passes("next-line", name)
            raise
        await self._process.passes("next-line", name)
        return value


class _WatchedPlainStep(SyncStepContext):
    """The step context of a plain job, whose thread stops where it stands when the process is lost."""

    def __init__(self, execution: Execution, process: CrashingProcess, life: Life) -> None:
        super().__init__(execution)
        self._process = process
        self._life = life

    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        try:
            value = super().run(name, fn, *args, returns=returns, **kwargs)
        except Exception:
            self._on_loop(self._process.passes("next-line", name))
            raise
        self._on_loop(self._process.passes("next-line", name))
        return value

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return super()._on_loop(work)
        finally:
            self._life.hold_thread()


class _WatchedStore(StoreView):
    """The shared store as one process sees it: it cannot close it, and it can be lost around each commit."""

    _process: CrashingProcess

    def __init__(self, store: Store, process: CrashingProcess) -> None:
        super().__init__(store)
        self._keep("_process", process)

    async def close(self) -> None:
        """Leave the store to the other processes."""

    def announce(self, event: DurablyEvent) -> None:
        if isinstance(event, StepStartEvent):
            self._process.started[event.step_name] += 1
        self._store.announce(event)

    async def record_step(self, claim: Claim, step: StepRecord, progress_json: str | None, event: DurablyEvent) -> bool:
        await self._process.passes("before-commit", step.name)
        held = await self._store.record_step(claim, step, progress_json, event)
        if held and step.error is None:
            self._process.completed.add(step.name)
        await self._process.passes("after-commit", step.name)
        return held

    async def finish(
        self, claim: Claim, outcome: Completed | Failed, progress_json: str | None, event: DurablyEvent
    ) -> bool:
        await self._process.passes("before-end")
        held = await self._store.finish(claim, outcome, progress_json, event)
        await self._process.passes("after-end")
        return held
