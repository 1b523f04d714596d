"""Asking a database again and again while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from durably.core.errors import StoreUnavailableError
from durably.core.pauses import pauses

T = TypeVar("T")


async def while_allowed(
    ask: Callable[[], Awaitable[T]], check: Callable[[], None], tell: Callable[[StoreUnavailableError], None]
) -> T:
    """Return what `ask` returns, once the database can be asked; each failure is told.

    `check` is called before every attempt and raises what ends the attempts.
    """
    waits = pauses()
    while True:
        check()
        try:
            return await ask()
        except StoreUnavailableError as error:
            tell(error)
        await asyncio.sleep(next(waits))
