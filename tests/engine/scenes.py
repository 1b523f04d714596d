"""What the tests of the engine have in common: a job, and databases and workers that do not do as they should."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import Durably, StepContext, StoreError, define_job
from durably.core.leases import Claim
from durably.core.store import Store


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    """Log a line and take one step."""
    step.log.info("line")
    return await step.run("one", lambda: input)


async def fail(*args: Any, **kwargs: Any) -> Any:
    """Stand for a method of a store that is beyond help."""
    raise StoreError("damaged")


async def give_to_another(store: Store, run_id: str) -> None:
    """Let another worker hold a run that is held here."""
    run = await store.get_run(run_id)
    assert run is not None
    assert run.lease_owner is not None
    assert run.lease_expires_at is not None
    await store.release([Claim(run.id, run.lease_generation, run.lease_owner, run.lease_expires_at)])
    assert await store.claim("thief", [run.job_name], 1, 60)


async def poll(durably: Durably) -> None:
    """Let the worker look around once, as it does whenever jobs were registered."""
    durably.register({})
    await asyncio.sleep(0)
