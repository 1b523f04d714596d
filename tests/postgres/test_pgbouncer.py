"""Behind PgBouncer with transaction pooling nothing may depend on what a server session remembers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import StepContext, define_job
from tests.conftest import Events, OpenDurably
from tests.postgres.server import as_server_user, free_port, server_directory
from tests.postgres.shared import shared_server

INSTALL_SECONDS = 120
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
logfile = {directory}/pgbouncer.log
"""


@pytest.fixture(scope="module")
def program() -> str:
    """Return PgBouncer, installed for the occasion where that is possible."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None and shutil.which("apt-get") is not None and os.getuid() == 0:
        command = ["apt-get", "install", "-y", "-qq", "pgbouncer"]
        subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False)
        found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip("PgBouncer is not installed, and only root can install it with apt-get")
    return found


@pytest.fixture
def pooled(program: str, database: str) -> Iterator[str]:
    """Yield the URL of the fresh database through a transaction pooler."""
    server, port = shared_server(), free_port()
    with server_directory() as directory:
        configuration = Path(directory) / "pgbouncer.ini"
        configuration.write_text(CONFIGURATION.format(server=server.port, port=port, directory=directory))
        process = subprocess.Popen([program, str(configuration)], stderr=subprocess.DEVNULL, **as_server_user())
        try:
            _wait_for(port)
            yield database.replace(f":{server.port}/", f":{port}/") + "?pgbouncer=true"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("PgBouncer did not start")


@define_job(name="count")
async def count(step: StepContext, input: int) -> int:
    total = 0
    for n in range(input):
        total += await step.run(f"step-{n}", unchanged, n)
    return total


async def unchanged(value: int) -> int:
    return value


async def test_runs_execute_and_are_told_of_through_the_pooler(pooled: str, open_durably: OpenDurably) -> None:
    """Without a session there is no LISTEN: another process is noticed by looking at the table."""
    worker = await open_durably(count, database=pooled, start=True, max_concurrent_runs=20)
    watcher = await open_durably(count, database=pooled)
    events = Events(watcher)

    runs = await watcher.jobs.count.batch_trigger([10] * 20)
    ended = await asyncio.gather(*(watcher.wait_for_run(run.id, timeout=60) for run in runs))
    await events.until("run:complete", 20)

    assert [run.output for run in ended] == [45] * 20
    assert len(events.of("step:complete")) == 200
    assert len(await worker.get_runs(status="completed")) == 20


async def test_hints_arrive_past_the_pooler(pooled: str, open_durably: OpenDurably) -> None:
    """`direct=` names the server itself for the one connection that has to keep its session."""
    url = f"{pooled}&direct=127.0.0.1:{shared_server().port}"
    worker = await open_durably(count, database=url, start=True, polling_interval=600)
    other = await open_durably(count, database=url)

    assert (await other.jobs.count.trigger_and_wait(3, timeout=60)).output == 3
    assert await worker.get_runs(status="pending") == []


async def test_keys_and_claims_hold_through_the_pooler(pooled: str, open_durably: OpenDurably) -> None:
    """R7: locks end with their transaction, so a session that changes hands takes none along."""
    workers = [await open_durably(count, database=pooled, start=True, polling_interval=0.05) for _ in range(3)]
    results = await asyncio.gather(
        *(
            workers[n % 3].jobs.count.trigger(1, concurrency_key=f"k{n % 5}", coalesce="skip", idempotency_key=str(n))
            for n in range(60)
        )
    )
    for result in results:
        await workers[0].wait_for_run(result.id, timeout=60)
    assert {run.status for run in await workers[0].get_runs()} == {"completed"}
