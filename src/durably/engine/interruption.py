"""How the code of a run is interrupted: at its next await, with an error that says why.

Steps that are being awaited are interrupted where they stand, and the job sees their error. Only when no
step is under way is the job's own await interrupted; as it belongs to nobody, it ends with
`asyncio.CancelledError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from durably.engine.abort import AbortSignal


class Interruption:
    """The tasks of one run that may be interrupted."""

    def __init__(self, signal: AbortSignal, loop: asyncio.AbstractEventLoop) -> None:
        self._signal = signal
        self._loop = loop
        self._job: asyncio.Task[Any] | None = None
        self._steps: set[asyncio.Task[Any]] = set()
        self._interrupted: set[asyncio.Task[Any]] = set()

    async def guard_job(self, task: asyncio.Task[Any], work: Awaitable[Any], *, in_thread: bool) -> Any:
        """Await the job's own code in its task; what runs in a thread is left to look at its signal."""
        # Interrupted, the task would end while the thread goes on, and nobody would wait for that any more.
        self._job = None if in_thread else task
        try:
            return await work
        except asyncio.CancelledError:
            self._translate(task)
            raise
        finally:
            self._job = None

    async def guard_step(self, task: asyncio.Task[Any], work: Awaitable[Any]) -> Any:
        """Await a step in the task that runs it."""
        if task in self._steps:
            # A step inside a step: the outer one is interrupted, and this with it.
            return await work
        self._steps.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            self._translate(task)
            raise
        finally:
            self._steps.discard(task)

    def interrupt(self, *, step_is_under_way: bool) -> None:
        """Interrupt what is being awaited; a plain step in its thread is left to look at its signal."""
        tasks = set(self._steps)
        if not tasks and self._job is not None and not step_is_under_way:
            tasks = {self._job}
        for task in tasks - {asyncio.current_task(self._loop)}:
            self._interrupted.add(task)
            task.cancel()

    def _translate(self, task: asyncio.Task[Any]) -> None:
        """Raise what a cancellation stands for, if it is ours."""
        if task in self._interrupted:
            self._interrupted.discard(task)
            task.uncancel()
            raise self._signal.error() from None
