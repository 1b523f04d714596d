"""The web process: uploads, the endpoints of durably, and the page. It executes no jobs.

python -m examples.fullstack.web PORT
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from examples.fullstack import tables
from examples.fullstack.app import durably
from examples.fullstack.settings import PAGE, SAMPLE
from fastapi import FastAPI, HTTPException, Request
from fastapi.staticfiles import StaticFiles

from durably import create_durably_handler

LARGEST_UPLOAD = 10_000_000
LONGEST_NAME = 200


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the database without starting a worker."""
    await durably.migrate()
    tables.create_tables()
    yield
    await durably.close()


app = FastAPI(title="Imports", lifespan=lifespan)
app.mount("/api/durably", create_durably_handler(durably))


@app.get("/api/files")
def list_files() -> list[dict[str, object]]:
    return [file.to_json() for file in tables.list_files()]


@app.post("/api/files", status_code=201)
async def upload(request: Request, name: str) -> dict[str, object]:
    """Take the file as the body of the request; `name` is what to call it."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_UPLOAD:
            raise HTTPException(413, f"{name} is too large: at most {LARGEST_UPLOAD // 1_000_000} MB are accepted.")
    return await _save(name, bytes(content))


@app.post("/api/files/sample", status_code=201)
async def use_sample() -> dict[str, object]:
    """Upload the sample that comes with the example."""
    return await _save(SAMPLE.name, SAMPLE.read_bytes())


async def _save(name: str, content: bytes) -> dict[str, object]:
    if not name or len(name) > LONGEST_NAME:
        raise HTTPException(400, f"The name of a file must have 1 to {LONGEST_NAME} characters.")
    try:
        return (await asyncio.to_thread(tables.save_file, name, content)).to_json()
    except tables.NotACsvError as error:
        raise HTTPException(400, str(error)) from error


# The page is built by whoever starts this; the endpoints work without it.
app.mount("/", StaticFiles(directory=PAGE, html=True, check_dir=False))


def main(port: int) -> None:
    """Serve; say where, once connections are taken."""
    # The protocol is named because asyncio sends small answers without delay only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        sys.exit(f"Cannot listen on port {port}: {error.strerror}. Choose another one with --port.")
    print(f"Open http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    # Event streams last as long as their pages: without a limit the server would wait for those to be closed.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]))
