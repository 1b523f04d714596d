"""Asking a database again and again while it is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from durably.core.errors import StoreUnavailableError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


def pauses() -> Iterator[float]:
    """Yield how many seconds to wait before the next attempt, ever longer."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


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
