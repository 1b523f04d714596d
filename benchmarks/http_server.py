"""A web process: `python -m benchmarks.http_server URL [--worker] [--loop LOOP] [--http HTTP]`. Prints its port."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
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


def application(durably: Durably, *, has_worker: bool) -> Starlette:
    """Return the handler, mounted as in any application."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await (durably.init() if has_worker else durably.migrate())
        yield
        await durably.stop(timeout=0)
        await durably.close()

    return Starlette(routes=[Mount(BASE, create_durably_handler(durably, sse_throttle=0))], lifespan=lifespan)


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--worker", action="store_true", help="execute jobs, too")
    parser.add_argument("--loop", default="auto")
    parser.add_argument("--http", default="auto")
    options = parser.parse_args()
    durably = create_durably(database=options.url, jobs={"nothing": nothing, "ticks": ticks})
    app = application(durably, has_worker=options.worker)
    config = uvicorn.Config(
        app, port=0, loop=options.loop, http=options.http, log_level="warning", access_log=False, backlog=4096
    )
    _AnnouncingServer(config).run()


if __name__ == "__main__":
    main()
