"""How the library begins tasks of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin_task(work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Begin a task on the running loop, in a turn of its own: whoever begins it notes it before it does anything.

    A task factory of the program, as `asyncio.eager_task_factory`, may run the first part of a task at once.
    """
    loop = asyncio.get_running_loop()
    return loop.create_task(work if loop.get_task_factory() is None else _in_its_own_turn(work), name=name)


async def _in_its_own_turn(work: Coroutine[Any, Any, T]) -> T:
    try:
        await asyncio.sleep(0)
    except BaseException:
        # Cancelled before it began: nothing of it is to be run, nor missed.
        work.close()
        raise
    return await work
