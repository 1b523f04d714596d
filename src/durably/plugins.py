"""The plugins of an instance: what may be one, and what is asked of them once they are installed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from typing import Final

from durably.core.arguments import refuse
from durably.core.errors import StoreUnavailableError
from durably.core.jobs import is_async_callable
from durably.core.pauses import pauses

_FLUSH_SECONDS: Final = 10.0
_SHORTEST_FLUSH_SECONDS: Final = 1.0

log = logging.getLogger("durably")


class InstalledPlugins:
    """The plugins of one instance, in the order in which they were installed."""

    def __init__(self) -> None:
        self._plugins: list[object] = []

    def install(self, plugin: object, instance: object) -> None:
        """Install a plugin, unless an equal one is. Raises `ValidationError` for what is none."""
        install = getattr(plugin, "install", None)
        # What a coroutine function does is done by whoever awaits it, and nobody would.
        if not callable(install) or is_async_callable(install) or isinstance(plugin, type):
            raise refuse("plugin", plugin, "an object with an install(durably) method, which is no `async def`")
        if plugin not in self._plugins:
            install(instance)
            self._plugins.append(plugin)

    async def flush(self) -> None:
        """Return when all have done what they hold back, whatever one of them raises.

        Raises `StoreUnavailableError`, after which it is worth another attempt, else what was raised first.
        """
        errors: list[Exception] = []
        for plugin in self._plugins:
            flush = getattr(plugin, "flush", None)
            if flush is None:
                continue
            try:
                await flush()
            except Exception as error:  # noqa: BLE001 - raised when the others had their turn
                errors.append(error)
        if errors:
            raise next((error for error in errors if isinstance(error, StoreUnavailableError)), errors[0])

    async def flush_within(self, seconds: float | None) -> None:
        """Flush, again and again while the database is away, but not for longer than a stop may take.

        `seconds` is what is left of the time for it, None when it has no limit of its own.
        """
        deadline = asyncio.timeout(_FLUSH_SECONDS if seconds is None else max(seconds, _SHORTEST_FLUSH_SECONDS))
        waits = pauses()
        try:
            async with deadline:
                while True:
                    try:
                        return await self.flush()
                    except StoreUnavailableError:
                        await asyncio.sleep(next(waits))
        except TimeoutError:
            if not deadline.expired():
                raise
            log.warning("stopped before every plugin had stored what it holds: the database did not take it in time")

    def close(self) -> None:
        """Let all give up what they still hold; raises what one of them raised when all had their turn."""
        plugins, self._plugins = self._plugins, []
        with ExitStack() as closing:
            for plugin in reversed(plugins):
                close = getattr(plugin, "close", None)
                if close is not None:
                    closing.callback(close)
