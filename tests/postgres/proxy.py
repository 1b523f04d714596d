"""A wire between a client and a server that a test can cut, freeze, or lose one answer on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 65_536


class Proxy:
    """Forwards connections to a port on this machine."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.lost = asyncio.Event()
        """Set when an answer was lost as `lose_answer_to` asked for."""
        self._target = target
        self._wires: set[_Wire] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._marker: bytes | None = None
        self._refused: bytes | None = None

    def url(self, url: str) -> str:
        """Return the URL of a database as it is reached through here."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    def lose_answer_to(self, marker: str) -> None:
        """Cut the connection on which `marker` is sent next, when the server has done it and before it is told."""
        self._marker = marker.encode()

    def cut_on(self, marker: str) -> None:
        """Cut every connection on which `marker` is sent, before the server gets it."""
        self._refused = marker.encode()

    def freeze(self) -> None:
        """Let nothing through any more, without a word."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let through what was held up, and everything after it."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection."""
        for wire in list(self._wires):
            wire.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection to its end."""
        try:
            behind = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        wire = _Wire(writer, behind[1])
        self._wires.add(wire)
        try:
            await asyncio.gather(self._up(wire, reader), self._down(wire, behind[0]))
        except OSError:
            pass
        finally:
            wire.close()
            self._wires.discard(wire)

    async def _up(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            if self._marker is not None and self._marker in data:
                self._marker, wire.loses_next = None, True
            if self._refused is not None and self._refused in data:
                break
            wire.server.write(data)
        wire.close()

    async def _down(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            if wire.loses_next:
                self.lost.set()
                break
            wire.client.write(data)
        wire.close()


class _Wire:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.loses_next = False

    def close(self) -> None:
        self.client.close()
        self.server.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Yield a proxy to a port of this machine."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.thaw()
        proxy.cut()
        server.close()
        await server.wait_closed()
