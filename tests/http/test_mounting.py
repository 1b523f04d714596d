"""The handler inside applications, alone, and inside a route of one's own."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from durably import Durably, create_durably, create_durably_handler
from tests.conftest import OpenDurably
from tests.http.asgi import Client
from tests.http.conftest import echo


@pytest.fixture
async def durably(open_durably: OpenDurably) -> Durably:
    """An instance without a worker."""
    return await open_durably(echo)


async def works(client: Client) -> None:
    """A request, a stream and an unknown path below the client's base."""
    async with client.stream("/runs/subscribe") as stream:
        run_id = await client.trigger("echo", 1)
        await stream.until_event("run:trigger", runId=run_id)
    assert (await client.get(f"/run?runId={run_id}")).body["id"] == run_id
    assert (await client.get("/nope")).text == "Not Found"


async def test_mounted_in_fastapi(durably: Durably) -> None:
    app = FastAPI()
    app.mount("/api/durably", create_durably_handler(durably))

    await works(Client(app))


async def test_mounted_behind_a_proxy_that_takes_its_prefix_away(durably: Durably) -> None:
    """The application has its prefix as its root path, and the path that arrives has it not."""
    app = Starlette(routes=[Mount("/api/durably", create_durably_handler(durably))])
    prefixed = {"root_path": "/prefix"}

    await works(Client(app, base="/api/durably", scope=prefixed))
    await works(Client(app, base="/prefix/api/durably", scope=prefixed))
    document = (await Client(app, base="/api/durably", scope=prefixed).get("/openapi.json")).body
    assert document["servers"] == [{"url": "/prefix/api/durably"}]


async def test_mounted_in_a_mounted_application(durably: Durably) -> None:
    inner = Starlette(routes=[Mount("/durably", create_durably_handler(durably))])

    await works(Client(Starlette(routes=[Mount("/api", inner)])))


async def test_alone(durably: Durably) -> None:
    await works(Client(create_durably_handler(durably), base=""))


async def test_alone_behind_a_proxy_that_says_its_prefix(durably: Durably) -> None:
    """Servers differ in whether the path holds the root path."""
    handler = create_durably_handler(durably)

    await works(Client(handler, base="", scope={"root_path": "/api/durably"}))
    await works(Client(handler, base="/api/durably", scope={"root_path": "/api/durably"}))


async def test_its_openapi_document_says_where_it_is_served(durably: Durably) -> None:
    """A client that is generated from the document sends its requests to the handler, not to the root of the host."""
    handler = create_durably_handler(durably)

    async def route(request: Request) -> Response:
        return await handler.handle(request, "/api/durably")

    clients = {
        "/": Client(handler, base=""),
        "/api/durably": Client(Starlette(routes=[Mount("/api/durably", handler)])),
        "/api": Client(handler, base="", scope={"root_path": "/api"}),
        "/prefix/api/durably": Client(
            Starlette(routes=[Mount("/prefix", Starlette(routes=[Route("/api/durably/{path:path}", route)]))]),
            base="/prefix/api/durably",
        ),
    }
    documents = {where: (await client.get("/openapi.json")).body for where, client in clients.items()}

    assert {where: document["servers"] for where, document in documents.items()} == {
        where: [{"url": where}] for where in clients
    }


async def test_behind_the_usual_middleware(durably: Durably) -> None:
    """Compression does not hold events back, and a client that leaves is noticed through all of it."""

    class Timing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    app = Starlette(
        routes=[Mount("/api/durably", create_durably_handler(durably))],
        middleware=[Middleware(Timing), Middleware(GZipMiddleware, minimum_size=1), Middleware(CORSMiddleware)],
    )

    await works(Client(app))
    await works(Client(app, headers={"accept-encoding": "gzip", "origin": "https://app.example.com"}))
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("durably-stream")]


@pytest.mark.parametrize("base_path", ["/api/durably", "/api/durably/"])
async def test_inside_a_route(durably: Durably, base_path: str) -> None:
    handler = create_durably_handler(durably)

    async def route(request: Request) -> Response:
        return await handler.handle(request, base_path)

    routes = [Route("/api/{path:path}", route, methods=["GET", "POST", "DELETE"])]

    await works(Client(Starlette(routes=routes)))
    await works(Client(Starlette(routes=[Mount("/app", routes=routes)]), base="/app/api/durably"))


async def test_inside_a_fastapi_route(durably: Durably) -> None:
    handler = create_durably_handler(durably)
    app = FastAPI()

    @app.api_route("/api/durably/{path:path}", methods=["GET", "POST", "DELETE"], response_model=None)
    async def route(request: Request) -> Response:
        return await handler.handle(request, "/api/durably")

    await works(Client(app))


@pytest.mark.parametrize("path", ["/runs", "/subscribe?runId={run_id}", "/subscribe?runId=nobody"])
async def test_what_a_response_is_to_do_afterwards_is_done(durably: Durably, path: str) -> None:
    """As with any other response of Starlette, a stream included."""
    run = await durably.jobs.echo.trigger(1)
    await durably.process_until_idle()
    handler, done = create_durably_handler(durably), []

    async def route(request: Request) -> Response:
        response = await handler.handle(request, "")
        response.background = BackgroundTask(done.append, request.url.path)
        return response

    await Client(Starlette(routes=[Route("/{path:path}", route)]), base="").get(path.format(run_id=run.id))

    assert done == [path.partition("?")[0]]


async def test_a_path_that_is_not_below_the_base_path(durably: Durably) -> None:
    handler = create_durably_handler(durably)

    async def route(request: Request) -> Response:
        return await handler.handle(request, "/elsewhere")

    client = Client(Starlette(routes=[Route("/{path:path}", route)]), base="")

    assert (await client.get("/runs")).status == 404
    assert (await client.get("/elsewhere")).status == 404
    assert (await client.get("/elsewherever/runs")).status == 404
    assert (await client.get("/elsewhere/runs")).status == 200


async def test_a_response_that_is_never_sent_holds_nothing(durably: Durably) -> None:
    """A middleware may drop the response of `handle`: a stream opens only when it is sent."""
    handler = create_durably_handler(durably)
    request = Request(Client(handler, base="").request_scope("GET", "/runs/subscribe", None))

    await handler.handle(request, "")

    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("durably-stream")]


async def test_alone_it_starts_and_stops_the_instance(database: str) -> None:
    """A server of the handler alone is a worker too: migrated and started before the first request."""
    durably = create_durably(database=database, jobs={"echo": echo})
    started = asyncio.Event()

    async def receive() -> dict[str, str]:
        if not started.is_set():
            started.set()
            return {"type": "lifespan.startup"}
        run = await durably.jobs.echo.trigger("hello")
        assert (await durably.wait_for_run(run.id, timeout=30)).output == "hello"
        return {"type": "lifespan.shutdown"}

    sent: list[str] = []

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await create_durably_handler(durably)({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_alone_on_a_database_that_cannot_be_opened(tmp_path) -> None:
    """The server is told why, and does not start."""
    durably = create_durably(database=f"sqlite:///{tmp_path}/no/such/folder/jobs.db", jobs={"echo": echo})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await create_durably_handler(durably)({"type": "lifespan"}, receive, send)

    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "no/such/folder" in sent[0]["message"]


async def test_a_websocket_is_closed(durably: Durably) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await create_durably_handler(durably)({"type": "websocket"}, None, send)

    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_importing_durably_imports_no_web_framework() -> None:
    """api.md: `import durably` must not need what an extra brings; the names are there when asked for."""
    script = """
import sys, durably
assert "starlette" not in sys.modules and "anyio" not in sys.modules
from durably import AuthConfig, CreateDurablyHandlerOptions, DurablyHandler, Reject, create_durably_handler
assert "starlette" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_starlette_the_error_names_the_extra() -> None:
    script = """
import sys
sys.modules["starlette"] = None
import durably
try:
    durably.create_durably_handler
except ImportError as error:
    print(error)
assert not hasattr(durably, "no_such_name")
from durably import *
assert create_durably is durably.create_durably
"""
    shown = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)

    assert "pip install 'durably[http]'" in shown.stdout
