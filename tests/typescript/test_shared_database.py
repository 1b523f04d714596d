"""D1: the web application in TypeScript, the work in Python, one database: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import time

import pytest
from typing_extensions import TypedDict

from durably import AbortSignal, RunStatus, StepContext, define_job, with_log_persistence
from durably.core.errors import RunCancelledError, RunFailedError
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably
from tests.typescript.conftest import StartTypeScript


class ImportCsv(TypedDict):
    filename: str


class Imported(TypedDict):
    count: int


@define_job(name="import-csv")
async def import_csv(step: StepContext, input: ImportCsv) -> Imported:
    """Has a step, progress and a log line, as the TypeScript side will read them."""
    count = await step.run("count", lambda: len(input["filename"]))
    step.progress(1, 1, "counted")
    step.log.info("imported", {"count": count})
    return Imported(count=count)


class TestEitherSideMakesTheDatabase:
    async def test_typescript_opens_what_python_made(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        python = await open_durably(import_csv)
        finished = await python.jobs.import_csv.trigger({"filename": "a.csv"}, labels={"org": "ä"})
        await python.process_until_idle()

        typescript = await start_typescript()
        await typescript.do("migrate")

        run = await typescript.do("getRun", finished.id)
        assert (run["status"], run["output"], run["labels"]) == ("completed", {"count": 5}, {"org": "ä"})

    async def test_python_opens_what_typescript_made(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        typescript = await start_typescript()
        await typescript.do("migrate")
        triggered = await typescript.do("trigger", {"filename": "a.csv"})

        python = await open_durably(import_csv)
        assert await python.process_until_idle() == 1

        run = await python.get_run(triggered["id"])
        assert run is not None
        assert (run.status, run.output) == (RunStatus.COMPLETED, {"count": 5})
        # And what Python added is no hindrance to the next start over there.
        await typescript.do("migrate")
        assert (await typescript.do("getRun", triggered["id"]))["status"] == "completed"


class TestTypeScriptTriggersPythonExecutes:
    async def test_typescript_waits_for_the_output(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        await open_durably(import_csv, start=True)
        typescript = await start_typescript()

        triggered = await typescript.do("trigger", {"filename": "data.csv"})
        run = await typescript.do("waitForRun", triggered["id"])

        assert (run["status"], run["output"], run["completedStepCount"]) == ("completed", {"count": 8}, 1)

    async def test_typescript_reads_steps_logs_progress_and_timestamps(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        python = await open_durably(import_csv, preserve_steps=True)
        python.use(with_log_persistence())
        typescript = await start_typescript()
        triggered = await typescript.do("trigger", {"filename": "a.csv"}, {"labels": {"org": "a"}})

        await python.process_until_idle()
        await python.stop()

        run = await typescript.do("getRun", triggered["id"])
        (step,) = await typescript.do("getSteps", triggered["id"])
        (line,) = await typescript.do("getLogs", triggered["id"])
        assert run["progress"] == {"current": 1, "total": 1, "message": "counted"}
        assert (step["name"], step["index"], step["status"], step["output"]) == ("count", 0, "completed", 5)
        assert (line["level"], line["message"], line["data"]) == ("info", "imported", {"count": 5})
        assert run["createdAt"] <= run["startedAt"] <= step["completedAt"] <= run["completedAt"]
        assert run["completedAt"] == run["updatedAt"]

    async def test_python_listeners_hear_of_the_run_of_a_trigger_that_told_nobody(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """W1: the worker is woken by the change of the database; its polling is out of the picture here."""
        worker = await open_durably(import_csv, start=True, polling_interval=3600)
        events = Events(worker)
        typescript = await start_typescript()

        triggered = await typescript.do("trigger", {"filename": "a.csv"})

        assert (await events.until("run:complete")).run_id == triggered["id"]

    async def test_the_keys_of_both_sides_are_the_same(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R6, R7."""
        python = await open_durably(import_csv)
        typescript = await start_typescript()
        first = await typescript.do(
            "trigger", {"filename": "a.csv"}, {"idempotencyKey": "import-1", "concurrencyKey": "org"}
        )

        idempotent = await python.jobs.import_csv.trigger({"filename": "b.csv"}, idempotency_key="import-1")
        coalesced = await python.jobs.import_csv.trigger({"filename": "c.csv"}, concurrency_key="org", coalesce="skip")
        over_there = await typescript.do(
            "trigger", {"filename": "d.csv"}, {"concurrencyKey": "org", "coalesce": "skip"}
        )

        assert {idempotent.id, coalesced.id, over_there["id"]} == {first["id"]}
        assert (idempotent.disposition, coalesced.disposition) == ("idempotent", "coalesced")

    async def test_every_way_to_trigger(self, open_durably: OpenDurably, start_typescript: StartTypeScript) -> None:
        await open_durably(import_csv, start=True)
        typescript = await start_typescript()

        waited = await typescript.do("triggerAndWait", {"filename": "a.csv"})
        batch = await typescript.do("batchTrigger", [{"input": {"filename": name}} for name in ("bb.csv", "c.csv")])
        outputs = [(await typescript.do("waitForRun", run["id"]))["output"] for run in batch]

        assert waited["output"] == {"count": 5}
        assert outputs == [{"count": 6}, {"count": 5}]

    async def test_a_failure_in_python_is_one_in_typescript(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R11: the message, and the step that failed."""

        @define_job(name="import-csv")
        async def failing(step: StepContext, input: ImportCsv) -> Imported:
            await step.run("count", lambda: 1 // 0)
            return Imported(count=0)

        await open_durably(failing, start=True, preserve_steps=True)
        typescript = await start_typescript("preserve-steps")
        triggered = await typescript.do("trigger", {"filename": 'ä \N{PILE OF POO} "quoted"'})

        with pytest.raises(AssertionError, match="division"):
            await typescript.do("waitForRun", triggered["id"])

        run = await typescript.do("getRun", triggered["id"])
        assert (run["status"], run["error"]) == ("failed", "integer division or modulo by zero")
        assert run["input"] == {"filename": 'ä \N{PILE OF POO} "quoted"'}
        (step,) = await typescript.do("getSteps", triggered["id"])
        assert (step["name"], step["status"], step["error"]) == ("count", "failed", run["error"])


class TestPythonTriggersTypeScriptWatches:
    async def test_typescript_lists_by_job_status_and_label(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        python = await open_durably(import_csv)
        mine = await python.jobs.import_csv.trigger({"filename": "a.csv"}, labels={"org": "a", "env": "test"})
        await python.jobs.import_csv.trigger({"filename": "b.csv"}, labels={"org": "b"})
        typescript = await start_typescript()

        found = await typescript.do(
            "getRuns", {"jobName": "import-csv", "status": ["pending"], "labels": {"org": "a", "env": "test"}}
        )

        assert [run["id"] for run in found] == [mine.id]

    async def test_typescript_retriggers_and_python_executes_again(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R9."""
        python = await open_durably(import_csv)
        first = await python.jobs.import_csv.trigger({"filename": "a.csv"}, labels={"org": "a"}, idempotency_key="k")
        await python.process_until_idle()
        typescript = await start_typescript()

        again = await typescript.do("retrigger", first.id)

        assert await python.process_until_idle() == 1
        run = await python.get_run(again["id"])
        assert run is not None
        assert run.id != first.id
        assert (run.status, run.labels, run.idempotency_key) == (RunStatus.COMPLETED, {"org": "a"}, None)

    async def test_typescript_deletes_what_python_finished(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        python = await open_durably(import_csv, preserve_steps=True)
        run = await python.jobs.import_csv.trigger({"filename": "a.csv"}, labels={"org": "a"})
        await python.process_until_idle()
        typescript = await start_typescript()

        await typescript.do("deleteRun", run.id)

        assert await python.get_run(run.id) is None
        assert await python.get_steps(run.id) == []
        assert await python.get_runs(labels={"org": "a"}) == []


class TestTypeScriptCancels:
    async def test_a_pending_run_is_never_executed(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R10."""
        python = await open_durably(import_csv)
        run = await python.jobs.import_csv.trigger({"filename": "a.csv"})
        typescript = await start_typescript()

        await typescript.do("cancel", run.id)

        assert await python.process_until_idle() == 0

    async def test_the_step_under_way_in_python_is_interrupted(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """S5: no renewal and no write of the run comes for an hour, so it is the change itself that is noticed."""
        gate, interrupted = Gate(), asyncio.Event()

        @define_job(name="import-csv")
        async def held(step: StepContext, input: ImportCsv) -> None:
            try:
                await step.run("wait", gate.pass_through)
            finally:
                interrupted.set()

        python = await open_durably(held, start=True, lease_duration=7200, lease_renew_interval=3600)
        events = Events(python)
        typescript = await start_typescript()
        run = await typescript.do("trigger", {"filename": "a.csv"})
        await gate.reached()

        await typescript.do("cancel", run["id"])

        async with asyncio.timeout(30):
            await interrupted.wait()
        assert (await events.until("step:cancel")).step_name == "wait"
        assert (await events.until("run:cancel")).run_id == run["id"]
        assert len(events.of("run:cancel")) == 1

    async def test_a_thread_of_python_sees_its_signal(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """S5."""
        started, reason = asyncio.Event(), asyncio.get_running_loop().create_future()

        @define_job(name="import-csv")
        async def threaded(step: StepContext, input: ImportCsv) -> None:
            loop = asyncio.get_running_loop()

            def work(signal: AbortSignal) -> None:
                loop.call_soon_threadsafe(started.set)
                while not signal.aborted:
                    time.sleep(0.001)
                loop.call_soon_threadsafe(reason.set_result, signal.reason)

            await step.run("work", work)

        await open_durably(threaded, start=True, lease_duration=7200, lease_renew_interval=3600)
        typescript = await start_typescript()
        run = await typescript.do("trigger", {"filename": "a.csv"})
        await started.wait()

        await typescript.do("cancel", run["id"])

        async with asyncio.timeout(30):
            assert await reason == "cancelled"

    async def test_deleting_at_once_after_cancelling_ends_the_run_too(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        gate = Gate()

        @define_job(name="import-csv")
        async def held(step: StepContext, input: ImportCsv) -> None:
            await step.run("wait", gate.pass_through)

        python = await open_durably(held, start=True, lease_duration=7200, lease_renew_interval=3600)
        events = Events(python)
        typescript = await start_typescript()
        run = await typescript.do("trigger", {"filename": "a.csv"})
        await gate.reached()

        await typescript.do("cancel", run["id"])
        await typescript.do("deleteRun", run["id"])

        await python.stop()
        assert events.of("run:complete", "run:fail") == []
        assert await python.get_run(run["id"]) is None

    async def test_who_waits_and_who_subscribes_in_python_learn_it(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R11, E4: neither polls here; what wakes them is the change of the database."""
        python = await open_durably(import_csv, polling_interval=3600)
        run = await python.jobs.import_csv.trigger({"filename": "a.csv"})
        typescript = await start_typescript()
        subscription = python.subscribe(run.id)
        first = asyncio.ensure_future(anext(subscription))
        waiting = asyncio.ensure_future(python.wait_for_run(run.id))
        # The other program's answer lets both come to their waiting.
        await typescript.do("getRun", run.id)

        await typescript.do("cancel", run.id)

        async with asyncio.timeout(30):
            assert (await first).type == "run:cancel"
            assert [event async for event in subscription] == []
            with pytest.raises(RunCancelledError):
                await waiting

    async def test_another_python_process_that_subscribes_learns_it_from_the_holder(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """E1, E4: the cancellation of a run that executes is announced once, by who executed it."""
        gate = Gate()

        @define_job(name="import-csv")
        async def held(step: StepContext, input: ImportCsv) -> None:
            await step.run("wait", gate.pass_through)

        await open_durably(held, start=True, lease_duration=7200, lease_renew_interval=3600)
        watcher = await open_durably()
        events = Events(watcher)
        await watcher.get_runs()
        typescript = await start_typescript()
        run = await typescript.do("trigger", {"filename": "a.csv"})
        await gate.reached()

        await typescript.do("cancel", run["id"])

        await events.until("run:cancel")
        await events.until("step:cancel")
        assert len(events.of("run:cancel")) == 1


class TestTypeScriptExecutes:
    async def test_python_waits_for_what_typescript_works_on(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R11: also the other way round; here no Python process works."""
        python = await open_durably(import_csv, polling_interval=3600)
        typescript = await start_typescript()
        triggered = await python.jobs.import_csv.trigger({"filename": "a.csv"})
        waiting = asyncio.ensure_future(python.wait_for_run(triggered.id))
        await typescript.do("getRun", triggered.id)

        assert await typescript.do("processOne")

        async with asyncio.timeout(30):
            assert (await waiting).output == {"count": 5}

    async def test_python_reads_all_that_typescript_stored(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        typescript = await start_typescript("preserve-steps")
        await typescript.do("migrate")
        triggered = await typescript.do("trigger", {"filename": "ä.csv"}, {"labels": {"org": "ö"}})
        assert await typescript.do("processOne")
        python = await open_durably(import_csv)

        (run,) = await python.get_runs(job_name="import-csv", status="completed", labels={"org": "ö"})
        assert (run.id, run.output, run.completed_step_count) == (triggered["id"], {"count": 5}, 1)
        assert run.progress is not None
        assert (run.progress.current, run.progress.total, run.progress.message) == (1, 1, "counted")
        (step,) = await python.get_steps(run.id)
        assert (step.name, step.status, step.output) == ("count", "completed", 5)
        # The original deletes the logs of a run with its steps, unless these are preserved.
        assert [(line.message, line.data) for line in await python.get_logs(run.id)] == [
            ("counted", {"filename": "ä.csv"})
        ]

    async def test_python_resumes_what_a_dead_typescript_worker_began(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """L4, S2: where both know the job, a checkpoint of one is a checkpoint of the other."""
        counted: list[str] = []

        @define_job(name="import-csv")
        async def resuming(step: StepContext, input: ImportCsv) -> Imported:
            return Imported(count=await step.run("count", lambda: counted.append(input["filename"]) or 0))

        typescript = await start_typescript("die-after-the-step", "short-leases")
        await typescript.do("migrate")
        triggered = await typescript.do("trigger", {"filename": "a.csv"})
        await typescript.do_last("processOne")

        python = await open_durably(resuming, start=True, polling_interval=0.1)
        run = await python.wait_for_run(triggered["id"], timeout=PATIENCE_SECONDS)

        assert (run.output, run.lease_generation) == ({"count": 5}, 2)
        assert counted == []

    async def test_typescript_purges_what_python_finished(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """R10: and what waits stays."""
        python = await open_durably(import_csv)
        done = await python.jobs.import_csv.trigger({"filename": "a.csv"}, labels={"org": "a"})
        await python.process_until_idle()
        waiting = await python.jobs.import_csv.trigger({"filename": "b.csv"}, labels={"org": "a"})
        typescript = await start_typescript()

        assert await typescript.do("purgeRuns") == 1

        assert await python.get_run(done.id) is None
        assert [run.id for run in await python.get_runs(labels={"org": "a"})] == [waiting.id]

    async def test_its_worker_fails_runs_of_jobs_that_it_does_not_know(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """Why only one side may run workers, unless both know every job."""

        @define_job(name="only-python-knows")
        async def ours(step: StepContext, input: None) -> None: ...

        python = await open_durably(ours)
        triggered = await python.jobs.only_python_knows.trigger(None)
        typescript = await start_typescript()

        await typescript.do("processOne")

        with pytest.raises(RunFailedError, match="only-python-knows"):
            await python.wait_for_run(triggered.id)

    async def test_python_leaves_runs_of_jobs_that_it_does_not_know(
        self, open_durably: OpenDurably, start_typescript: StartTypeScript
    ) -> None:
        """L5."""
        typescript = await start_typescript()
        await typescript.do("migrate")
        triggered = await typescript.do("trigger", {"filename": "a.csv"})

        python = await open_durably()
        assert await python.process_until_idle() == 0

        assert (await typescript.do("getRun", triggered["id"]))["status"] == "pending"
