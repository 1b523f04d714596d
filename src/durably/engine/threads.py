"""Where plain functions run: in a worker thread, never on the event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Final

from durably.core.jobs import is_async_callable

_THREADS_PER_RUN: Final = 4
_FEWEST_THREADS: Final = 32

_awaiting_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("durably_awaiting_task", default=None)


def has_threads() -> bool:
    """Tell whether this Python can start threads; in a browser it cannot."""
    return sys.platform != "emscripten"


def tasks_of_this_code() -> tuple[asyncio.Task[Any] | None, asyncio.Task[Any] | None]:
    """Return the task that this code is in, and the one that awaits the thread which it is in or was begun by."""
    return asyncio.current_task(), _awaiting_task.get()


def context_beside() -> Context:
    """Return this context for code that no thread waits for, as a listener of what a plain job tells."""
    context = copy_context()
    context.run(_awaiting_task.set, None)
    return context


class Threads:
    """Calls functions, async ones on the event loop and plain ones in a thread."""

    def __init__(self, max_concurrent_runs: int) -> None:
        # Threads are made when needed; the bound only keeps a runaway job from making thousands.
        self._limit = max(_FEWEST_THREADS, _THREADS_PER_RUN * max_concurrent_runs)
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what `function` returns, awaited if it is awaitable."""
        if is_async_callable(function):
            return await function(*args, **kwargs)
        result = await self.run(partial(function, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return what a plain function returns, called in a thread with this task's context."""
        if not has_threads():
            return function()
        if self._pool is None or self._process != os.getpid():
            # A fork inherits the pool, but not its threads.
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(self._limit, thread_name_prefix="durably-job")
        context = copy_context()
        context.run(_awaiting_task.set, asyncio.current_task())
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(handing_over, function))

    def close(self) -> None:
        """Let the threads end; one that is still busy is left to finish by itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def handing_over(function: Callable[[], Any]) -> Any:
    """Return what a plain function returns, to be called in a thread that somebody awaits."""
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        # A future refuses the one, so that who waits would do so for ever; the other closes the coroutine that waits.
        raise RuntimeError(f"a plain function raised {type(error).__name__}") from error
