"""D3: who writes at the same moment shares one commit; a unit that fails is undone alone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from durably import BatchItem, ConflictError, NotFoundError, StepContext, create_durably, define_job
from durably.stores.sqlite.group_commit import CommitPace
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


OPTIONS = ["", "?synchronous=normal", "?commit=in-place", "?commit=thread", "?synchronous=full&commit=auto"]


class TestOptions:
    @pytest.mark.parametrize("options", OPTIONS)
    async def test_every_option_stores_and_executes(self, database: str, options: str) -> None:
        """D3: where and how commits happen changes nothing else."""
        async with create_durably(database=database + options, jobs={"job": job}) as durably:
            runs = await asyncio.gather(*[durably.jobs.job.trigger(n) for n in range(20)])
            for run in runs:
                await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
            assert {run.status for run in await durably.get_runs()} == {"completed"}

    @pytest.mark.parametrize(("options", "synchronous"), [("", 2), ("?synchronous=normal", 1)])
    async def test_synchronous_is_what_was_asked_for(self, database: str, options: str, synchronous: int) -> None:
        """D3: FULL by default; the file is in WAL mode."""
        async with create_durably(database=database + options, jobs={"job": job}) as durably:
            connection = durably.storage._write_connection  # type: ignore[attr-defined]
            assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize(("option", "in_loop"), [("in-place", True), ("thread", False)])
    async def test_commits_happen_where_they_were_asked_to(self, database: str, option: str, *, in_loop: bool) -> None:
        """D3: on the loop, or in a thread of their own."""
        committed: set[int] = set()

        def note(statement: str) -> None:
            if statement.startswith("COMMIT"):
                committed.add(threading.get_ident())

        async with create_durably(database=f"{database}?commit={option}", jobs={"job": job}) as durably:
            await durably.jobs.job.trigger(1)
            durably.storage._write_connection.set_trace_callback(note)  # type: ignore[attr-defined]
            await durably.jobs.job.trigger_and_wait(2, timeout=PATIENCE_SECONDS)

        assert (threading.get_ident() in committed) is in_loop
        assert len(committed) == 1

    def test_a_slow_disk_moves_commits_to_a_thread_and_a_fast_one_back(self) -> None:
        """D3: measured, with two thresholds so that it does not change at every commit."""
        pace = CommitPace("auto")
        assert pace.is_affordable_in_place()
        for _ in range(50):
            pace.saw(0.01)
        assert not pace.is_affordable_in_place()
        for _ in range(100):
            pace.saw(0.0015)
        assert not pace.is_affordable_in_place()
        for _ in range(100):
            pace.saw(0.0001)
        assert pace.is_affordable_in_place()

    def test_a_path_object_is_a_database(self, tmp_path: Path) -> None:
        """`database` takes a `Path`; the name shows in messages."""
        durably = create_durably(database=tmp_path / "a b?.db")

        assert durably.storage.name == f"database {tmp_path / 'a b?.db'}"


class TestSharedCommits:
    async def test_writers_of_one_moment_share_one_transaction(self, open_durably: OpenDurably) -> None:
        """D3: many steps, one commit."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(0)
        commits: list[str] = []
        connection = durably.storage._write_connection  # type: ignore[attr-defined]
        connection.set_trace_callback(lambda statement: commits.append(statement) if "COMMIT" in statement else None)
        await asyncio.gather(*[durably.jobs.job.trigger(n) for n in range(100)])

        assert len(commits) == 1

    @pytest.mark.parametrize("option", ["in-place", "thread"])
    async def test_a_unit_that_fails_is_undone_alone(self, database: str, option: str) -> None:
        """D3: the others of its transaction are stored, and nobody else sees its error."""
        async with create_durably(database=f"{database}?commit={option}", jobs={"job": job}) as durably:
            await durably.stop()
            events = Events(durably)
            await durably.jobs.job.trigger("taken", concurrency_key="k")
            results = await asyncio.gather(
                durably.jobs.job.trigger("a"),
                durably.jobs.job.batch_trigger(["b", "c"]),
                durably.jobs.job.trigger("conflict", concurrency_key="k"),
                durably.cancel("nobody"),
                durably.jobs.job.trigger("d", labels={"l": "1"}),
                return_exceptions=True,
            )

            kinds = [type(each) for each in results]
            assert (kinds[2], kinds[3]) == (ConflictError, NotFoundError)
            assert sorted(run.input for run in await durably.get_runs()) == ["a", "b", "c", "d", "taken"]
            assert sorted(event.input for event in events.of("run:trigger")) == ["a", "b", "c", "d", "taken"]

    async def test_events_announced_beside_a_refused_write_are_not_held_back(self, open_durably: OpenDurably) -> None:
        """E4: a refusal undoes its own unit, not the news of others that shared its transaction."""
        gate, arrived = Gate(), asyncio.Event()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            step.log.info("beside a refusal")
            with pytest.raises(ConflictError):
                await durably.jobs.held.batch_trigger([1, 2, 3, *conflicting])
            await gate.pass_through()

        conflicting = [BatchItem(4, concurrency_key="k"), BatchItem(5, concurrency_key="k")]
        durably = await open_durably(held)
        run = await durably.jobs.held.trigger(None)

        async def read() -> None:
            async for event in durably.subscribe(run.id):
                if event.type == "log:write":
                    arrived.set()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        processing = asyncio.create_task(durably.process_one())
        await gate.reached()

        async with asyncio.timeout(PATIENCE_SECONDS):
            await arrived.wait()
        gate.open()
        await processing
        await reading
