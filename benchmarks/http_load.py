"""A load of requests over raw sockets that are kept open: `python -m benchmarks.http_load PORT SECONDS CONNECTIONS`.

Reads the bytes of one request from its input, sends it again and again on every connection, each time the answer
is complete, and prints how many answers came per second, and in all. Any answer but 200 ends it with status 1.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MOST_RECEIVED: Final = 65_536


def _is_whole(received: bytes) -> bool | None:
    """Tell whether an answer is complete; None when it is none that was asked for."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False if received else None
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        return None
    return len(body) >= int(length[1])


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
        is_whole = _is_whole(self._received)
        if is_whole is None:
            self._fail(f"unexpected answer: {self._received[:300]!r}")
        elif is_whole:
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


def _load_alone(port: int, seconds: float, request: bytes) -> Load:
    """Drive a single connection, which waits for every answer: without a loop, whose time would be part of each."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        warm = time.monotonic() + seconds / 4
        before = _ask_until(connection, request, warm)
        started = time.monotonic()
        answers = _ask_until(connection, request, started + seconds)
        return Load(answers / (time.monotonic() - started), before + answers)


def _ask_until(connection: socket.socket, request: bytes, deadline: float) -> int:
    answers = 0
    while time.monotonic() < deadline:
        connection.sendall(request)
        received = connection.recv(_MOST_RECEIVED)
        while (is_whole := _is_whole(received)) is False:
            received += connection.recv(_MOST_RECEIVED)
        if is_whole is None:
            raise ConnectionError(f"unexpected answer: {received[:300]!r}")
        answers += 1
    return answers


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


def main() -> None:
    """Put a server under load, and tell how much it answered."""
    port, seconds, connections = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    request = sys.stdin.buffer.read()
    if connections == 1:
        load = _load_alone(port, seconds, request)
    else:
        load = asyncio.run(_load(port, seconds, connections, request))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
