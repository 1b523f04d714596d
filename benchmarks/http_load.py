"""A load of requests over raw sockets that are kept open: `python -m benchmarks.http_load PORT SECONDS CONNECTIONS`.

Reads the bytes of one request from its input, sends it again and again on every connection, each time the answer
is complete, and prints how many answers came per second, and in all. Any answer but 200 ends it with status 1.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Client(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, request: bytes, failed: asyncio.Future[None]) -> None:
        self.answers = 0
        self._request = request
        self._failed = failed
        self._received = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            self._fail(f"unexpected answer: {self._received[:300]!r}")
        elif len(body) >= int(length[1]):
            self.answers += 1
            self._received = b""
            self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc}")

    def _fail(self, reason: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(ConnectionError(reason))


@dataclass(frozen=True)
class Load:
    """Answers per second once warm, and all of them, those of the beginning included."""

    rate: float
    answers: int


async def _load(port: int, seconds: float, connections: int, request: bytes) -> Load:
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Client(request, failed), "127.0.0.1", port)
        clients.append(client)
    # Until the first connections have been served a while, caches are cold on both sides.
    await asyncio.wait({failed}, timeout=seconds / 4)
    before, started = sum(client.answers for client in clients), loop.time()
    await asyncio.wait({failed}, timeout=seconds)
    if failed.done():
        failed.result()
    answers = sum(client.answers for client in clients)
    return Load((answers - before) / (loop.time() - started), answers)


def put_under_load(port: int, request: bytes, connections: int, *, processes: int, seconds: float) -> Load:
    """Return how much a server answers, asked by some processes at once on so many connections together."""
    words = [sys.executable, "-m", "benchmarks.http_load", str(port), str(seconds), str(connections // processes)]
    loads = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
    for load in loads:
        assert load.stdin is not None
        load.stdin.write(request)
        load.stdin.close()
    told = [load.stdout.read() if load.stdout else b"" for load in loads]
    if any(load.wait() for load in loads):
        raise RuntimeError("a load generator failed; its reason stands above")
    each = [Load(**json.loads(line)) for line in told]
    return Load(sum(load.rate for load in each), sum(load.answers for load in each))


if __name__ == "__main__":
    load = asyncio.run(_load(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.stdin.buffer.read()))
    print(json.dumps(asdict(load)))
