"""One run being executed: its steps, and the code of the job around them.

A step has three parts, so that a plain job can perform the middle one in its own thread: `begin` (replay it
or start it), the function itself, and `complete` or `fail`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.errors import CancelledError, DurablyError, ValidationError, ValueRefusedError
from durably.core.events import StepCancelEvent, StepCompleteEvent, StepFailEvent, StepStartEvent
from durably.core.jobs import is_async_callable
from durably.core.json_values import Codec
from durably.core.names import checked_name
from durably.core.store import StepRecord
from durably.core.ulid import new_ulid
from durably.engine.abort import AbortSignal
from durably.engine.error_messages import describe, sole_error
from durably.engine.event_hub import EventHub
from durably.engine.held_lease import HeldLease
from durably.engine.interruption import Interruption, is_being_cancelled
from durably.engine.job_log import JobLog, current_step
from durably.engine.leased_store import LeasedStore
from durably.engine.loop_thread import LoopThread
from durably.engine.progress import ProgressKeeper
from durably.engine.running_steps import RunningSteps
from durably.engine.step_results import decoded_result, encoded_result, refused_result
from durably.engine.step_types import result_codec, with_signal
from durably.engine.threads import Threads

log = logging.getLogger("durably")


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a step that was completed before."""

    value: Any


@dataclass(slots=True)
class StartedStep:
    """A step that is being performed."""

    name: str
    index: int
    codec: Codec[Any] | None
    started_at: datetime
    started: float


class Execution:
    """The state of one run while this process executes it."""

    def __init__(
        self,
        lease: HeldLease,
        checkpoints: dict[str, str | None],
        store: LeasedStore,
        hub: EventHub,
        clock: Clock,
        threads: Threads,
    ) -> None:
        self.lease = lease
        self.run = lease.run
        self.signal: AbortSignal = lease.controller.signal
        self.store: Final = store
        self.threads = threads
        self.loop_thread: Final = LoopThread()
        self._hub = hub
        self._clock = clock
        self._about: dict[str, Any] = {"run_id": self.run.id, "job_name": self.run.job_name, "labels": self.run.labels}
        self._checkpoints = checkpoints
        self._used: set[str] = set()
        self._in_doubt: set[str] = set()
        self._running = RunningSteps()
        self._next_index = 0
        self._has_returned = False
        self._interruption = Interruption(self.signal, self.loop_thread.loop, lease.tasks)
        self.log: Final = JobLog(self._about, self.signal, hub, clock, self.loop_thread)
        self.progress: Final = ProgressKeeper(self._about, store, hub, clock)
        self._forget_abort: Callable[[], None] | None = self.signal.listen(self._abort_arrived)
        self.failed_step: tuple[BaseException, str] | None = None
        """The error that a step ended with last, and the name of the step."""

    # --- steps -------------------------------------------------------------------------------------

    async def run_step(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], returns: Any
    ) -> Any:
        """Perform a step, or replay it."""
        begun = await self.begin_step(name, function, returns)
        if isinstance(begun, Replayed):
            return begun.value
        kwargs = with_signal(function, args, kwargs, self.signal)
        task = self._this_task()
        tasks = self.lease.tasks
        before, was_known = tasks.get(task), task in tasks
        tasks[task] = name
        token = current_step.set((self.log, name))
        cancelling = task.cancelling()
        try:
            try:
                # Not by way of a thread's coroutine where there is no thread: every step would pay for it.
                is_async = is_async_callable(function)
                value = await (function(*args, **kwargs) if is_async else self.threads.call(function, *args, **kwargs))
            finally:
                if not self.loop_thread.loop.is_closed():
                    # Else the garbage collector closes this, in a context of somebody else.
                    current_step.reset(token)
                if was_known:
                    tasks[task] = before
                else:
                    del tasks[task]
        except BaseException as error:
            if self.loop_thread.loop.is_closed():
                # The garbage collector found what nobody awaits any more: nothing happened to the step.
                raise
            if before is None:
                # Not a step inside a step: the outer one is interrupted, and this with it.
                self._interruption.arrived(task, error)
            if isinstance(error, SystemExit) and not self._interruption.is_job(task):
                # As the error of a task of its own it would end the event loop, and every other run with it.
                ordinary = RuntimeError(describe(error))
                await self.fail_step(begun, ordinary)
                raise ordinary from error
            await self.fail_step(begun, error, cancelling)
            raise
        return await self.complete_step(begun, value)

    async def await_step(self, name: str, work: Awaitable[Any]) -> Any:
        """Await what a plain job's step gave to the event loop, so that it can be interrupted there."""
        task = self._this_task()
        self.lease.tasks[task] = name
        try:
            return await self._interruption.guard_step(task, work)
        finally:
            del self.lease.tasks[task]

    async def begin_step(self, name: str, function: Callable[..., Any], returns: Any) -> Replayed | StartedStep:
        """Return the stored result of a step, or note that it starts."""
        self._check_open(name)
        checked_name("step name", name, field="name")
        codec = result_codec(name, function, returns)
        outer = self.log.step_of_this_code()
        while name in self._running or name in self._in_doubt:
            if name in self._running:
                await self._running.wait_for(name, outer)
            else:
                await self._clear_doubt(name, outer)
            self._check_open(name)
        if name in self._used:
            return await self._replay_again(name, codec)
        index = self._next_index
        self._next_index += 1
        if name in self._checkpoints:
            self._used.add(name)
            return Replayed(decoded_result(name, codec, self._checkpoints.pop(name)))
        self._running[name] = outer
        started_at = self._clock.now()
        self._hub.announce(StepStartEvent(timestamp=started_at, **self._about, step_name=name, step_index=index))
        return StartedStep(name, index, codec, started_at, self._clock.monotonic())

    async def complete_step(self, step: StartedStep, value: Any) -> Any:
        """Commit the result of a step and return it."""
        if self.signal.unseen_reason is not None:
            raise self._cancelled(step)
        if self._has_returned:
            self._running.end(step.name)
            raise self._too_late(step.name)
        try:
            value, output_json = encoded_result(step.name, step.codec, value)
        except Exception as error:
            await self.fail_step(step, error)
            raise
        now = self._clock.now()
        event = StepCompleteEvent(
            timestamp=now,
            **self._about,
            step_name=step.name,
            step_index=step.index,
            output_json=output_json,
            duration=self._clock.monotonic() - step.started,
        )
        try:
            await self.store.record_step(_record(step, now, output_json=output_json), self.progress.take(), event)
            self._used.add(step.name)
        except ValueRefusedError as refusal:
            refused = refused_result(f"result of step {step.name!r}", output_json, refusal)
            self.progress.give_back()
            await self.fail_step(step, refused)
            raise refused from refusal
        except CancelledError:
            self._tell_cancelled(step)
            raise
        except asyncio.CancelledError:
            # Given up by the job while it was committed: it may be stored all the same.
            self._in_doubt.add(step.name)
            self.progress.give_back()
            raise
        finally:
            self._running.end(step.name)
        # While the commit was under way the step counted as running, and nobody interrupted the job for it.
        self.signal.throw_if_aborted()
        return value

    async def fail_step(self, step: StartedStep, error: BaseException, cancelling: int = 0) -> None:
        """Note that a step raised; raises instead when it did so because its run is being ended.

        `cancelling` is how often its task had been asked to end when the step began.
        """
        if self.signal.unseen_reason is not None:
            raise self._cancelled(step) from error
        if self._has_returned or isinstance(error, KeyboardInterrupt):
            # Nobody waits for it any more; or the process is being ended: the step did not fail, it will be run again.
            self._running.end(step.name)
            return
        if isinstance(error, asyncio.CancelledError) and is_being_cancelled(cancelling):
            self._tell_given_up(step)
            return
        self.failed_step = (sole_error(error), step.name)
        now, message = self._clock.now(), describe(error)
        event = self._fail_event(step, now, message)
        try:
            await self.store.record_step(_record(step, now, error=message), self.progress.take(), event)
        except CancelledError:
            self._tell_cancelled(step)
            raise
        except asyncio.CancelledError:
            # Given up by the job while it was committed: what went with it may not be stored.
            self.progress.give_back()
            raise
        finally:
            self._running.end(step.name)
        self.signal.throw_if_aborted()

    def refuse_steps(self) -> None:
        """Take no more steps: the job has returned or raised, and what it left running comes too late."""
        self._has_returned = True

    def _check_open(self, name: str) -> None:
        if self._has_returned and self.signal.unseen_reason is None:
            raise self._too_late(name)
        self.store.check_held()

    def _too_late(self, name: str) -> ValidationError:
        message = (
            f"step {name!r} comes too late: job {self.run.job_name!r} has ended run {self.run.id} without waiting for "
            "it. Await every step before the job returns or raises"
        )
        log.warning(message)
        return ValidationError(message, field="step")

    def _cancelled(self, step: StartedStep) -> DurablyError:
        self._running.end(step.name)
        if self.signal.unseen_reason == "cancelled":
            self._tell_cancelled(step)
        return self.signal.error()

    def _tell_cancelled(self, step: StartedStep) -> None:
        self._hub.announce(
            StepCancelEvent(timestamp=self._clock.now(), **self._about, step_name=step.name, step_index=step.index)
        )

    def _tell_given_up(self, step: StartedStep) -> None:
        # Told and not recorded: to wait for a commit here could hold up the job's timeout, or the end of the process.
        self._running.end(step.name)
        self._hub.announce(self._fail_event(step, self._clock.now(), "given up by the job before it ended"))

    def _fail_event(self, step: StartedStep, now: datetime, error: str) -> StepFailEvent:
        return StepFailEvent(timestamp=now, **self._about, step_name=step.name, step_index=step.index, error=error)

    async def _replay_again(self, name: str, codec: Codec[Any] | None) -> Replayed:
        message = (
            f"step {name!r} was used twice in one execution of run {self.run.id} of job {self.run.job_name!r}: "
            "the second use returns the first result. Give every step a name of its own"
        )
        log.warning(message)
        self.log.write("warn", message, None)
        checkpoints = await self.store.load_checkpoints()
        return Replayed(decoded_result(name, codec, checkpoints.get(name)))

    async def _clear_doubt(self, name: str, outer: str | None) -> None:
        """Find out whether a step was stored that the job gave up while it was committed."""
        self._running[name] = outer
        try:
            await self.store.settle()
            checkpoints = await self.store.load_checkpoints()
            if name in checkpoints:
                self._checkpoints[name] = checkpoints[name]
            self._in_doubt.discard(name)
        finally:
            self._running.end(name)

    # --- the job's own code ------------------------------------------------------------------------

    async def perform(self, work: Awaitable[Any], *, in_thread: bool) -> Any:
        """Await the job's own code in this task, so that it can be interrupted between steps as well."""
        task = self._this_task()
        self.lease.tasks[task] = None
        try:
            return await self._interruption.guard_job(task, work, in_thread=in_thread)
        finally:
            del self.lease.tasks[task]

    def _this_task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task(self.loop_thread.loop)
        assert task is not None  # noqa: S101 - a coroutine of ours always runs in a task
        return task

    def _abort_arrived(self) -> None:
        self.loop_thread.call(lambda: self._interruption.interrupt(step_is_under_way=bool(self._running)))

    def close(self) -> None:
        """Let go of everything: the run has ended here."""
        if self._forget_abort is not None:
            self._forget_abort()
        # Both hold this object, an error by its traceback: nothing is left that only the garbage collector could free.
        self._forget_abort = None
        self.failed_step = None
        self.progress.close()


def _record(
    step: StartedStep, now: datetime, *, output_json: str | None = None, error: str | None = None
) -> StepRecord:
    step_id = new_ulid(int(now.timestamp() * 1000))
    return StepRecord(step_id, step.name, step.index, output_json, error, step.started_at, now)
