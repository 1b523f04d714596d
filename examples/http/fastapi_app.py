"""FastAPI: `uvicorn examples.http.fastapi_app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.http.jobs import ImportCsv, durably
from fastapi import FastAPI

from durably import create_durably_handler


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with durably:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/api/durably", create_durably_handler(durably))


@app.post("/imports", status_code=202)
async def start_import(upload: ImportCsv) -> dict[str, str]:
    run = await durably.jobs.import_csv.trigger(upload)
    return {"run_id": run.id}
