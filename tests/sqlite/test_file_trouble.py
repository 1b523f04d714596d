# ruff: noqa: ASYNC240 - a test may wait for its own temporary files
"""D3: what can be wrong with a file, each with an error that names it and says what to do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from durably import (
    SchemaTooNewError,
    StepContext,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    WorkerErrorEvent,
    create_durably,
    define_job,
)
from durably.stores.sqlite import group_commit
from tests.conftest import PATIENCE_SECONDS, Events, Gate, OpenDurably, until


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any:
    return await step.run("one", lambda: input)


class TestOpening:
    async def test_a_library_without_json_functions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is named at the first use, before anything is made; not as a table that is missing at the first claim."""
        monkeypatch.setattr("durably.stores.sqlite.database._NEEDED", "SELECT 1 FROM json_of_the_future('[]')")
        durably = create_durably(database=tmp_path / "jobs.db")

        with pytest.raises(StoreError, match=rf"has SQLite {sqlite3.sqlite_version}, and durably needs 3\.9 or newer"):
            await durably.migrate()
        await durably.close()

    async def test_a_missing_directory(self, tmp_path: Path) -> None:
        """It is named; nothing is made behind the user's back."""
        durably = create_durably(database=f"sqlite:///{tmp_path / 'no' / 'where' / 'jobs.db'}")

        with pytest.raises(StoreError, match=r"there is no directory .*where; create it first"):
            await durably.migrate()
        assert not (tmp_path / "no").exists()
        await durably.close()

    async def test_a_directory_in_place_of_a_file(self, tmp_path: Path) -> None:
        durably = create_durably(database=tmp_path)

        with pytest.raises(StoreError, match="cannot be opened: it is a directory; name a file in it"):
            await durably.migrate()
        await durably.close()

    async def test_a_file_that_is_no_database(self, database: str, path: Path) -> None:
        """It belongs to another application and is left as it was."""
        path.write_text("This is a letter, and it is long enough to be mistaken for a page. " * 100)
        before = path.read_bytes()
        durably = create_durably(database=database)

        with pytest.raises(StoreError, match=r"jobs\.db is not a SQLite database.*use another file"):
            await durably.migrate()
        assert path.read_bytes() == before
        await durably.close()

    async def test_a_database_with_a_table_of_that_name(self, database: str, path: Path) -> None:
        """A foreign `durably_runs` is not touched."""
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE durably_runs (mine text)")
        connection.close()
        durably = create_durably(database=database)

        with pytest.raises(StoreError, match=r"a table 'durably_runs' that durably did not make"):
            await durably.migrate()
        await durably.close()
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("durably_runs",)]
        connection.close()

    async def test_a_database_of_another_application_is_shared(self, database: str, path: Path) -> None:
        """Its tables stay as they are."""
        connection = sqlite3.connect(path)
        connection.executescript("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")
        async with create_durably(database=database, jobs={"job": job}) as durably:
            assert (await durably.jobs.job.trigger_and_wait(1, timeout=PATIENCE_SECONDS)).output == 1
        assert connection.execute("SELECT x FROM mine").fetchall() == [(1,)]
        connection.close()

    async def test_a_newer_schema(self, database: str, path: Path, open_durably: OpenDurably) -> None:
        """D2: refused by an error that says so, whatever is called first."""
        await open_durably(job)
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO durably_schema_versions VALUES (99, '2030-01-01T00:00:00.000Z')")
        connection.close()
        durably = await open_durably(job, migrate=False)

        with pytest.raises(SchemaTooNewError, match="upgrade the durably package") as refused:
            await durably.migrate()
        assert refused.value.found == 99
        with pytest.raises(SchemaTooNewError):
            await durably.jobs.job.trigger(1)

    async def test_a_database_that_was_not_migrated(self, open_durably: OpenDurably) -> None:
        """The error says what to call."""
        durably = await open_durably(job, migrate=False)

        with pytest.raises(StoreError, match=r"call init\(\) or migrate\(\) first"):
            await durably.jobs.job.trigger(1)

    async def test_a_closed_instance(self, open_durably: OpenDurably) -> None:
        """Closing twice is closing; using it afterwards is an error."""
        durably = await open_durably(job)
        await durably.close()
        await durably.close()

        with pytest.raises(StoreError, match="was closed"):
            await durably.get_run("x")
        with pytest.raises(StoreError, match="was closed"):
            await durably.migrate()

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("sqlite:///x.db?synchronous=off", "synchronous='off'.*full, normal"),
            ("sqlite:///x.db?commit=later", "commit='later'.*auto, in-place, thread"),
            ("sqlite:///x.db?mode=ro", "option 'mode'.*synchronous"),
        ],
    )
    def test_an_unknown_option(self, url: str, message: str) -> None:
        """D3: options are named with what is allowed."""
        with pytest.raises(ValidationError, match=message):
            create_durably(database=url)

    def test_a_directory_that_this_user_may_not_write(self) -> None:
        """Checked as a user without privileges."""
        program = """
import asyncio, os, sys
import durably.stores.sqlite
from durably import StoreError, create_durably
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
async def main():
    durably = create_durably(database=f"sqlite:///{sys.argv[1]}/jobs.db")
    try:
        await durably.migrate()
    except StoreError as error:
        print(error)
    await durably.close()
asyncio.run(main())
"""
        # Not below pytest's own directory, which no other user may enter.
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o555)
            done = subprocess.run(
                [sys.executable, "-c", program, directory], capture_output=True, text=True, timeout=60, check=True
            )
        assert "cannot be opened" in done.stdout
        assert "this user may write there" in done.stdout

    async def test_a_database_that_cannot_be_written_to_any_more(self, database: str, path: Path) -> None:
        """As on a file system that was mounted read-only: SQLite needs to make its files beside the database."""
        async with create_durably(database=database, jobs={"job": job}):
            pass
        path.with_name(f"{path.name}-wal").mkdir()
        durably = create_durably(database=database, jobs={"job": job})

        with pytest.raises(StoreError, match=r"jobs\.db cannot be opened.*file system is not read-only"):
            await durably.migrate()
        await durably.close()


class TestWhileInUse:
    @pytest.mark.parametrize("age", ["just made", "old"])
    @pytest.mark.parametrize("fate", ["removed", "replaced"])
    async def test_a_file_that_goes_away(self, open_durably: OpenDurably, path: Path, fate: str, age: str) -> None:
        """Nothing more is written to a file that nobody will find again."""
        durably = await open_durably(job)
        if age == "old":
            make_old(path.parent)
        kept = await durably.jobs.job.trigger(1)
        path.rename(path.with_suffix(".moved"))
        if fate == "replaced":
            path.write_bytes(b"")

        with pytest.raises(StoreError, match=f"was {fate}.* while it was in use"):
            await durably.jobs.job.trigger(2)

        if fate == "replaced":
            path.unlink()
        path.with_suffix(".moved").rename(path)
        assert (await durably.jobs.job.trigger(3)).input == 3
        assert [run.input for run in await durably.get_runs()] == [3, 1]
        assert kept.id

    async def test_a_file_that_is_gone_is_not_made_again(self, open_durably: OpenDurably, path: Path) -> None:
        """A program that only reads, or migrates, says so too, and leaves no empty file for the next one to find."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        path.rename(path.with_suffix(".moved"))

        with pytest.raises(StoreError, match="was removed while it was in use"):
            await durably.get_runs()
        with pytest.raises(StoreError, match="was removed while it was in use"):
            await durably.migrate()
        assert not path.exists()

        path.with_suffix(".moved").rename(path)
        assert [run.input for run in await durably.get_runs()] == [1]

    @pytest.mark.parametrize("age", ["just made", "old"])
    @pytest.mark.parametrize("fate", ["removed", "replaced"])
    async def test_a_write_ahead_log_that_goes_away(
        self, open_durably: OpenDurably, path: Path, fate: str, age: str
    ) -> None:
        """S1: what would be committed to it now, nobody would find after the process has died."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        if age == "old":
            make_old(path.parent)
        await durably.jobs.job.trigger(2)
        log = path.with_name(f"{path.name}-wal")
        log.rename(log.with_suffix(".moved"))
        if fate == "replaced":
            log.write_bytes(b"")

        with pytest.raises(StoreError, match=r"jobs\.db lost the file -wal beside it.*start them again"):
            await durably.jobs.job.trigger(3)

    async def test_a_file_system_that_counts_in_seconds(self, open_durably: OpenDurably, path: Path) -> None:
        """What goes away in the second in which something came is noticed too."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        second = int(time.time())
        os.utime(path.parent, (second, second))
        await asyncio.sleep(0.06)
        await durably.jobs.job.trigger(2)
        path.unlink()
        os.utime(path.parent, (second, second))

        with pytest.raises(StoreError, match="was removed while it was in use"):
            await durably.jobs.job.trigger(3)

    @pytest.mark.parametrize("gone", ["link", "log"])
    async def test_a_file_behind_a_link(self, open_durably: OpenDurably, tmp_path: Path, gone: str) -> None:
        """The log is beside the file, and the link is how the next process will look for it."""
        for directory in ("links", "files"):
            (tmp_path / directory).mkdir()
        link, file = tmp_path / "links" / "jobs.db", tmp_path / "files" / "real.db"
        link.symlink_to(file)
        durably = await open_durably(job, database=f"sqlite:///{link}")
        await durably.jobs.job.trigger(1)
        make_old(link.parent, file.parent)
        await durably.jobs.job.trigger(2)
        (link if gone == "link" else file.with_name("real.db-wal")).unlink()

        with pytest.raises(StoreError, match=r"was removed" if gone == "link" else r"lost the file -wal"):
            await durably.jobs.job.trigger(3)

    async def test_a_file_that_was_emptied(self, open_durably: OpenDurably, path: Path) -> None:
        """D3: opened once more, SQLite would delete the log beside it as well, after waiting for our own lock."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        path.write_bytes(b"")

        with pytest.raises(StoreError, match="was emptied while it was in use"):
            await durably.storage.maintain(idle=True)
        assert path.with_name(f"{path.name}-wal").stat().st_size

    async def test_a_running_job_stops_when_its_file_is_gone(self, open_durably: OpenDurably, path: Path) -> None:
        """S1: a step that cannot be stored does not return; the run is not lost with the file put back."""
        gate, seen = Gate(), []

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            if step.attempt == 1:
                await gate.pass_through()
            await step.run("one", lambda: 1)
            seen.append(step.attempt)

        durably = await open_durably(held, start=True, lease_duration=1, lease_renew_interval=0.2)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        moved = path.with_suffix(".moved")
        path.rename(moved)
        events = Events(durably)
        gate.open()

        async def run_stops() -> bool:
            # The worker that looks for work and the renewal of leases tell of the file too.
            return any(error.context in ("execution", "lease-lost") for error in events.of("worker:error"))

        await until(run_stops)
        assert seen == []
        moved.rename(path)

        await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
        assert seen == [2]

    async def test_a_full_disk(self, open_durably: OpenDurably, path: Path) -> None:
        """W3: the run survives, and goes on when there is space again."""
        gate = Gate()

        @define_job(name="big")
        async def big(step: StepContext, input: Any) -> int:
            await gate.pass_through()
            return len(await step.run("big", lambda: "x" * 1_000_000))

        durably = await open_durably(job, big, start=True)
        events = Events(durably)
        run = await durably.jobs.big.trigger(None)
        await gate.reached()
        fill(durably)
        gate.open()
        told = await events.until("worker:error")
        assert "the disk is full" in told.error
        with pytest.raises(StoreUnavailableError, match="free some space"):
            await durably.jobs.job.trigger("x" * 1_000_000)
        free(durably)

        assert (await durably.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output == 1_000_000
        assert events.of("run:fail", "step:fail") == []
        assert len(await durably.get_runs()) == 1

    async def test_closing_on_a_full_disk_says_so_and_closes(
        self, open_durably: OpenDurably, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every connection is closed, whatever could not be written."""
        durably = await open_durably(job)
        await durably.jobs.job.trigger(1)
        fill(durably)
        durably.storage.announce(_big_event())

        await durably.close()
        assert "free some space" in caplog.text
        with pytest.raises(StoreError, match="was closed"):
            await durably.get_runs()

    async def test_a_lock_held_by_another_program_is_waited_for(self, open_durably: OpenDurably, path: Path) -> None:
        """D3: nothing fails and nothing is lost; the event loop stays free meanwhile."""
        durably = await open_durably(job, start=True)
        await durably.jobs.job.trigger_and_wait(0, timeout=PATIENCE_SECONDS)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        triggering = [asyncio.create_task(durably.jobs.job.trigger(n)) for n in range(5)]
        for _ in range(100):
            # Turns of the loop go by while the lock is held.
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in triggering)
        other.execute("COMMIT")
        other.close()

        for task in triggering:
            await durably.wait_for_run((await task).id, timeout=PATIENCE_SECONDS)

    @pytest.mark.parametrize("polling", [0.01, 1000.0], ids=["while it claims", "while it waits"])
    async def test_a_lock_holds_up_no_stop_that_is_in_a_hurry(
        self, open_durably: OpenDurably, path: Path, monkeypatch: pytest.MonkeyPatch, polling: float
    ) -> None:
        """W4: neither a stop with a time limit nor a close waits as long as a write would."""
        monkeypatch.setattr(group_commit, "_LOCK_SECONDS", 3600.0)
        gate = Gate()

        @define_job(name="held")
        async def held(step: StepContext, input: Any) -> None:
            await gate.pass_through()

        durably = await open_durably(held, start=True, polling_interval=polling)
        run = await durably.jobs.held.trigger(None)
        await gate.reached()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await durably.stop(timeout=0)
            await durably.close()
        other.execute("ROLLBACK")
        other.close()

        after = await open_durably(held)
        found = await after.get_run(run.id)
        assert found is not None
        assert found.status == "leased"

    async def test_a_lock_that_is_never_released_is_an_error_after_a_while(
        self, open_durably: OpenDurably, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """D3: busy waits are bounded; a worker backs off, tells, and goes on by itself."""
        monkeypatch.setattr(group_commit, "_LOCK_SECONDS", 0.05)
        durably = await open_durably(job, start=True)
        events = Events(durably)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"jobs\.db is locked by another process"):
            await durably.jobs.job.trigger(1)
        # As it does whenever jobs were registered, the worker looks for work.
        durably.register({})
        told = await events.until("worker:error")
        assert "cannot look for work" in told.error
        other.execute("COMMIT")
        other.close()

        assert (await durably.jobs.job.trigger_and_wait(2, timeout=PATIENCE_SECONDS)).output == 2


def make_old(*directories: Path) -> None:
    """Let directories look as if nobody had touched what is in them for years."""
    for directory in directories:
        os.utime(directory, (0, 0))


def fill(durably: Any) -> None:
    """Let the database have no page more than it has."""
    connection = durably.storage.connections.writing
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def free(durably: Any) -> None:
    """Take the limit away."""
    durably.storage.connections.writing.execute("PRAGMA max_page_count = 1000000")


def _big_event() -> Any:
    return WorkerErrorEvent(timestamp=datetime.now(UTC), error="x" * 100_000, context="test")
