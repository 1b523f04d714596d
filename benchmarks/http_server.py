"""A web process: `python -m benchmarks.http_server [URL] [--worker] [--loop LOOP] [--http HTTP]`. Prints its port."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any, Final

import uvicorn
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from durably import Durably, StepContext, create_durably, create_durably_handler, define_job

BASE: Final = "/api/durably"


class Number(TypedDict):
    n: int


class Ticks(TypedDict):
    count: int
    pause: float


@define_job(name="nothing")
async def nothing(step: StepContext, input: Number) -> None:
    """Never executed where requests are counted: no worker runs there."""


@define_job(name="ticks")
async def ticks(step: StepContext, input: Ticks) -> None:
    """Tell `count` times, every `pause` seconds, what the clock that all processes share says."""
    for tick in range(input["count"]):
        await asyncio.sleep(input["pause"])
        step.progress(tick + 1, input["count"], f"{time.monotonic():.6f}")


class Application:
    """The handler under a path, and the life of its instance. No framework: the TypeScript handler has none either."""

    def __init__(self, durably: Durably, *, has_worker: bool) -> None:
        self._durably = durably
        self._has_worker = has_worker
        self._handler = create_durably_handler(durably, sse_throttle=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._handler({**scope, "root_path": BASE}, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await (self._durably.init() if self._has_worker else self._durably.migrate())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._durably.stop(timeout=0)
        await self._durably.close()
        await send({"type": "lifespan.shutdown.complete"})


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing else, to show what the server below costs."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the database; without one every request is answered at once", nargs="?")
    parser.add_argument("--worker", action="store_true", help="execute jobs, too")
    parser.add_argument("--loop", default="auto")
    parser.add_argument("--http", default="auto")
    options = parser.parse_args()
    app: Any = answer_at_once
    if options.url is not None:
        durably = create_durably(database=options.url, jobs={"nothing": nothing, "ticks": ticks})
        app = Application(durably, has_worker=options.worker)
    config = uvicorn.Config(
        app,
        port=0,
        loop=options.loop,
        http=options.http,
        lifespan="off" if options.url is None else "on",
        log_level="warning",
        access_log=False,
        backlog=4096,
    )
    _AnnouncingServer(config).run()


if __name__ == "__main__":
    main()
