"""Starlette: `uvicorn examples.http.starlette_app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.http.jobs import durably
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from durably import create_durably_handler


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with durably:
        yield


async def start_import(request: Request) -> Response:
    run = await durably.jobs.import_csv.trigger(await request.json())
    return JSONResponse({"run_id": run.id}, status_code=202)


app = Starlette(
    routes=[
        Route("/imports", start_import, methods=["POST"]),
        Mount("/api/durably", create_durably_handler(durably)),
    ],
    lifespan=lifespan,
)
