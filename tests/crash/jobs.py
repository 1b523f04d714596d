"""The jobs that are killed: each step tells the side file that it ran, each next line that its result is there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from durably import JobDefinition, StepContext, SyncStepContext, define_job
from tests.crash.fate import Fate
from tests.crash.ledger import Ledger

_RETRY_SECONDS = 0.005
_LINGER_SECONDS = 0.004


class Walk(TypedDict):
    """A number of steps, how large their results are, and how long they take."""

    steps: int
    pad: int
    pause: float


class Trace:
    """What the jobs leave in the side file, and where their process may die between two lines."""

    def __init__(self, ledger: Ledger, fate: Fate) -> None:
        self.ledger = ledger
        self._fate = fate

    def ran(self, step: StepContext | SyncStepContext, name: str, pad: int = 0) -> str:
        """Be the function of a step: tell that it was called, and return what no other call returns."""
        self.ledger.write("ran", step.run_id, name, step.attempt)
        self._fate.meet("in-step")
        return secrets.token_hex(8) + "." * pad

    def returned(self, step: StepContext | SyncStepContext, name: str, result: str) -> str:
        """Be the line after a step."""
        self._fate.meet("next-line")
        token = result[:16]
        self.ledger.write("returned", step.run_id, name, token)
        return token


def jobs_for(ledger: Ledger, fate: Fate) -> dict[str, JobDefinition[Any, Any]]:
    """Return the jobs, by attribute name, that write to a ledger."""
    trace = Trace(ledger, fate)
    return _async_walks(trace) | _plain_walk(trace) | _holders(trace)


def _async_walks(trace: Trace) -> dict[str, JobDefinition[Any, Any]]:
    @define_job(name="walk")
    async def walk(step: StepContext, input: Walk) -> list[str]:
        async def perform(name: str) -> str:
            await asyncio.sleep(input["pause"])
            return trace.ran(step, name, input["pad"])

        names = [f"step-{i}" for i in range(input["steps"])]
        return [trace.returned(step, name, await step.run(name, perform, name)) for name in names]

    @define_job(name="walk-wide")
    async def walk_wide(step: StepContext, input: Walk) -> list[str]:
        async def advance(name: str) -> str:
            return trace.returned(step, name, await step.run(name, trace.ran, step, name, input["pad"]))

        return await asyncio.gather(*[advance(f"step-{i}") for i in range(input["steps"])])

    return {"walk": walk, "walk_wide": walk_wide}


def _plain_walk(trace: Trace) -> dict[str, JobDefinition[Any, Any]]:
    @define_job(name="walk-plain")
    def walk_plain(step: SyncStepContext, input: Walk) -> list[str]:
        names = [f"step-{i}" for i in range(input["steps"])]
        return [trace.returned(step, name, step.run(name, trace.ran, step, name, input["pad"])) for name in names]

    return {"walk_plain": walk_plain}


def _holders(trace: Trace) -> dict[str, JobDefinition[Any, Any]]:
    """Return jobs that share keys: each holds the lock of its key while it executes."""

    async def linger(step: StepContext, name: str) -> str:
        result = trace.ran(step, name)
        await asyncio.sleep(_LINGER_SECONDS)
        return result

    async def hold(step: StepContext, input: str) -> list[str]:
        async with alone(trace.ledger, step, input):
            return [
                trace.returned(step, name, await step.run(name, linger, step, name)) for name in ("step-0", "step-1")
            ]

    return {f"hold_{letter}": define_job(name=f"hold-{letter}", run=hold) for letter in "abc"}


@asynccontextmanager
async def alone(ledger: Ledger, step: StepContext, place: str) -> AsyncIterator[None]:
    """Hold a lock that the kernel takes from a killed process; tell when another execution holds it already."""
    file = os.open(Path(place), os.O_RDWR | os.O_CREAT, 0o644)
    key = Path(place).name
    try:
        has_waited = False
        while not _lock(file):
            if not has_waited:
                ledger.write("overlap", key, step.run_id, step.attempt)
            has_waited = True
            await asyncio.sleep(_RETRY_SECONDS)
        ledger.write("entered", key, step.run_id, step.attempt)
        try:
            yield
        finally:
            ledger.write("left", key, step.run_id, step.attempt, "lost" if step.is_aborted() else "held")
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
