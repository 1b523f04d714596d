"""Starlette: `uvicorn examples.http.starlette_app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError

from examples.http.jobs import durably
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from durably import ValidationError, create_durably_handler


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with durably:
        yield


async def start_import(request: Request) -> Response:
    try:
        run = await durably.jobs.import_csv.trigger(await request.json())
    except (UnicodeDecodeError, JSONDecodeError, ValidationError) as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    return JSONResponse({"run_id": run.id}, status_code=202)


app = Starlette(
    routes=[
        Route("/imports", start_import, methods=["POST"]),
        Mount("/api/durably", create_durably_handler(durably)),
    ],
    lifespan=lifespan,
)
