"""Event streams: from a worker's progress to clients of its own process and of another one, and what many cost."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Line, Samples, number, samples
from benchmarks.http_server import BASE
from benchmarks.http_serving import Server, serve_durably

_MOST_TIMES_OWN_PROCESS: Final = 20
_MOST_MEBIBYTES: Final = 100
_TICK: Final = re.compile(rb'"type":"run:progress".*?"message":"([\d.]+)"')
_QUIET_SECONDS: Final = 2.0


class _Stream(asyncio.Protocol):
    """A client of an event stream; notes for each tick how long it was under way."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.delays: list[float] = []
        self._rest = b""
        self._transport: asyncio.BaseTransport
        self._awaited = 0
        self._arrived = asyncio.Event()

    @staticmethod
    async def open(port: int) -> _Stream:
        loop = asyncio.get_running_loop()
        transport, stream = await loop.create_connection(_Stream, "127.0.0.1", port)
        transport.write(f"GET {BASE}/runs/subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await asyncio.wait_for(stream.opened.wait(), 60)
        return stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # The id without an event, after which the server has this client in its list.
            if line.startswith(b"id:"):
                self.opened.set()
            if (tick := _TICK.search(line)) is not None:
                self.delays.append(now - float(tick[1]))
        if len(self.delays) >= self._awaited:
            self._arrived.set()

    async def ticks(self, count: int) -> None:
        """Return when `count` ticks have arrived since the stream was opened."""
        self._awaited = count
        if len(self.delays) < count:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 120)


async def _tick(port: int, count: int, pause: float) -> None:
    """Trigger the job that tells the time, at a server whose process has a worker or another one's."""
    body = json.dumps({"jobName": "ticks", "input": {"count": count, "pause": pause}})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {BASE}/trigger HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write((head + body).encode())
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the trigger was refused: {answer[:300]!r}")


def latencies(database: str, url: str, count: int, repetitions: int) -> Iterator[Line]:
    """Yield how long progress takes to a client of another process, beside one of the worker's own."""
    own, other = asyncio.run(_latencies(url, count, repetitions))
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        mine, theirs = (
            samples([each.quantile(share) for each in own]),
            samples([each.quantile(share) for each in other]),
        )
        ratio = samples([far / near for near, far in zip(mine.values, theirs.values, strict=True)])
        is_judged = name == "p50"
        yield Line(
            f"progress to a client of another process, {database}, {name}",
            theirs.show("ms"),
            f"a client of the worker's own process {mine.show('ms')}",
            ratio.show("x"),
            f"<= {_MOST_TIMES_OWN_PROCESS} x" if is_judged else "",
            ratio.median <= _MOST_TIMES_OWN_PROCESS if is_judged else None,
        )


async def _latencies(url: str, count: int, repetitions: int) -> tuple[list[Samples], list[Samples]]:
    found: tuple[list[Samples], list[Samples]] = ([], [])
    with serve_durably(url, worker=True) as working, serve_durably(url) as watching:
        for _ in range(repetitions):
            async with _open_streams(working.port, 1) as near, _open_streams(watching.port, 1) as far:
                await _tick(working.port, count, 0.01)
                for stream, delays in zip([*near, *far], found, strict=True):
                    await stream.ticks(count)
                    delays.append(samples(stream.delays))
    return found


@dataclass(frozen=True)
class _Cost:
    """What a server spent: seconds of processor time for one event to every stream, and MiB."""

    per_event: float
    memory: float


def fan_out(url: str, streams: int, events: int) -> Iterator[Line]:
    """Yield what many open streams cost in memory, and one event to all of them in processor time."""
    one, all_ = asyncio.run(_fan_out(url, streams, events))
    yield Line(
        f"{streams:,} open streams: resident memory more than with one",
        f"{number(all_.memory - one.memory, 'MiB')} MiB",
        target=f"<= {_MOST_MEBIBYTES} MiB",
        reached=all_.memory - one.memory <= _MOST_MEBIBYTES,
    )
    yield Line(
        f"processor time of one event to {streams:,} streams (mean of {events})",
        f"{number(all_.per_event, 'ms')} ms",
        f"to one stream {number(one.per_event, 'ms')} ms",
        f"{number(all_.per_event / one.per_event, 'x')} x",
        f"<= {streams:,} x",
        all_.per_event / one.per_event <= streams,
    )


async def _fan_out(url: str, streams: int, events: int) -> tuple[_Cost, _Cost]:
    with serve_durably(url, worker=True) as working, serve_durably(url) as watching:
        async with _open_streams(watching.port, 1) as opened:
            one = await _cost(working, watching, opened, events)
            async with _open_streams(watching.port, streams - 1) as more:
                return one, await _cost(working, watching, [*opened, *more], events)


@asynccontextmanager
async def _open_streams(port: int, count: int) -> AsyncIterator[list[_Stream]]:
    async with AsyncExitStack() as closing:
        opened = []
        for _ in range(count):
            stream = await _Stream.open(port)
            closing.callback(stream.close)
            opened.append(stream)
        yield opened


async def _cost(working: Server, watching: Server, streams: list[_Stream], events: int) -> _Cost:
    before = watching.processor_time
    await asyncio.sleep(_QUIET_SECONDS)
    idle_share = (watching.processor_time - before) / _QUIET_SECONDS
    already = {stream: len(stream.delays) for stream in streams}
    before, started = watching.processor_time, time.monotonic()
    await _tick(working.port, events, 0.1)
    for stream, seen in already.items():
        await stream.ticks(seen + events)
    spent = watching.processor_time - before - idle_share * (time.monotonic() - started)
    return _Cost(spent / events, watching.memory)
