"""For pages in browsers that sign in with a cookie, one of them on another origin: CORS, CSRF, one's own runs only.

`uvicorn examples.http.browser_app:app`
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.http.jobs import durably
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Mount

from durably import AuthConfig, Run, RunFilter, RunOperation, TriggerRequest, create_durably_handler

PAGES = os.environ.get("PAGE_ORIGINS", "https://app.example.com").split(",")
SESSIONS = {"cookie-of-ada": "ada", "cookie-of-bob": "bob"}


def authenticate(request: Request) -> str:
    """Return the user of the session cookie, for requests that our own pages made."""
    refuse_foreign_pages(request)
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        raise HTTPException(401, "Please sign in")
    return user


def refuse_foreign_pages(request: Request) -> None:
    """CSRF: a browser sends the cookie along whoever's page it shows, but it says whose page that is."""
    origin = request.headers.get("origin")
    if origin is None:
        is_foreign = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    else:
        is_foreign = origin not in (f"{request.url.scheme}://{request.headers.get('host')}", *PAGES)
    if is_foreign:
        raise HTTPException(403, "This page may not use the API")


def on_trigger(user: str, trigger: TriggerRequest) -> None:
    if (trigger["labels"] or {}).get("user") != user:
        raise HTTPException(403, "Label the run with your own name")


def on_run_access(user: str, run: Run, _operation: RunOperation) -> None:
    if run.labels.get("user") != user:
        raise HTTPException(404, "Run not found")


def scope_runs(user: str, wanted: RunFilter) -> RunFilter:
    return {**wanted, "labels": {**(wanted.get("labels") or {}), "user": user}}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with durably:
        yield


auth = AuthConfig(authenticate=authenticate, on_trigger=on_trigger, on_run_access=on_run_access, scope_runs=scope_runs)
app = Starlette(
    routes=[Mount("/api/durably", create_durably_handler(durably, auth=auth))],
    middleware=[
        Middleware(
            CORSMiddleware,
            allow_origins=PAGES,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["content-type", "last-event-id"],
            allow_credentials=True,
        )
    ],
    lifespan=lifespan,
)
