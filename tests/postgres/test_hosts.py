"""L2-L4, D4: workers on several hosts, and one whose network is cut."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import Durably, define_job
from tests.conftest import PATIENCE_SECONDS, OpenDurably
from tests.postgres.network import Host, Network, network
from tests.postgres.server import NoPostgres, PostgresServer, postgres_server

URL_OPTIONS = "?command_timeout=2&connect_timeout=2"


@define_job(name="work")
async def work(step: object, input: str) -> list[str]:
    """Stand for the job that the hosts execute."""
    raise NotImplementedError


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def server(net: Network) -> Iterator[PostgresServer]:
    """Yield a server that the hosts can reach."""
    try:
        with postgres_server(settings={"listen_addresses": f"127.0.0.1,{net.gateway}"}) as running:
            hba = running.data / "pg_hba.conf"
            hba.write_text(f"{hba.read_text()}\nhost all all {net.gateway}/24 trust\n")
            running.sql("SELECT pg_reload_conf()")
            yield running
    except NoPostgres as error:
        pytest.skip(str(error))


@pytest.fixture
def database(server: PostgresServer) -> str:
    return server.create_database()


@pytest.fixture
async def client(open_durably: OpenDurably) -> Durably:
    """Return an instance on this machine, which executes nothing."""
    return await open_durably(work)


class Workers:
    """Starts workers on hosts."""

    def __init__(self, server: PostgresServer, net: Network, database: str, folder: Path) -> None:
        self._net = net
        self._folder = folder
        self._url = database.replace(f"127.0.0.1:{server.port}", f"{net.gateway}:{server.port}") + URL_OPTIONS

    async def start(self) -> tuple[Host, subprocess.Popen[str]]:
        """Return a new host and the worker on it, once it is ready."""
        host = self._net.add_host()
        process = host.start("tests.postgres.host_worker", self._url, host.name, str(self._folder))
        await says(process, "ready")
        return host, process


@pytest.fixture
def workers(server: PostgresServer, net: Network, database: str, tmp_path: Path) -> Workers:
    return Workers(server, net, database, tmp_path)


async def says(process: subprocess.Popen[str], word: str) -> None:
    """Return when a worker has said a word."""
    stdout = process.stdout
    assert stdout is not None

    def read() -> None:
        for line in stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the worker ended without saying {word!r}")

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.to_thread(read)
    except TimeoutError:
        # Its end is what ends the thread that reads.
        process.kill()
        raise AssertionError(f"the worker has not said {word!r} in time") from None


async def test_hosts_share_the_work(client: Durably, workers: Workers, tmp_path: Path) -> None:
    """D4: what one host triggers is executed by whichever has a free slot."""
    started = [await workers.start() for _ in range(2)]
    runs = await client.jobs.work.batch_trigger(["go", "go"])
    for _, process in started:
        await says(process, "entered")
    (tmp_path / "go").touch()

    outputs = [(await client.wait_for_run(run.id, timeout=PATIENCE_SECONDS)).output for run in runs]

    assert sorted(outputs) == [[host.name] * 2 for host, _ in started]


async def test_a_host_that_is_cut_off_writes_nothing_when_it_is_back(
    client: Durably, workers: Workers, server: PostgresServer, tmp_path: Path
) -> None:
    """L3: it stops by itself. L4: another host resumes after the step that was recorded, and its word counts."""
    lonely, its_worker = await workers.start()
    run = await client.jobs.work.trigger("go")
    await says(its_worker, "entered")

    lonely.pull_cable()
    other, _ = await workers.start()
    await says(its_worker, "lease-lost")
    (tmp_path / "go").touch()
    ended = await client.wait_for_run(run.id, timeout=PATIENCE_SECONDS)
    lonely.plug_in()

    assert (ended.output, ended.lease_generation) == ([lonely.name, other.name], 2)
    # Back in the network it works again, and has not touched the run that it lost.
    other.pull_cable()
    second = await client.jobs.work.trigger("go")
    assert (await client.wait_for_run(second.id, timeout=PATIENCE_SECONDS)).output == [lonely.name] * 2
    assert await client.get_run(run.id) == ended
    steps = [(step.name, step.output) for step in await client.get_steps(run.id)]
    assert steps == [("first", lonely.name), ("second", other.name)]
