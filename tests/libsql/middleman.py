"""Stands between the store and the server: counts requests, holds them up, loses answers, answers itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """What the store sent."""

    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def kinds(self) -> list[str]:
        return [request["type"] for request in self.body["requests"]]

    @property
    def sql(self) -> str:
        """All its SQL, to tell requests apart."""
        first = self.body["requests"][0]
        stmts = [step["stmt"] for step in first["batch"]["steps"]] if first["type"] == "batch" else [first["stmt"]]
        return "\n".join(stmt["sql"] for stmt in stmts)


@dataclass
class Answer:
    """What the middleman says instead of the server."""

    status: int
    body: str
    content_type: str = "text/plain"


@dataclass
class Middleman:
    """Passes requests on unless told otherwise."""

    upstream_port: int
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer | None] = lambda request: None
    """Says what to answer instead of asking the server."""
    loses: Callable[[Request], bool] = lambda request: False
    """Tells whether the server does what it is asked, and its answer is lost on the way."""
    holds: Callable[[Request], asyncio.Event | None] = lambda request: None
    """Says what the server's answer to a request waits for."""
    wants_streams_closed: bool = False
    may_pass: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_pass.set()

    @property
    def asked(self) -> list[Request]:
        """The requests but for the looks now and then at what others have told."""
        return [each for each in self.requests if not each.sql.strip().startswith("-- What other processes have told")]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head, body = await _read_message(reader)
            request = Request(_headers(head), json.loads(body))
            self.requests.append(request)
            await self.may_pass.wait()
            answer = self.answer(request)
            if answer is not None:
                writer.write(_response(answer))
            else:
                said = await self._ask(request)
                if (until := self.holds(request)) is not None:
                    await until.wait()
                if not self.loses(request):
                    writer.write(said)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            # The store or the server has gone; a test of that looks at the store.
            pass
        finally:
            writer.close()

    async def _ask(self, request: Request) -> bytes:
        requests = request.body["requests"]
        if self.wants_streams_closed:
            assert requests[-1] == {"type": "close"}, "the stream stays open"
            requests = requests[:-1]
        body = json.dumps({"requests": requests}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        writer.write(b"POST /v2/pipeline HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        try:
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def middleman(upstream_port: int) -> AsyncIterator[Middleman]:
    between = Middleman(upstream_port)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        between.may_pass.set()
        server.close()
        await server.wait_closed()


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(int(_headers(head)["content-length"]))


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _response(answer: Answer) -> bytes:
    body = answer.body.encode()
    head = (
        f"HTTP/1.1 {answer.status} Said\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
