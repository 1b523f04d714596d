"""Instances for tests: a database in memory, runs executed to their end at the test's word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from typing_extensions import Unpack

from durably.app import Durably, create_durably
from durably.core.clock import Clock
from durably.core.errors import NotFoundError, RunCancelledError, RunFailedError
from durably.core.jobs import InputT, JobDefinition, OutputT
from durably.core.runs import Run, RunStatus
from durably.options import InstanceOptions, TriggerOptions


class InMemoryOptions(InstanceOptions, total=False):
    """What `in_memory` passes on to `create_durably`."""


@asynccontextmanager
async def in_memory(
    jobs: Mapping[str, JobDefinition[Any, Any]] | None = None,
    *,
    clock: Clock | None = None,
    worker: bool = False,
    **options: Unpack[InMemoryOptions],
) -> AsyncIterator[Durably]:
    """Give an instance on a database in memory, migrated; it is stopped and closed at the end.

    Without `worker` nothing runs until the test says so: with `run_until_idle`, `process_one` or
    `process_until_idle`. With `worker=True` it behaves as in production. `clock` is mostly a `FakeClock`;
    the other options are those of `create_durably`, whose `ValidationError` it raises.

    >>> async with in_memory({"import_csv": import_csv}) as durably:
    ...     run = await run_until_idle(durably, import_csv, {"filename": "a.csv"})
    """
    durably = create_durably(database="sqlite://:memory:", jobs=jobs, clock=clock, **options)
    try:
        await durably.migrate()
        if worker:
            await durably.start()
        yield durably
    except BaseException:
        # The test has failed: its jobs may wait for ever for what it was about to do.
        await durably.stop(timeout=0)
        raise
    else:
        await durably.stop()
    finally:
        await durably.close()


async def run_until_idle(
    durably: Durably,
    job: JobDefinition[InputT, OutputT],
    input: InputT | dict[str, Any],
    **options: Unpack[TriggerOptions],
) -> Run[OutputT]:
    """Trigger a run, execute everything that can be executed, and return the run as it is then.

    A job that fails does not raise: look at `run.status` and `run.error`. A run whose concurrency key is held stays
    pending; one that a worker of the instance has taken, or a call of this at the same time, is waited for.
    The options are those of `trigger`, and so are the errors; `NotFoundError` when a job deleted the run meanwhile.

    >>> run = await run_until_idle(durably, import_csv, {"filename": "a.csv"}, labels={"org": "a"})
    >>> assert (run.status, run.output.count) == ("completed", 3)
    """
    handle = durably.get_job(job)
    triggered = await handle.trigger(input, **options)
    await durably.process_until_idle()
    run = await handle.get_run(triggered.id)
    if run is not None and run.status is RunStatus.LEASED and durably.executes(run.id):
        with suppress(RunFailedError, RunCancelledError):
            await durably.wait_for_run(run.id)
        run = await handle.get_run(triggered.id)
    if run is None:
        raise NotFoundError("run", triggered.id)
    return run
