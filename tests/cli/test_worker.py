"""`durably worker`: a process that executes runs, and how it stops (W4)."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from durably import Durably, create_durably
from tests.libsql.server import running_server

from . import worker_app

PATIENCE_SECONDS = 20.0


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
async def client(database: str) -> AsyncIterator[Durably]:
    durably = create_durably(database=database, jobs=worker_app.JOBS)
    await durably.migrate()
    yield durably
    await durably.close()


@asynccontextmanager
async def worker(
    database: str, *options: str, target: str = "tests.cli.worker_app:durably"
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "durably",
        "worker",
        target,
        *options,
        env={**os.environ, "DURABLY_DATABASE_URL": database},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def said_by(process: asyncio.subprocess.Process) -> str:
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return errors.decode()


async def began(client: Durably, run_id: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in client.subscribe(run_id):
            if event.type == "step:start":
                return


async def there_are(*files: Path) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(file.exists() for file in files):
            await asyncio.sleep(0.01)


async def says(process: asyncio.subprocess.Process, words: str) -> None:
    """Wait until a worker says these words."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while words not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the worker ended without saying {words!r}"


async def test_runs_are_executed_until_the_worker_is_told_to_stop(client: Durably, database: str) -> None:
    """W4: SIGTERM with nothing under way ends the process at once, with status 0."""
    async with worker(database) as process:
        result = await client.jobs.quick.trigger_and_wait(20, timeout=PATIENCE_SECONDS)
        process.send_signal(signal.SIGTERM)
        said = await said_by(process)

    assert result.output == 21
    assert process.returncode == 0
    assert "executes broken, held, quick" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_lets_runs_end(
    client: Durably, database: str, tmp_path: Path, number: signal.Signals
) -> None:
    """W4: what executes is completed, what waits is left to others."""
    gate = tmp_path / "gate"
    async with worker(database) as process:
        run = await client.jobs.held.trigger(str(gate))
        await began(client, run.id)
        process.send_signal(number)
        gate.touch()
        said = await said_by(process)

    assert (await client.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).status == "completed"
    assert process.returncode == 0
    assert f"{number.name}: waiting for what executes" in said


async def test_the_second_signal_gives_runs_back(client: Durably, database: str, tmp_path: Path) -> None:
    """W4: the leases are released, so that another worker resumes at once."""
    gate = tmp_path / "gate"
    async with worker(database) as process:
        run = await client.jobs.held.trigger(str(gate))
        await began(client, run.id)
        process.send_signal(signal.SIGTERM)
        await says(process, "SIGTERM: waiting")
        process.send_signal(signal.SIGTERM)
        await said_by(process)

    given_back = await client.get_run(run.id)
    assert given_back is not None
    assert (given_back.status, given_back.lease_owner) == ("pending", None)
    gate.touch()
    assert await client.process_until_idle() == 1


@pytest.mark.parametrize("options", [(), ("--until-idle",)])
async def test_the_second_signal_does_not_wait_for_the_thread_of_a_plain_job(
    client: Durably, database: str, options: tuple[str, ...]
) -> None:
    """W4: a thread that does not look at its signal is left behind; its run was given back."""
    run = await client.jobs.stuck.trigger(None)
    async with worker(database, *options) as process:
        await began(client, run.id)
        process.send_signal(signal.SIGTERM)
        await says(process, "SIGTERM: waiting")
        process.send_signal(signal.SIGTERM)
        said = await said_by(process)

    assert process.returncode == 0
    assert "has stopped" in said
    given_back = await client.get_run(run.id)
    assert given_back is not None
    assert (given_back.status, given_back.lease_owner) == ("pending", None)


async def test_the_second_signal_does_not_wait_for_a_database_that_does_not_answer(database: str) -> None:
    """W4: containers are killed ten seconds after the first."""
    async with worker(database, target="tests.cli.worker_app:unanswered") as process:
        await says(process, "executes broken")
        process.send_signal(signal.SIGTERM)
        await says(process, "again to give it back")
        process.send_signal(signal.SIGTERM)
        said = await said_by(process)

    assert process.returncode == 0
    assert "has stopped" in said


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_process_that_a_step_terminates_ends_and_the_worker_goes_on(
    client: Durably, database: str, at_once: bool
) -> None:
    """W4: a fork inherits what asyncio does with signals, and would tell the worker in place of ending."""
    async with worker(database) as process:
        terminating = await client.jobs.terminating.trigger_and_wait(at_once, timeout=PATIENCE_SECONDS)
        quick = await client.jobs.quick.trigger_and_wait(20, timeout=PATIENCE_SECONDS)
        process.send_signal(signal.SIGTERM)
        said = await said_by(process)

    assert terminating.output == -signal.SIGTERM
    assert quick.output == 21
    assert process.returncode == 0
    assert said.count("SIGTERM") == 1


async def test_ctrl_c_counts_once_however_many_processes_a_step_has(
    client: Durably, database: str, tmp_path: Path
) -> None:
    """W4: a terminal sends it to the whole group; the processes of the run go on, so that it can end."""
    async with worker(database) as process:
        run = await client.jobs.sharing.trigger(tmp_path)
        await there_are(tmp_path / "begun-1", tmp_path / "begun-2")
        os.killpg(process.pid, signal.SIGINT)
        await says(process, "SIGINT: waiting")
        (tmp_path / "gate").touch()
        said = await said_by(process)

    assert (await client.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).status == "completed"
    assert process.returncode == 0
    assert "SIGINT" not in said


async def test_until_idle_executes_what_there_is_and_ends(client: Durably, database: str) -> None:
    """W5: for cron. A run that failed is counted, and is no failure of the worker."""
    runs = await client.jobs.quick.batch_trigger([1, 2, 3])
    await client.jobs.broken.trigger(None)
    async with worker(database, "--until-idle") as process:
        said = await said_by(process)

    assert process.returncode == 0
    assert "executed 4 runs, 1 failed; nothing is left" in said
    assert {run.output for run in await client.get_runs(status="completed")} == {2, 3, 4}
    assert len(runs) == 3


async def test_until_idle_is_told_to_stop_like_any_other(client: Durably, database: str, tmp_path: Path) -> None:
    """W4: what executes is completed, what waits is left."""
    gate = tmp_path / "gate"
    run = await client.jobs.held.trigger(str(gate))
    async with worker(database, "--until-idle") as process:
        await began(client, run.id)
        process.send_signal(signal.SIGTERM)
        await says(process, "SIGTERM: waiting")
        gate.touch()
        await said_by(process)

    assert process.returncode == 0
    assert (await client.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).status == "completed"


async def test_what_the_worker_says_is_not_lost_among_http_requests(tmp_path: Path) -> None:
    """D5: each operation on libSQL is one, and an idle worker looks several times a second."""
    with running_server(tmp_path) as server:
        async with worker(server.url, "--until-idle") as process:
            said = await said_by(process)

    assert "executed 0 runs" in said
    assert "HTTP" not in said


async def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A user reads what is wrong and what to do, not a traceback."""
    async with worker(f"sqlite:///{tmp_path}/nowhere/jobs.db") as process:
        said = await said_by(process)

    assert process.returncode == 2
    assert "there is no directory" in said
    assert "Traceback" not in said


async def test_a_database_url_of_no_known_form_is_named() -> None:
    """The same where it is wrong before anybody connects: while the application is imported."""
    async with worker("mysql://localhost/jobs") as process:
        said = await said_by(process)

    assert process.returncode == 2
    assert "Invalid database 'mysql://localhost/jobs': expected one of" in said
    assert "Traceback" not in said


async def test_an_instance_without_jobs_is_said_to_execute_nothing(database: str) -> None:
    """It goes on, for the upkeep of the database; but somebody has probably registered the jobs in another module."""
    async with worker(database, "--until-idle", target="tests.cli.worker_app:jobless") as process:
        said = await said_by(process)

    assert process.returncode == 0
    assert "tests.cli.worker_app:jobless has no jobs, so nothing will be executed" in said
