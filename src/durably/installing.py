"""What `use` installs, and what an instance asks of it later."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from durably.core.errors import StoreUnavailableError
from durably.engine.retrying import pauses
from durably.settings import refuse

if TYPE_CHECKING:
    from durably.app import Durably

_FLUSH_SECONDS: Final = 10.0
_SHORTEST_FLUSH_SECONDS: Final = 1.0

log = logging.getLogger("durably")


@runtime_checkable
class DurablyPlugin(Protocol):
    """Something that `Durably.use` can install.

    A plugin that has work under way may have an `async def flush(self)`: it is awaited before log lines are
    read and when the instance stops, and raises `StoreUnavailableError` while the database is away. It may
    have a `def close(self)`, called when the instance is closed: what is not stored by then is lost.
    """

    def install(self, durably: Durably) -> None:
        """Attach to an instance, mostly by listening to its events."""
        ...


class InstalledPlugins:
    """The plugins of one instance, in the order in which they were installed."""

    def __init__(self) -> None:
        self._plugins: list[DurablyPlugin] = []

    def install(self, plugin: DurablyPlugin, durably: Durably) -> None:
        """Attach a plugin to its instance. Raises `ValidationError` for what is none."""
        if not isinstance(plugin, DurablyPlugin):
            raise refuse("plugin", plugin, "an object with an install(durably) method")
        plugin.install(durably)
        self._plugins.append(plugin)

    async def flush(self) -> None:
        """Return when all have done what they hold back. Raises `StoreUnavailableError`."""
        for plugin in self._plugins:
            flush = getattr(plugin, "flush", None)
            if flush is not None:
                await flush()

    async def flush_within(self, seconds: float | None) -> None:
        """Flush, again and again while the database is away, but not for longer than a stop may take.

        `seconds` is what is left of the time for it, None when it has no limit of its own.
        """
        limit = _FLUSH_SECONDS if seconds is None else max(seconds, _SHORTEST_FLUSH_SECONDS)
        waits = pauses()
        try:
            async with asyncio.timeout(limit) as deadline:
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
        """Let all give up what they still hold."""
        for plugin in self._plugins:
            close = getattr(plugin, "close", None)
            if close is not None:
                close()
