"""A step context without a database: to call a job's function directly and look at what it did."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast

from durably.core.arguments import refuse, whole_number
from durably.core.jobs import is_async_callable
from durably.core.json_values import Codec, decode_json, encode_json, encode_leniently
from durably.core.logs import LogData, LogLevel
from durably.core.names import checked_labels, checked_name
from durably.core.runs import ProgressData
from durably.core.texts import storable, text_of
from durably.engine.abort import AbortController, AbortSignal
from durably.engine.error_messages import describe
from durably.engine.execution import Execution
from durably.engine.interruption import is_being_cancelled
from durably.engine.progress import progress_of
from durably.engine.running_steps import RunningSteps
from durably.engine.step_context import BaseContext, StepContext, SyncStepContext, used_on_loop
from durably.engine.step_results import decoded_result, encoded_result
from durably.engine.step_types import result_codec, with_signal
from durably.engine.threads import handing_over

_current_step: Final[ContextVar[tuple[_Recorder, str] | None]] = ContextVar("durably_fake_step", default=None)
_loop_apart: Final[ContextVar[int | None]] = ContextVar("durably_fake_loop", default=None)
"""The thread whose event loop a plain job's step is awaited on."""


@dataclass(frozen=True, slots=True)
class FakeStepCall:
    """One use of `step.run`: `replayed` when the result was given and the function not called."""

    name: str
    status: Literal["completed", "failed", "replayed"]
    output: Any = None
    error: str | None = None


class _RecordedLog:
    """Takes log lines as the log of a run does."""

    def __init__(self, recorder: _Recorder) -> None:
        self.lines: list[LogData] = []
        self._recorder = recorder

    def write(self, level: LogLevel, message: str, data: Any, *, has_data: bool = False) -> None:
        """Keep a line, and the step it was written in."""
        text = storable(message) if isinstance(message, str) else text_of(message)
        # As it is now: the job may go on changing it.
        kept = decode_json(encode_leniently(data)) if has_data else None
        self.lines.append(LogData(level, text, kept, self._recorder.current_step()))


class _Recorder:
    """What a fake step knows of its run, and what the job did with it."""

    def __init__(
        self, *, results: Mapping[str, Any], run_id: str, job_name: str, labels: Mapping[str, str], attempt: int
    ) -> None:
        self.run_id = run_id
        self.job_name = job_name
        self.labels = checked_labels(labels)
        self.attempt = whole_number("attempt", attempt, "a whole number, 1 or more: the first attempt is 1", least=1)
        self.controller = AbortController(run_id)
        self.signal = self.controller.signal
        self.calls: list[FakeStepCall] = []
        self.progress_reports: list[ProgressData] = []
        self.log = _RecordedLog(self)
        if not isinstance(results, Mapping):
            raise refuse("results", results, "the results of steps by their names")
        self._given = dict(results)
        self._completed: dict[str, str | None] = {}
        self._running = RunningSteps()
        self._changed = threading.Condition()
        # That of the job, where the test makes the step and calls the job.
        self._task = _this_task()

    def check(self, name: str) -> None:
        """Raise what keeps a step from starting."""
        self.signal.throw_if_aborted()
        checked_name("step name", name, field="name")

    def current_step(self) -> str | None:
        """Return the step of this run in whose code this is."""
        current = _current_step.get()
        return current[1] if current is not None and current[0] is self else None

    def is_known(self, name: str) -> bool:
        """Tell whether a step has its result without its function being called."""
        return name in self._completed or name in self._given

    def unused_results(self) -> list[str]:
        """Return the names of given results that no step has asked for."""
        called = {call.name for call in self.calls}
        return [name for name in self._given if name not in called]

    def known_result(self, name: str, codec: Codec[Any] | None) -> Any:
        """Return the result of a known step as a resume would: through JSON, into its type."""
        if name in self._completed:
            self.log.write("warn", f"step {name!r} was used twice: the second use returns the first result", None)
            return decoded_result(name, codec, self._completed[name])
        given = self._given[name]
        if isinstance(given, BaseException):
            self.calls.append(FakeStepCall(name, "failed", error=describe(given)))
            raise given
        text = encode_json(given, f"results[{name!r}]")
        value = decode_json(text) if codec is None else codec.decode(text, f"results[{name!r}]")
        self._completed[name] = text
        self.calls.append(FakeStepCall(name, "replayed", output=value))
        return value

    @asynccontextmanager
    async def alone_with(self, name: str) -> AsyncIterator[None]:
        """Wait until no other step of this name is performed, as side by side."""
        outer = self.current_step()
        while name in self._running:
            await self._running.wait_for(name, outer)
        self._running[name] = outer
        try:
            yield
        finally:
            self._running.end(name)

    @contextmanager
    def alone_in_thread(self, name: str) -> Iterator[None]:
        """Do the same for steps in threads."""
        if _loop_apart.get() == threading.get_ident():
            raise used_on_loop()
        outer = self.current_step()
        with self._changed:
            while name in self._running:
                with self._running.waiting(name, outer):
                    self._changed.wait()
            self._running[name] = outer
        try:
            yield
        finally:
            with self._changed:
                self._running.end(name)
                self._changed.notify_all()

    @contextmanager
    def performing(self, name: str) -> Iterator[None]:
        """Attribute logs to a step and record that it failed when it did."""
        token = _current_step.set((self, name))
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            # What ended it is that the run was cancelled, whatever it made of that.
            self.signal.throw_if_aborted()
            self.calls.append(FakeStepCall(name, "failed", error=describe(error)))
            if isinstance(error, SystemExit) and _this_task() is not self._task:
                # As the error of a task of its own it would end the event loop, in production as well.
                raise RuntimeError(describe(error)) from error
            raise
        finally:
            _current_step.reset(token)

    def complete(self, name: str, codec: Codec[Any] | None, value: Any) -> Any:
        """Record a result as a real step returns it; what could not be stored is refused as in production."""
        self.signal.throw_if_aborted()
        with self.performing(name):
            value, text = encoded_result(name, codec, value)
        self._completed[name] = text
        self.calls.append(FakeStepCall(name, "completed", output=value))
        return value


class _FakeContext(BaseContext):
    """What a job sees of its run, told by the test, and what the test sees of the job."""

    def __init__(
        self,
        *,
        results: Mapping[str, Any] | None = None,
        run_id: str = "fake-run",
        job_name: str = "fake-job",
        labels: Mapping[str, str] | None = None,
        attempt: int = 1,
    ) -> None:
        self._recorder = _Recorder(
            results=results or {}, run_id=run_id, job_name=job_name, labels=labels or {}, attempt=attempt
        )
        super().__init__(cast("Execution", self._recorder))

    @property
    def run_id(self) -> str:
        """Return the id that the test gave."""
        return self._recorder.run_id

    @property
    def job_name(self) -> str:
        """Return the name that the test gave."""
        return self._recorder.job_name

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that the test gave, as a copy."""
        return dict(self._recorder.labels)

    @property
    def attempt(self) -> int:
        """Return the attempt that the test gave."""
        return self._recorder.attempt

    @property
    def signal(self) -> AbortSignal:
        """Return what tells that `cancel` was called."""
        return self._recorder.signal

    def is_aborted(self) -> bool:
        """Tell whether `cancel` was called."""
        return self._recorder.signal.aborted

    def throw_if_aborted(self) -> None:
        """Raise `CancelledError` if `cancel` was called."""
        self._recorder.signal.throw_if_aborted()

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Remember the progress as it would be stored; what is no finite number is ignored."""
        data = progress_of(current, total, message)
        if data is not None:
            self._recorder.progress_reports.append(data)

    @property
    def calls(self) -> list[FakeStepCall]:
        """Return every use of `step.run`, in the order in which they ended."""
        return list(self._recorder.calls)

    @property
    def progress_reports(self) -> list[ProgressData]:
        """Return every `step.progress`."""
        return list(self._recorder.progress_reports)

    @property
    def logs(self) -> list[LogData]:
        """Return every line of `step.log`, with the step it was written in."""
        return list(self._recorder.log.lines)

    def step_names(self) -> list[str]:
        """Return the names of the steps that completed, in the order in which they ended."""
        return [call.name for call in self._recorder.calls if call.status != "failed"]

    def unused_results(self) -> list[str]:
        """Return the names in `results` that no step has had: after the job, a misspelt one, or one not reached."""
        return self._recorder.unused_results()

    def cancel(self) -> None:
        """Cancel the run: the signal is aborted and no further step starts."""
        self._recorder.controller.abort("cancelled")


class FakeStep(_FakeContext, StepContext):
    """A `StepContext` for calling an `async def` job directly.

    Step functions are called, plain ones in a thread, and their results checked as in production: what JSON
    cannot carry raises `ValidationError`. `results` gives the results of steps by name, as if they had been
    completed before: their functions are not called. A result that is an exception is raised. `run_id`, `job_name`,
    `labels` and `attempt` (1 or more) are what the job sees of its run.

    >>> step = FakeStep(results={"parse": [{"name": "Ada"}]})
    >>> await import_csv(step, ImportCsv(filename="a.csv"))
    >>> step.step_names()
    ['parse', 'import-0']
    """

    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        """Call `fn`, or return the result that was given for this name."""
        recorder, codec = self._recorder, result_codec(name, fn, returns)
        recorder.check(name)
        async with recorder.alone_with(name):
            if recorder.is_known(name):
                return recorder.known_result(name, codec)
            with recorder.performing(name):
                value = await _call(fn, args, with_signal(fn, args, kwargs, recorder.signal))
            return recorder.complete(name, codec, value)


class FakeSyncStep(_FakeContext, SyncStepContext):
    """A `SyncStepContext` for calling a plain `def` job directly: like `FakeStep`, without an event loop.

    >>> step = FakeSyncStep()
    >>> resize(step, {"path": "a.png"})
    >>> step.calls[0].output
    """

    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        """Call `fn`, or return the result that was given for this name."""
        recorder, codec = self._recorder, result_codec(name, fn, returns)
        recorder.check(name)
        with recorder.alone_in_thread(name):
            if recorder.is_known(name):
                return recorder.known_result(name, codec)
            with recorder.performing(name):
                value = fn(*args, **with_signal(fn, args, kwargs, recorder.signal))
                if inspect.isawaitable(value):
                    value = _await_apart(value)
            return recorder.complete(name, codec, value)


def _this_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _is_being_cancelled() -> bool:
    return _this_task() is not None and is_being_cancelled()


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if is_async_callable(fn):
        return await fn(*args, **kwargs)
    value = await asyncio.to_thread(handing_over, partial(fn, *args, **kwargs))
    return await value if inspect.isawaitable(value) else value


def _await_apart(awaitable: Awaitable[Any]) -> Any:
    async def settle() -> Any:
        _loop_apart.set(threading.get_ident())
        return await awaitable

    # The caller may stand on an event loop of its own; in production this runs on the worker's.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, settle()).result()
