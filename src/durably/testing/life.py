"""A pretended process inside this one: its tasks and threads can be stopped as a kill would stop them.

A killed process runs no `finally`, no `except`, no destructor. So nothing is thrown into the code of a life
that is over: its coroutines are not resumed any more, its threads wait for ever, and both are kept from being
collected, because Python closes a coroutine that it collects, and closing runs `finally` blocks.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import cache
from typing import Any, Final, TypeVar

from durably.engine.threads import Threads, handing_over

T = TypeVar("T")

_current: Final[ContextVar[Life | None]] = ContextVar("durably_testing_life", default=None)
_kept: Final[list[object]] = []
_keeper_lock: Final = threading.Lock()
_program_ends: Final = threading.Event()


class Life:
    """The time in which a pretended process runs. Used on one event loop."""

    def __init__(self) -> None:
        self.is_over = False
        self.crashed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._generators: list[AsyncGenerator[Any, Any]] = []

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in this life; once it has ended this never returns."""
        context = copy_context()
        context.run(_current.set, self)
        with _tasks_know_their_life():
            return await asyncio.get_running_loop().create_task(work, context=context)

    async def crash(self) -> None:
        """Stop everything here and now: to be called in the life itself; never returns."""
        self.is_over = True
        self.crashed.set()
        await asyncio.get_running_loop().create_future()

    async def bury(self) -> None:
        """Take the tasks of this life off the event loop, without a further line of theirs being run."""
        self.is_over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.crashed.is_set():
            _keep_for_ever(self._generators)
        else:
            # Those that the job left behind are closed as everywhere, when nobody holds them.
            self._generators = []

    def hold_thread(self) -> None:
        """Return while this life lasts; afterwards never, so that the thread's code stops where it is.

        A thread that the job has begun, as one of a pool, is let go when the program ends: Python may wait for it.
        """
        if not self.is_over:
            return
        if isinstance(threading.current_thread(), _DaemonThread):
            threading.Event().wait()
        _let_go_at_exit()
        _program_ends.wait()
        raise SystemExit

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take a task as one of this life."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def adopt_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Take an asynchronous generator as one of this life; the event loop would close it when it ends."""
        self._generators.append(generator)

    async def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` for as long as this life lasts."""
        result: T = await _Driven(self, coroutine)
        return result


class _DaemonThread(threading.Thread):
    """One that nobody waits for."""


class DaemonThreads(Threads):
    """Threads that a program can leave behind when it ends."""

    def __init__(self) -> None:
        super().__init__(1)
        self._calls: list[Future[Any]] = []

    async def run(self, function: Any) -> Any:
        """Return what a plain function returns, called in a thread with this task's context."""
        call: Future[Any] = Future()
        self._calls.append(call)
        _DaemonThread(
            target=_perform, args=(call, copy_context(), function), name="durably-testing", daemon=True
        ).start()
        return await asyncio.wrap_future(call)

    async def settle(self, timeout: float) -> None:
        """Return when no function is being performed any more. Raises `TimeoutError`."""
        left = (await asyncio.to_thread(wait, self._calls, timeout)).not_done
        if left:
            raise TimeoutError(f"a plain step function did not end within {timeout} s")


class _Driven:
    """Passes between a task and a coroutine, until the life is over; then nothing reaches the coroutine."""

    def __init__(self, life: Life, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._life = life
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Any = self._coroutine.send
        argument: Any = None
        while True:
            if self._life.is_over:
                _keep_for_ever(self._coroutine)
                raise asyncio.CancelledError
            try:
                awaited = self._resumed(resume, argument)
            except StopIteration as end:
                return end.value
            try:
                argument = yield awaited
                resume = self._coroutine.send
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is meant for the coroutine
                argument = error
                resume = self._coroutine.throw

    def _resumed(self, resume: Any, argument: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._life.adopt_generator)
        try:
            return resume(argument)
        finally:
            sys.set_asyncgen_hooks(firstiter=hooks.firstiter)


class _LifeFactory:
    """Makes every task that is created in a life one that ends with it, also those of the user's own code.

    One for all lives on a loop: they may be side by side, and end in any order.
    """

    def __init__(self, before: Any) -> None:
        self.lives = 0
        self.before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **options: Any
    ) -> Any:
        life = _current.get() if context is None else context.get(_current)
        if life is not None:
            coroutine = life.drive(coroutine)
        if context is not None:
            options["context"] = context
        if self.before is None:
            task = asyncio.Task(coroutine, loop=loop, **options)
        else:
            task = self.before(loop, coroutine, **options)
        if life is not None:
            life.adopt(task)
        return task


@contextmanager
def _tasks_know_their_life() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    current: Any = loop.get_task_factory()
    factory = current if isinstance(current, _LifeFactory) else _LifeFactory(current)
    if factory is not current:
        loop.set_task_factory(factory)
    factory.lives += 1
    try:
        yield
    finally:
        factory.lives -= 1
        # Where another one was put on top meanwhile, ours stays: it passes on what belongs to no life.
        if not factory.lives and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.before)


def _perform(call: Future[Any], context: Context, function: Any) -> None:
    call.set_running_or_notify_cancel()
    try:
        result = context.run(handing_over, function)
    except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
        call.set_exception(error)
    else:
        call.set_result(result)


@cache
def _let_go_at_exit() -> None:
    # Before Python joins the threads of pools, which it does in such a call as well; there is no public way.
    threading._register_atexit(_program_ends.set)  # type: ignore[attr-defined] # noqa: SLF001


def _keep_for_ever(coroutine: object) -> None:
    """Hold a reference that even the end of the interpreter does not drop: that of a thread that waits."""
    with _keeper_lock:
        if not _kept:
            threading.Thread(target=_hold, args=(_kept,), name="durably-testing-keeper", daemon=True).start()
        _kept.append(coroutine)


def _hold(kept: list[object]) -> None:  # noqa: ARG001 - to hold it is all there is to do
    threading.Event().wait()
