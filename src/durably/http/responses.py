"""The response that is an event stream: it ends, and frees everything, the moment the client is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from durably.core.errors import StoreError
from durably.http.event_stream import EventStream
from durably.http.problems import response_to
from durably.tasks import begin_task

log = logging.getLogger("durably.http")

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx would collect events until its buffer is full.
    "x-accel-buffering": "no",
}


class EventStreamResponse(Response):
    """Opens the stream when the server asks for it, so that a response nobody sends holds nothing."""

    def __init__(self, open_stream: Callable[[], Awaitable[EventStream]]) -> None:
        super().__init__(status_code=200, headers=_HEADERS)
        del self.headers["content-length"]
        self._open_stream = open_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends or the client leaves."""
        try:
            stream = await self._open_stream()
        except Exception as error:  # noqa: BLE001 - nothing is sent yet, so the client can be told
            await response_to(error)(scope, receive, send)
            return
        try:
            await self._serve(stream, receive, send)
        finally:
            stream.close()
        if self.background is not None:
            await self.background()

    async def _serve(self, stream: EventStream, receive: Receive, send: Send) -> None:
        # What tells that a client left differs between versions of ASGI: a message in all, an error of
        # `send` from 2.4 on. Only the message comes while there is nothing to send.
        sending = begin_task(self._send(stream, send), "durably-stream")
        leaving = begin_task(_disconnected(receive), "durably-stream-disconnect")
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending, leaving))
        if not sending.cancelled():
            sending.result()

    async def _send(self, stream: EventStream, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(stream.frames()) as frames:
                async for frame in frames:
                    await send({"type": "http.response.body", "body": frame.encode(), "more_body": True})
                    # Neither a page of the log nor a fast client makes the loop wait for anything.
                    await asyncio.sleep(0)
        except OSError:
            return
        except StoreError as error:
            # The client comes again, with the id of what it got last.
            log.warning("an event stream ended, the database cannot be read: %s", error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
