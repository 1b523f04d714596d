"""Serves the mounts and jobs of the wire contract: `python -m tests.contract.server --port 0`.

The first line it prints is `listening on http://127.0.0.1:PORT`.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount

from durably import (
    AuthConfig,
    Durably,
    Reject,
    Run,
    RunFilter,
    RunOperation,
    RunsSubscribeFilter,
    TriggerRequest,
    create_durably,
    create_durably_handler,
    with_log_persistence,
)
from tests.contract.jobs import JOBS, Labels

_ORGANIZATION = "organizationId"
_POLLING_SECONDS = 0.05


def ask_backend(organization: str) -> str:
    if organization == "explode":
        raise RuntimeError("auth backend unavailable")
    return organization


def authenticate(request: Request) -> str:
    organization = request.headers.get("x-org", "")
    if not organization:
        raise HTTPException(401, "Unauthorized")
    try:
        return ask_backend(organization)
    except RuntimeError as error:
        # Of this scenario the recording has the error's text, and `check.py` knows no other answer. A text like
        # that must not leave a server, so the handler says "Internal server error" (tests/http/test_auth.py) and
        # it is this application that answers as the recording does.
        raise Reject(JSONResponse({"error": str(error)}, 500)) from error


def on_trigger(organization: str, trigger: TriggerRequest) -> None:
    if (trigger["labels"] or {}).get(_ORGANIZATION) != organization:
        raise HTTPException(403, "Forbidden")


def on_run_access(organization: str, run: Run, operation: RunOperation) -> None:
    if run.labels.get(_ORGANIZATION) != organization:
        raise HTTPException(403, "Forbidden")


def scope_runs(organization: str, wanted: RunFilter) -> RunFilter:
    return {**wanted, "labels": {**(wanted.get("labels") or {}), _ORGANIZATION: organization}}


def scope_runs_subscribe(organization: str, wanted: RunsSubscribeFilter) -> RunsSubscribeFilter:
    return {**wanted, "labels": {**(wanted.get("labels") or {}), _ORGANIZATION: organization}}


def application(database: str, kept_database: str) -> Starlette:
    """Return the four mounts on two instances, which live as long as the server."""
    first = create_durably(database=database, jobs=JOBS, polling_interval=_POLLING_SECONDS)
    kept = create_durably(
        database=kept_database, jobs=JOBS, polling_interval=_POLLING_SECONDS, preserve_steps=True, labels=Labels
    )
    first.use(with_log_persistence())
    kept.use(with_log_persistence())
    auth = AuthConfig(
        authenticate=authenticate,
        on_trigger=on_trigger,
        on_run_access=on_run_access,
        scope_runs=scope_runs,
        scope_runs_subscribe=scope_runs_subscribe,
    )
    scoping = AuthConfig(authenticate=authenticate, scope_runs=scope_runs)
    return Starlette(
        routes=[
            Mount("/api/durably", create_durably_handler(first)),
            Mount("/auth/api/durably", create_durably_handler(first, auth=auth)),
            Mount("/scoped/api/durably", create_durably_handler(first, auth=scoping)),
            Mount("/keep/api/durably", create_durably_handler(kept, sse_throttle=0)),
        ],
        lifespan=_living(first, kept),
    )


def _living(*instances: Durably):
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for durably in instances:
            await durably.init()
        yield
        for durably in instances:
            await durably.stop(timeout=0)
            await durably.close()

    return lifespan


def _serve(app: Starlette, port: int) -> None:
    # The protocol is named because asyncio turns off Nagle's delay only for sockets that say they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    # Connections are queued from here on, so whoever reads the line may use the address at once.
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201 - its first line
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 for any free port")
    parser.add_argument("--database", help="URL of instance A's database (default: a temporary file)")
    parser.add_argument("--kept-database", help="URL of instance B's database (default: a temporary file)")
    options = parser.parse_args()
    # The server ends by the signal that it was sent, and the folder is to be removed before that.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="durably-contract-") as folder:
        database = options.database or f"sqlite:///{Path(folder) / 'first.db'}"
        kept_database = options.kept_database or f"sqlite:///{Path(folder) / 'kept.db'}"
        _serve(application(database, kept_database), options.port)


if __name__ == "__main__":
    main()
