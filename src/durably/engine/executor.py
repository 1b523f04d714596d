"""One run that is leased, from its first line to its recorded end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from durably.core.clock import Clock
from durably.core.errors import DurablyError, LeaseLostError, StoreError, ValueRefusedError
from durably.core.events import RunCompleteEvent, RunFailEvent
from durably.core.jobs import JobDefinition
from durably.core.json_values import encode_json
from durably.core.leases import Claim
from durably.core.outcomes import Cancelled, Completed, Failed, LeaseLost, Outcome, Released
from durably.core.store import Store
from durably.engine.abort import AbortSignal
from durably.engine.error_messages import describe, sole_error, traceback_of
from durably.engine.event_hub import EventHub
from durably.engine.execution import Execution
from durably.engine.held_lease import HeldLease
from durably.engine.interruption import is_being_cancelled
from durably.engine.leased_store import LeasedStore
from durably.engine.step_context import context_for
from durably.engine.step_results import refused_result
from durably.engine.threads import Threads

log = logging.getLogger("durably")


class Executor:
    """Performs runs that were claimed."""

    def __init__(
        self,
        store: Store,
        jobs: Mapping[str, JobDefinition[Any, Any]],
        hub: EventHub,
        clock: Clock,
        threads: Threads,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._hub = hub
        self._clock = clock
        self._threads = threads

    async def execute(
        self, lease: HeldLease, job_returned: Callable[[], None], is_program_ending: Callable[[], bool]
    ) -> Outcome:
        """Execute the run of a lease and record how it ended.

        Calls `job_returned` when only the record of its end is left to be written. Where this task is cancelled,
        `is_program_ending` tells whether the program is ending: then the run has not failed.
        """
        store = LeasedStore(lease, self._store, self._hub)
        try:
            # A first attempt has no checkpoints: not looking for them saves most runs a read.
            checkpoints = {} if lease.claim.generation == 1 else await store.load_checkpoints()
        except StoreError as error:
            return await self._give_back(lease.claim, store, error)
        except DurablyError:
            if (ended := _why_aborted(lease.controller.signal)) is None:
                raise
            return ended
        if (ended := _why_aborted(lease.controller.signal)) is not None:
            # Cancelled or given back between the claim and now.
            return ended
        execution = Execution(lease, checkpoints, store, self._hub, self._clock, self._threads)
        try:
            outcome = await self._perform(execution, is_program_ending)
            execution.refuse_steps()
            job_returned()
            return await self._record(execution, outcome)
        finally:
            execution.close()

    async def _perform(self, execution: Execution, is_program_ending: Callable[[], bool]) -> Outcome:
        job = self._jobs[execution.run.job_name]
        outcome: Outcome
        try:
            output = await execution.perform(self._call(job, execution), in_thread=not job.is_async)
        except asyncio.CancelledError as cancelled:
            if execution.signal.unseen_reason is None and is_being_cancelled() and is_program_ending():
                raise
            # The job awaited something that was cancelled, or cancelled itself: an error like any other.
            outcome = _failed(execution, cancelled)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            if execution.loop_thread.loop.is_closed():
                # The garbage collector found what nobody awaits any more: it is no outcome.
                raise
            outcome = _failed(execution, raised)
        else:
            outcome = _completed(job, output)
        if isinstance(outcome, Failed) and is_being_cancelled() and is_program_ending():
            # The program is ending, and what the job made of that is no failure of it.
            outcome = Released()
        # Whatever the job made of being interrupted, what counts is why.
        return _ended_from_outside(execution) or outcome

    async def _call(self, job: JobDefinition[Any, Any], execution: Execution) -> Any:
        input_value = job.stored_input(execution.run)
        step = context_for(execution, is_async=job.is_async)
        if job.is_async:
            return await job.function(step, input_value)
        return await self._threads.call(job.function, step, input_value)

    async def _record(self, execution: Execution, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Completed | Failed):
            return outcome
        progress = await execution.progress.take_last()
        try:
            try:
                await execution.store.finish(outcome, progress, self._end_event(execution.lease, outcome))
            except ValueRefusedError as refusal:
                if isinstance(outcome, Failed):
                    raise
                outcome = Failed(str(refused_result("output", outcome.output_json, refusal)))
                await execution.store.finish(outcome, progress, self._end_event(execution.lease, outcome))
        except LeaseLostError:
            return LeaseLost()
        except StoreError:
            return Released()
        except DurablyError:
            return Cancelled()
        return outcome

    async def _give_back(self, claim: Claim, store: LeasedStore, error: StoreError) -> Outcome:
        store.tell(f"the checkpoints of run {claim.run_id} could not be read, it was given back: {error}")
        try:
            await self._store.release([claim])
        except StoreError:
            log.warning("run %s could not be given back either; it is free when its lease ends", claim.run_id)
        return Released()

    def _end_event(self, lease: HeldLease, outcome: Completed | Failed) -> RunCompleteEvent | RunFailEvent:
        run, now = lease.run, self._clock.now()
        about: dict[str, Any] = {"timestamp": now, "run_id": run.id, "job_name": run.job_name, "labels": run.labels}
        match outcome:
            case Completed():
                # Up to the claim by the clock of the database, which wrote both instants; since then by one that never
                # jumps. This machine's wall clock may differ from the first.
                before = (run.updated_at - (run.started_at or run.updated_at)).total_seconds()
                duration = max(0.0, before) + self._clock.monotonic() - lease.claimed_at
                return RunCompleteEvent(**about, output_json=outcome.output_json, duration=duration)
            case Failed():
                return RunFailEvent(**about, error=outcome.error, failed_step_name=outcome.failed_step_name)


def _ended_from_outside(execution: Execution) -> Outcome | None:
    if execution.store.error is not None:
        return Released()
    return _why_aborted(execution.signal)


def _why_aborted(signal: AbortSignal) -> Outcome | None:
    match signal.unseen_reason:
        case None:
            return None
        case "cancelled":
            return Cancelled()
        case "released":
            return Released()
        case "lease-lost":
            return LeaseLost()


def _completed(job: JobDefinition[Any, Any], output: Any) -> Outcome:
    try:
        if job.output is None:
            return Completed(None if output is None else encode_json(output, "output"))
        _, output_json = job.output.round_trip(job.output.validate(output, "output"), "output")
        return Completed(output_json)
    except Exception as error:  # noqa: BLE001 - whatever it is, a run that is never recorded is executed for ever
        return Failed(describe(error))


def _failed(execution: Execution, error: BaseException) -> Failed:
    if execution.signal.unseen_reason is None:
        # The run keeps the message only: where it came from is told here or nowhere. As text, for a handler that keeps
        # its records would keep with the error all that the run held.
        log.info("run %s of job %r failed\n%s", execution.run.id, execution.run.job_name, traceback_of(error))
    failed = execution.failed_step
    step_name = failed[1] if failed is not None and failed[0] is sole_error(error) else ""
    return Failed(describe(error), step_name)
