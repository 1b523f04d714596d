"""An instance with jobs that tests can steer, served by the handler below `/api/durably`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from durably import Durably, JobDefinition, StepContext, create_durably_handler, define_job
from tests.conftest import Gate, OpenDurably
from tests.http.asgi import Client


class Greeting(BaseModel):
    name: str


class Greeted(BaseModel):
    text: str


@define_job(name="greet")
async def greet(step: StepContext, input: Greeting) -> Greeted:
    step.log.info("greeting", {"name": input.name})
    text = await step.run("compose", lambda: f"hello {input.name}")
    step.progress(1, 1, "done")
    return Greeted(text=text)


@define_job(name="echo")
async def echo(step: StepContext, input: Any) -> Any:
    return input


@define_job(name="fail")
async def fail(step: StepContext, input: Any) -> None:
    def break_down() -> None:
        raise RuntimeError("it broke")

    await step.run("break", break_down)


class Gates:
    """One door per run of the job `gated`, by the name that its input gives."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __getitem__(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate())

    def job(self) -> JobDefinition[str, str]:
        @define_job(name="gated")
        async def gated(step: StepContext, input: str) -> str:
            await step.run("wait", self[input].pass_through)
            return input

        return gated


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
async def durably(open_durably: OpenDurably, gates: Gates) -> Durably:
    """An instance that executes what is triggered."""
    return await open_durably(greet, echo, fail, gates.job(), start=True, polling_interval=0.05)


def mounted(durably: Durably, **options: Any) -> Client:
    """Return a client of the handler with these options, mounted in an application."""
    return Client(Starlette(routes=[Mount("/api/durably", create_durably_handler(durably, **options))]))


@pytest.fixture
def client(durably: Durably) -> Client:
    return mounted(durably)


Ended = Callable[[str], Awaitable[Any]]


@pytest.fixture
def ended(durably: Durably) -> Ended:
    """Return a run once it has completed."""

    async def wait(run_id: str) -> Any:
        return await durably.wait_for_run(run_id, timeout=30)

    return wait
