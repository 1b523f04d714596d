"""A client for ASGI applications in the same event loop: single requests, and event streams while they run."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from tests.conftest import PATIENCE_SECONDS

Application = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]


@dataclass
class Answer:
    """What came back of a request."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        assert self.headers["content-type"] == "application/json"
        assert list(self.body) == ["error"]
        return self.body["error"]


@dataclass
class SentEvent:
    """One event as an EventSource gives it: its data, and the id in force after it."""

    data: dict[str, Any]
    last_event_id: str

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    @property
    def type(self) -> str:
        return self.data["type"]


class Stream:
    """An event stream that one client reads, at the pace of the client."""

    def __init__(self, application: Application, scope: dict[str, Any]) -> None:
        self.events: list[SentEvent] = []
        self.comments: list[str] = []
        self.last_event_id = ""
        self.retry_milliseconds = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._rest = ""
        self._reads = asyncio.Event()
        self._reads.set()
        self._changed = asyncio.Event()
        self._from_client: asyncio.Queue[Message] = asyncio.Queue()
        self._from_client.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self._serving = asyncio.create_task(application(scope, self._from_client.get, self._send))

    async def __aenter__(self) -> Self:
        await self.until(lambda: self.status)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        """Leave, as the server tells the application, and return when the application is done with it."""
        self._reads.set()
        self._from_client.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._serving

    def stop_reading(self) -> None:
        """Be a client that takes nothing more: the server's `send` waits, as it does when buffers are full."""
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    async def until(self, condition: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise AssertionError(f"it did not come; so far: {self.types()}, {self._serving}") from error

    async def until_event(self, event_type: str, **fields: Any) -> SentEvent:
        """Return the first event of a type with these fields, once it has come."""

        def found() -> list[SentEvent]:
            wanted = {"type": event_type, **fields}
            return [event for event in self.events if wanted.items() <= event.data.items()]

        await self.until(found)
        return found()[0]

    async def until_end(self) -> list[SentEvent]:
        """Return all events, once the server has ended the stream."""
        await self.until(lambda: self.ended)
        return self.events

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def _send(self, message: Message) -> None:
        await self._reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self._feed(message["body"].decode())
            self.ended = not message.get("more_body", False)
        self._changed.set()

    def _feed(self, text: str) -> None:
        *blocks, self._rest = (self._rest + text).split("\n\n")
        for block in blocks:
            data = []
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "":
                    self.comments.append(value)
                elif name == "id":
                    self.last_event_id = value
                elif name == "retry":
                    self.retry_milliseconds = int(value)
                else:
                    assert name == "data", f"a field that no client expects: {line}"
                    data.append(value)
            if data:
                self.events.append(SentEvent(json.loads("\n".join(data)), self.last_event_id))


@dataclass
class Client:
    """Talks to an ASGI application below a base path."""

    application: Application
    base: str = "/api/durably"
    headers: dict[str, str] = field(default_factory=dict)
    spec_version: str = "2.3"
    scope: dict[str, Any] = field(default_factory=dict)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, json=json, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.request("DELETE", path, **options)

    async def trigger(self, job: str, input: Any, **body: Any) -> str:
        """Trigger a run and return its id."""
        answer = await self.post("/trigger", {"jobName": job, "input": input, **body})
        assert answer.status == 200, answer.text
        return answer.body["runId"]

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        stops: bool = False,
    ) -> Answer:
        """Send a request and return its answer; one that `stops` announces more of its body and sends nothing more."""
        content = body if body is not None else b"" if json is None else encode(json)
        messages: list[Message] = [{"type": "http.request", "body": content, "more_body": stops}]
        sent: list[Message] = []

        async def receive() -> Message:
            if stops and not messages:
                await asyncio.Event().wait()
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.application(self.request_scope(method, path, headers), receive, send)
        start, *rest = sent
        answered = {name.decode(): value.decode() for name, value in start["headers"]}
        body = b"".join(message.get("body", b"") for message in rest)
        text = gzip.decompress(body) if answered.get("content-encoding") == "gzip" else body
        return Answer(start["status"], answered, text.decode())

    def stream(self, path: str, *, headers: dict[str, str] | None = None) -> Stream:
        """Open an event stream; as a context manager it is open inside and left on exit."""
        return Stream(self.application, self.request_scope("GET", path, headers))

    def resume(self, path: str, last_event_id: str) -> Stream:
        """Open an event stream as a client does that was here before."""
        return self.stream(path, headers={"last-event-id": last_event_id})

    def request_scope(self, method: str, path: str, headers: dict[str, str] | None) -> dict[str, Any]:
        path, _, query = path.partition("?")
        sent = {"host": "testserver", **self.headers, **(headers or {})}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self.spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": self.base + path,
            "raw_path": quote(self.base + path).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
            **self.scope,
        }


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()
