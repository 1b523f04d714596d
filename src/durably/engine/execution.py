"""One run being executed: its checkpoints and its log.

A step has three parts, so that a plain job can perform the middle one in its own thread: `begin` (replay it
or start it), the function itself, and `complete` or `fail`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.errors import (
    CancelledError,
    DurablyError,
    LeaseLostError,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    ValueRefusedError,
)
from durably.core.events import (
    LogWriteEvent,
    StepCancelEvent,
    StepCompleteEvent,
    StepFailEvent,
    StepStartEvent,
    WorkerErrorEvent,
)
from durably.core.jobs import is_async_callable
from durably.core.json_values import (
    Codec,
    decode_checked,
    encode_json,
    encode_leniently,
    shortened,
    storable,
    text_of,
)
from durably.core.logs import LogLevel
from durably.core.names import checked_name
from durably.core.runs import RunStatus
from durably.core.store import StepRecord, Store
from durably.core.ulid import new_ulid
from durably.engine.abort import AbortSignal
from durably.engine.event_hub import EventHub
from durably.engine.interruption import Interruption
from durably.engine.leases import HeldLease
from durably.engine.progress import ProgressKeeper
from durably.engine.retrying import pauses, while_allowed
from durably.engine.running_steps import RunningSteps
from durably.engine.step_types import result_codec, with_signal
from durably.engine.threads import Threads

_current_step: ContextVar[tuple[Execution, str] | None] = ContextVar("durably_current_step", default=None)

_MOST_SHOWN_OF_SEVERAL: Final = 200

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
        store: Store,
        hub: EventHub,
        clock: Clock,
        threads: Threads,
    ) -> None:
        self.lease = lease
        self.run = lease.run
        self.signal: AbortSignal = lease.controller.signal
        self.threads = threads
        self.loop = asyncio.get_running_loop()
        self.store_error: StoreError | None = None
        """Why nothing can be recorded any more, when the database is beyond help."""
        self._loop_thread = threading.get_ident()
        self._store = store
        self._hub = hub
        self._clock = clock
        self._about: dict[str, Any] = {"run_id": self.run.id, "job_name": self.run.job_name, "labels": self.run.labels}
        self._checkpoints = checkpoints
        self._used: set[str] = set()
        self._in_doubt: set[str] = set()
        self._running = RunningSteps(self.loop)
        self._next_index = 0
        self._has_returned = False
        self._interruption = Interruption(self.signal, self.loop, lease.tasks)
        self.progress: Final = ProgressKeeper(lease, self._about, store, hub, clock)
        self._forget_abort: Callable[[], None] | None = self.signal.on_abort(self._abort_arrived)
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
        token = _current_step.set((self, name))
        try:
            try:
                # Not by way of a thread's coroutine where there is no thread: every step would pay for it.
                is_async = is_async_callable(function)
                value = await (function(*args, **kwargs) if is_async else self.threads.call(function, *args, **kwargs))
            finally:
                _current_step.reset(token)
                if was_known:
                    tasks[task] = before
                else:
                    del tasks[task]
        except BaseException as error:
            if before is None:
                # Not a step inside a step: the outer one is interrupted, and this with it.
                self._interruption.arrived(task, error)
            await self.fail_step(begun, error)
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
        current = _current_step.get()
        outer = current[1] if current is not None and current[0] is self else None
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
            return Replayed(_decoded(name, self._checkpoints.pop(name), codec))
        self._running[name] = outer
        started_at = self._clock.now()
        self._hub.announce(StepStartEvent(timestamp=started_at, **self._about, step_name=name, step_index=index))
        return StartedStep(name, index, codec, started_at, self._clock.monotonic())

    async def complete_step(self, step: StartedStep, value: Any) -> Any:
        """Commit the result of a step and return it."""
        if self.signal.aborted:
            raise self._cancelled(step)
        if self._has_returned:
            self._running.end(step.name)
            raise self._too_late(step.name)
        try:
            value, output_json = encoded_result(step.name, step.codec, value)
        except DurablyError as error:
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
            await self._record(self._step_record(step, now, output_json=output_json), event)
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
            raise
        finally:
            self._running.end(step.name)
        self._end_if_aborted()
        return value

    async def fail_step(self, step: StartedStep, error: BaseException) -> None:
        """Note that a step raised; raises instead when it did so because its run is being ended."""
        if self.signal.aborted:
            raise self._cancelled(step) from error
        if self._has_returned or isinstance(error, KeyboardInterrupt):
            # Nobody waits for it any more; or the process is being ended: the step did not fail, it will be run again.
            self._running.end(step.name)
            return
        if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
            self._tell_given_up(step)
            return
        self.failed_step = (sole_error(error), step.name)
        now, message = self._clock.now(), describe(error)
        event = self._fail_event(step, now, message)
        try:
            await self._record(self._step_record(step, now, error=message), event)
        except CancelledError:
            self._tell_cancelled(step)
            raise
        finally:
            self._running.end(step.name)
        self._end_if_aborted()

    def _end_if_aborted(self) -> None:
        # While the commit was under way the step counted as running, and nobody interrupted the job for it.
        if self.signal.aborted:
            raise self.signal.error()

    def _step_record(
        self, step: StartedStep, now: datetime, *, output_json: str | None = None, error: str | None = None
    ) -> StepRecord:
        step_id = new_ulid(int(now.timestamp() * 1000))
        return StepRecord(step_id, step.name, step.index, output_json, error, step.started_at, now)

    def _record(self, record: StepRecord, event: StepCompleteEvent | StepFailEvent) -> Coroutine[Any, Any, None]:
        progress = self.progress.take()
        write = partial(self._store.record_step, self.lease.claim, record, progress, event)
        return self.persist(write, is_result=record.error is None)

    async def persist(self, write: Callable[[], Awaitable[bool]], *, is_result: bool = False) -> None:
        """Do a fenced write, again and again while the database is away and the lease is ours.

        Raises `LeaseLostError` or `CancelledError` when the write does not hold, `ValueRefusedError` when that
        of a result can never be done: then a failure can be written in its place.
        """
        # Every step comes through here: not by way of `while_allowed`, which would make it coroutines of its own.
        waits = None
        while True:
            self._check_held()
            try:
                if not await write():
                    await self._find_out_why_refused()
                    self._check_held()
                return
            except StoreUnavailableError as error:
                self._tell(f"a checkpoint could not be written, trying again: {error}")
            except StoreError as error:
                if is_result and isinstance(error, ValueRefusedError):
                    raise
                self.store_error = error
                self._tell(
                    f"run {self.run.id} of job {self.run.job_name!r} stops here, and is executed again when its lease "
                    f"has ended, because it cannot be written: {error}"
                )
                raise
            waits = waits or pauses()
            await asyncio.sleep(next(waits))

    async def _find_out_why_refused(self) -> None:
        """Abort for the reason that the stored run gives: its event may still be on its way."""
        run = await self._store.get_run(self.run.id)
        if run is None or run.status is RunStatus.CANCELLED:
            self.lease.controller.abort("cancelled")
        else:
            self.lease.lose("another worker holds the run")

    def refuse_steps(self) -> None:
        """Take no more steps: the job has returned or raised, and what it left running comes too late."""
        self._has_returned = True

    def _check_open(self, name: str) -> None:
        if self._has_returned and not self.signal.aborted:
            raise self._too_late(name)
        self._check_held()

    def _too_late(self, name: str) -> ValidationError:
        message = (
            f"step {name!r} comes too late: job {self.run.job_name!r} has ended run {self.run.id} without waiting for "
            "it. Await every step before the job returns or raises"
        )
        log.warning(message)
        return ValidationError(message, field="step")

    def _check_held(self) -> None:
        if self.store_error is not None:
            raise LeaseLostError(self.run.id) from self.store_error
        self.lease.check_held()

    def _cancelled(self, step: StartedStep) -> DurablyError:
        self._running.end(step.name)
        if self.signal.reason == "cancelled":
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
        self.log("warn", message, None)
        checkpoints = await self._load_checkpoints()
        return Replayed(_decoded(name, checkpoints.get(name), codec))

    async def _clear_doubt(self, name: str, outer: str | None) -> None:
        """Find out whether a step was stored that the job gave up while it was committed."""
        self._running[name] = outer
        try:
            # Writes are done in their order: after this one the other one is, too.
            await self.persist(partial(self._store.save_progress, self.lease.claim, None))
            checkpoints = await self._load_checkpoints()
            if name in checkpoints:
                self._checkpoints[name] = checkpoints[name]
            self._in_doubt.discard(name)
        finally:
            self._running.end(name)

    def _load_checkpoints(self) -> Coroutine[Any, Any, dict[str, str | None]]:
        return while_allowed(
            lambda: self._store.load_checkpoints(self.run.id),
            self._check_held,
            lambda error: self._tell(f"a checkpoint could not be read, trying again: {error}"),
        )

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
        task = asyncio.current_task(self.loop)
        assert task is not None  # noqa: S101 - a coroutine of ours always runs in a task
        return task

    def _abort_arrived(self) -> None:
        self.from_any_thread(lambda: self._interruption.interrupt(step_is_under_way=bool(self._running)))

    # --- log ---------------------------------------------------------------------------------------

    def log(self, level: LogLevel, message: str, data: Any, *, has_data: bool = False) -> None:
        """Write a log line, as part of the step that this code belongs to."""
        current = _current_step.get()
        step_name = current[1] if current is not None and current[0] is self else None
        event = LogWriteEvent(
            timestamp=self._clock.now(),
            **self._about,
            step_name=step_name,
            level=level,
            message=storable(message) if isinstance(message, str) else text_of(message),
            data_json=encode_leniently(data) if has_data else None,
        )
        self.from_any_thread(lambda: self._hub.announce(event))

    def enter_step(self, name: str) -> Callable[[], None]:
        """Attribute what this thread logs to a step, until the returned function is called."""
        token = _current_step.set((self, name))
        return lambda: _current_step.reset(token)

    def is_in_loop_thread(self) -> bool:
        """Tell whether this is the thread of the event loop."""
        return threading.get_ident() == self._loop_thread

    def from_any_thread(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop: now if this is its thread, else soon."""
        if self.is_in_loop_thread():
            callback()
            return
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            log.debug("the event loop is closed; nobody is left to tell")

    def close(self) -> None:
        """Let go of everything: the run has ended here."""
        if self._forget_abort is not None:
            self._forget_abort()
        # Both hold this object, an error by its traceback: nothing is left that only the garbage collector could free.
        self._forget_abort = None
        self.failed_step = None
        self.progress.close()

    def _tell(self, message: str) -> None:
        log.warning(message)
        self._hub.announce(
            WorkerErrorEvent(timestamp=self._clock.now(), error=message, context="execution", run_id=self.run.id)
        )


def is_being_cancelled() -> bool:
    """Tell whether someone has asked the task that runs this to end, and it is not the await that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def describe(error: BaseException) -> str:
    """Return what a failed run or step says: the error's own message, with its type where that alone says little.

    >>> describe(ValueError("no such row"))
    'no such row'
    """
    error = sole_error(error)
    if isinstance(error, BaseExceptionGroup):
        return shortened(storable(f"{error.message}: {'; '.join(_named(each) for each in _errors_in(error))}"))
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot even say what it is has failed the run all the same
        message = ""
    if not message or isinstance(error, KeyError) or not isinstance(error, Exception | DurablyError):
        # A KeyError's message is nothing but the missing key, that of SystemExit a number.
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return shortened(storable(message))


def sole_error(error: BaseException) -> BaseException:
    """Return the one error that a group holds, as that of a `TaskGroup` mostly does; else the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _errors_in(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _errors_in(each)
    else:
        yield error


def _named(error: BaseException) -> str:
    name, message = type(error).__name__, describe(error)[:_MOST_SHOWN_OF_SEVERAL]
    return message if message.startswith(name) else f"{name}: {message}"


def refused_result(what: str, text: str | None, refusal: ValueRefusedError) -> ValueRefusedError:
    """Return what to say of a result that the database refused."""
    return ValueRefusedError(
        f"{what} cannot be stored, it is {len(text or ''):,} characters of JSON: {refusal}. "
        "Store it elsewhere and return where it is"
    )


def encoded_result(name: str, codec: Codec[Any] | None, value: Any) -> tuple[Any, str | None]:
    """Return the result of a step as the job sees it, now and after a resume, and as it is stored."""
    what = f"result of step {name!r}"
    if codec is not None:
        value = codec.validate(value, what)
    if value is None:
        return None, None
    return (value, encode_json(value, what)) if codec is None else codec.round_trip(value, what)


def _decoded(name: str, text: str | None, codec: Codec[Any] | None) -> Any:
    if text is None:
        return None
    what = f"result of step {name!r}"
    return decode_checked(text, what) if codec is None else codec.decode(text, what)
