"""Where there are no threads and one connection, as in a browser: everything runs in turns."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from durably import StepContext, create_durably, define_job
from tests.conftest import PATIENCE_SECONDS, Events, Gate


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return [await step.run(f"step-{n}", lambda n=n: n) for n in range(3)]


class TestWithoutThreads:
    async def test_jobs_run_leases_are_renewed_and_no_thread_is_made(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L2, D3: renewal runs in the loop, commits in place, plain steps on the loop."""
        monkeypatch.setattr(sys, "platform", "emscripten")
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> str:
            await gate.pass_through()
            return "done"

        before = threading.active_count()
        async with create_durably(
            database=database, jobs={"job": job, "held": held}, lease_duration=1, lease_renew_interval=0.05
        ) as durably:
            events = Events(durably)
            run = await durably.jobs.held.trigger(None)
            await gate.reached()
            await events.until("run:lease-renewed", 2)
            assert (await durably.jobs.job.trigger_and_wait(None, timeout=PATIENCE_SECONDS)).output == [0, 1, 2]
            gate.open()
            assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == "done"
            assert len(await durably.get_runs()) == 2
            await durably.storage.maintain(idle=True)
            assert threading.active_count() == before
