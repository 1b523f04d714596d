"""How the code of a run is interrupted: at its next await, with an error that says why.

Steps that are being awaited are interrupted where they stand, and the job sees their error. Only when no
step is under way, or none that the job waits for, is the job's own await interrupted; as it belongs to
nobody, it ends with `asyncio.CancelledError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, Final

from durably.engine.abort import AbortSignal

_LOOK_AFTER_SECONDS: Final = 0.1
_CLEAN_UP_SECONDS: Final = 1.0


class Interruption:
    """What may be interrupted of one run; `tasks` says at which step each of its tasks is, None between steps."""

    def __init__(
        self, signal: AbortSignal, loop: asyncio.AbstractEventLoop, tasks: Mapping[asyncio.Task[Any], str | None]
    ) -> None:
        self._signal = signal
        self._loop = loop
        self._tasks = tasks
        self._job: asyncio.Task[Any] | None = None
        self._interrupted: set[asyncio.Task[Any]] = set()

    async def guard_job(self, task: asyncio.Task[Any], work: Awaitable[Any], *, in_thread: bool) -> Any:
        """Await the job's own code in its task; what runs in a thread is left to look at its signal."""
        # Interrupted, the task would end while the thread goes on, and nobody would wait for that any more.
        self._job = None if in_thread else task
        try:
            return await work
        except asyncio.CancelledError as error:
            self._translate(task, error)
            raise
        finally:
            self._job = None

    async def guard_step(self, task: asyncio.Task[Any], work: Awaitable[Any]) -> Any:
        """Await a step in the task that runs it."""
        try:
            return await work
        except asyncio.CancelledError as error:
            self._translate(task, error)
            raise

    def is_job(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether `task` is the one that awaits the job's own code."""
        return task is self._job

    def arrived(self, task: asyncio.Task[Any], error: BaseException) -> bool:
        """Tell whether `error` is an interruption of `task`; it is over then."""
        if task not in self._interrupted or not isinstance(error, asyncio.CancelledError):
            return False
        self._interrupted.discard(task)
        task.uncancel()
        return True

    def interrupt(self, *, step_is_under_way: bool) -> None:
        """Interrupt what is being awaited; a plain step in its thread is left to look at its signal."""
        tasks = {task for task, step in self._tasks.items() if step is not None}
        if not tasks and self._job is not None and not step_is_under_way:
            tasks = {self._job}
        elif tasks and self._job is not None and self._job not in tasks:
            self._look_later(_awaited_by(self._job), tasks)
        for task in tasks - {asyncio.current_task(self._loop)}:
            self._interrupt(task)

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        if not self._signal.spares(task):
            self._interrupted.add(task)
            task.cancel()

    def _look_later(self, awaited: object, steps: set[asyncio.Task[Any]]) -> None:
        self._loop.call_later(_LOOK_AFTER_SECONDS, self._interrupt_uninformed_job, awaited, steps)

    def _interrupt_uninformed_job(
        self, awaited: object, steps: set[asyncio.Task[Any]], *, has_had_time: bool = False
    ) -> None:
        """Interrupt the job too where its steps have ended and it has not learnt of it.

        What it awaits has nothing to do with them then, as a queue that a step was to fill: it stands where it stood.
        Or it went on and stands elsewhere: then it is given a moment more, for that may be its clean-up. A job that
        has looked at the signal, or at how the tasks of its steps ended, is left in peace.
        """
        job = self._job
        if job is None:
            return
        now_awaited = _awaited_by(job)
        stands = awaited is not None and now_awaited is awaited
        if not stands and (self._signal.has_told(job) or any(map(_was_looked_at, steps))):
            return
        if any(step is not None for step in self._tasks.values()):
            self._look_later(now_awaited, steps)
        elif stands or has_had_time:
            self._interrupt(job)
        else:
            look = partial(self._interrupt_uninformed_job, None, steps, has_had_time=True)
            self._loop.call_later(_CLEAN_UP_SECONDS, look)

    def _translate(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """Raise what a cancellation stands for, if it is ours."""
        if self.arrived(task, error):
            raise self._signal.error() from None


def _awaited_by(task: asyncio.Task[Any]) -> object:
    # asyncio says it in no other way; where it did not say it any more, a job would only be interrupted less.
    return getattr(task, "_fut_waiter", None)


def _was_looked_at(task: asyncio.Task[Any]) -> bool:
    # asyncio notes it to warn, when a task is collected, of an error that nobody has asked for.
    return task.done() and not getattr(task, "_log_traceback", False)


def is_being_cancelled(since: int = 0) -> bool:
    """Tell whether someone has asked the task that runs this to end, and it is not the await that was cancelled.

    `since` is how often that had been asked before: before Python 3.13 a task group that failed leaves one behind.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > since
