"""What a job sees as `step`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelledError
from typing import Any, Final, Never, ParamSpec, TypeAlias, TypeVar, overload

from durably.core.errors import LeaseLostError, ValidationError
from durably.core.texts import text_of
from durably.engine.abort import AbortSignal
from durably.engine.execution import Execution, Replayed
from durably.engine.interruption import is_being_cancelled
from durably.engine.job_log import JobLog
from durably.engine.progress import progress_of
from durably.engine.step_types import with_signal

T = TypeVar("T")
P = ParamSpec("P")

# A union, because for a bare `type[T]` mypy takes no abstract class, as `Sequence[int]` is one.
_Class: TypeAlias = type[T] | type[Never]

_NO_DATA: Final = object()
_LOOK_AT_LOOP_SECONDS: Final = 1.0

log = logging.getLogger("durably")


class StepLog:
    """Writes structured log lines; never blocks, never fails the job."""

    __slots__ = ("_log",)

    def __init__(self, log: JobLog) -> None:
        self._log = log

    def info(self, message: str, data: Any = _NO_DATA) -> None:
        """Log what happened; `data` is any JSON value."""
        self._log.write("info", message, data, has_data=data is not _NO_DATA)

    def warn(self, message: str, data: Any = _NO_DATA) -> None:
        """Log what should be looked at; `data` is any JSON value."""
        self._log.write("warn", message, data, has_data=data is not _NO_DATA)

    def error(self, message: str, data: Any = _NO_DATA) -> None:
        """Log what went wrong; `data` is any JSON value."""
        self._log.write("error", message, data, has_data=data is not _NO_DATA)


class BaseContext:
    """What both kinds of step context have."""

    __slots__ = ("_execution", "log")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.log: Final = StepLog(execution.log)

    @property
    def run_id(self) -> str:
        """Return the id of this run."""
        return self._execution.run.id

    @property
    def job_name(self) -> str:
        """Return the name of the job."""
        return self._execution.run.job_name

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of this run, as a copy."""
        return dict(self._execution.run.labels)

    @property
    def attempt(self) -> int:
        """Return which execution of this run this is: 1, and one more after each crash or lost lease."""
        return self._execution.run.lease_generation

    @property
    def signal(self) -> AbortSignal:
        """Return what tells that this run should end."""
        return self._execution.signal

    def is_aborted(self) -> bool:
        """Tell whether this run should end."""
        return self._execution.signal.aborted

    def throw_if_aborted(self) -> None:
        """Raise `CancelledError` or `LeaseLostError` if this run should end."""
        self._execution.signal.throw_if_aborted()

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the run has come; never blocks, never fails the job.

        >>> step.progress(3, 10, "three of ten")
        """
        data = progress_of(current, total, message)
        if data is None:
            log.warning("progress of run %s is ignored: %s is not a finite number", self.run_id, text_of(current))
            return
        if self._execution.signal.unseen_reason in ("cancelled", "lease-lost"):
            # It has ended, or is another worker's now.
            return
        self._execution.loop_thread.call(lambda: self._execution.progress.report(data))


class StepContext(BaseContext):
    """The step context of an `async def` job."""

    __slots__ = ()

    # What `returns` says goes before what `fn` says, also where `fn` takes any keyword, so it comes first. Where the
    # context expects another type, mypy finds that the first overload does not fit: the second keeps that an error,
    # which Any would not be. To a type checker `int | str`, `Annotated[...]` and the like are no classes: Any.
    @overload
    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: _Class[T], **kwargs: Any) -> T: ...
    @overload
    async def run(  # pyright: ignore[reportOverlappingOverload] # the first one that fits counts; this is for mypy
        self, name: str, fn: Callable[..., Any], /, *args: Any, returns: type[Any], **kwargs: Any
    ) -> object: ...
    @overload
    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any, **kwargs: Any) -> Any: ...
    @overload
    async def run(self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def run(  # type: ignore[overload-cannot-match] # it can: an fn whose `signal` the caller does not pass
        self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, returns: None = None, **kwargs: Any
    ) -> T: ...
    @overload
    async def run(  # type: ignore[overload-cannot-match] # the same
        self, name: str, fn: Callable[..., T], /, *args: Any, returns: None = None, **kwargs: Any
    ) -> T: ...
    async def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        """Run a checkpoint: call `fn(*args, **kwargs)` once for this run, ever, and return its result.

        The result is committed when this returns; after a crash the stored result is returned instead of
        calling `fn` again. A plain `fn` runs in a thread. `fn` gets the `AbortSignal` as `signal` if it
        has a parameter of that name, unless it is given one here. `returns` says which type a stored result
        is validated into; the default is the return annotation of `fn`.

        Raises what `fn` raises, `ValidationError` when JSON cannot carry the result, `ValueRefusedError` when
        the database can never take it, `CancelledError` or `LeaseLostError` when the run should end.

        >>> rows = await step.run("parse", parse_csv, path)
        """
        return await self._execution.run_step(name, fn, args, kwargs, returns)


class SyncStepContext(BaseContext):
    """The step context of a plain `def` job: the same, but `run` blocks."""

    __slots__ = ()

    @overload
    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: _Class[T], **kwargs: Any) -> T: ...
    @overload
    def run(  # pyright: ignore[reportOverlappingOverload] # the same
        self, name: str, fn: Callable[..., Any], /, *args: Any, returns: type[Any], **kwargs: Any
    ) -> object: ...
    @overload
    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any, **kwargs: Any) -> Any: ...
    @overload
    def run(self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(  # type: ignore[overload-cannot-match] # it can: an fn whose `signal` the caller does not pass
        self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, returns: None = None, **kwargs: Any
    ) -> T: ...
    @overload
    def run(  # type: ignore[overload-cannot-match] # the same
        self, name: str, fn: Callable[..., T], /, *args: Any, returns: None = None, **kwargs: Any
    ) -> T: ...
    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, returns: Any = None, **kwargs: Any) -> Any:
        """Run a checkpoint, as `StepContext.run` does, in the thread of the job.

        >>> rows = step.run("parse", parse_csv, path)
        """
        execution = self._execution
        begun = self._on_loop(execution.begin_step(name, fn, returns))
        if isinstance(begun, Replayed):
            return begun.value
        kwargs = with_signal(fn, args, kwargs, execution.signal)
        leave = execution.log.enter_step(name)
        try:
            value = self._call(name, fn, args, kwargs)
        except BaseException as error:
            self._on_loop(execution.fail_step(begun, error))
            raise
        finally:
            leave()
        return self._on_loop(execution.complete_step(begun, value))

    def _call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = fn(*args, **kwargs)
        if not isinstance(result, Awaitable):
            return result
        value, exit_ = self._on_loop(self._await(name, result))
        if exit_ is not None:
            raise exit_
        return value

    async def _await(self, name: str, work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
        try:
            return await self._execution.await_step(name, work), None
        except SystemExit as exit_:
            # As the error of a task it would end the event loop, and every other run with it.
            return None, exit_
        except asyncio.CancelledError as cancelled:
            if is_being_cancelled():
                raise
            # What the step awaited was cancelled: its own error, and not that nobody is there any more.
            return None, cancelled

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        loop_thread = self._execution.loop_thread
        if loop_thread.is_current():
            work.close()
            raise used_on_loop()
        loop = loop_thread.loop
        try:
            asked = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            if not loop.is_closed():
                raise
            # This process gave the run up while its thread was busy.
            work.close()
            raise LeaseLostError(self.run_id) from None
        while not loop.is_closed():
            try:
                return asked.result(_LOOK_AT_LOOP_SECONDS)
            except TimeoutError:
                if asked.done():
                    return asked.result()
            except FutureCancelledError:
                break
        # The loop ended, or dropped all that was under way to do so: nobody is there who could answer.
        raise LeaseLostError(self.run_id) from None


def context_for(execution: Execution, *, is_async: bool) -> StepContext | SyncStepContext:
    """Return the step context that fits the kind of job."""
    return StepContext(execution) if is_async else SyncStepContext(execution)


def used_on_loop() -> ValidationError:
    """Return the error for a plain job's context where it would wait for itself."""
    return ValidationError(
        "the step context of a plain job was used on the event loop, as in an async function of one of its steps: "
        "there it would wait for itself. Use it in the job's own thread",
        field="step",
    )
