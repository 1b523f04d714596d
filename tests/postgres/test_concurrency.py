"""R7, L1: concurrency keys and claims hold between processes, and nobody waits in a circle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import asyncpg

from durably import ConflictError, StepContext, define_job
from tests.conftest import OpenDurably, until
from tests.postgres.server import PostgresServer
from tests.postgres.shared import shared_server

ROOT = Path(__file__).parent.parent.parent


def keyed_job(name: str, holders: Counter[str], most: Counter[str]) -> object:
    @define_job(name=name)
    async def job(step: StepContext, input: str) -> str:
        holders[input] += 1
        most[input] = max(most[input], holders[input])
        await step.run("hold", hold)
        holders[input] -= 1
        return input

    return job


async def hold() -> None:
    await asyncio.sleep(0.002)


async def deadlocks(server: PostgresServer, database: str) -> int:
    # The statistics of a session arrive when it ends or has nothing to do.
    name = database.rpartition("/")[2]
    (row,) = await asyncio.to_thread(server.sql, f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'")
    return int(row)


async def test_eight_workers_never_hold_a_hot_key_twice(database: str, open_durably: OpenDurably) -> None:
    """R7: the key is global, whichever of two jobs its runs belong to, and no two claimers wait for each other."""
    holders: Counter[str] = Counter()
    most: Counter[str] = Counter()
    jobs = [keyed_job(name, holders, most) for name in ("red", "blue")]
    workers = [await open_durably(*jobs, polling_interval=0.05) for _ in range(8)]
    await asyncio.gather(*(worker.start() for worker in workers))
    keys = ("hot", "warm")

    async def keep_busy(worker_index: int) -> int:
        done = 0
        for n in range(12):
            handle = workers[worker_index].jobs["red" if n % 2 else "blue"]
            key = keys[(worker_index + n) % 2]
            try:
                run = await handle.trigger(key, concurrency_key=key)
            except ConflictError:
                continue
            await workers[worker_index].wait_for_run(run.id, timeout=60)
            done += 1
        return done

    done = await asyncio.gather(*(keep_busy(index) for index in range(8)))

    assert sum(done) > 0
    assert set(most.values()) == {1}
    assert await deadlocks(shared_server(), database) == 0


TRIGGERER = """
import asyncio, sys
from durably import ConflictError, create_durably, define_job

@define_job(name="work")
def work(step, input: int) -> int:
    return input

async def main() -> None:
    durably = create_durably(database=sys.argv[1], jobs={"work": work})
    print("ready", flush=True)
    sys.stdin.readline()
    created = 0
    for n in range(60):
        one = durably.jobs.work.trigger(n, idempotency_key=f"i{n}")
        two = durably.jobs.work.trigger(n, concurrency_key=f"c{n}")
        results = await asyncio.gather(one, two, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ConflictError):
                raise result
            created += not isinstance(result, BaseException) and result.disposition == "created"
    print(created, flush=True)
    await durably.close()

asyncio.run(main())
"""


async def test_two_processes_that_race_for_keys_make_one_run_of_each(database: str, open_durably: OpenDurably) -> None:
    """R6, R7: one process gets the run, the other is told of it or refused."""
    durably = await open_durably()
    processes = [
        subprocess.Popen(  # noqa: ASYNC220 - starting one takes no time worth waiting for
            [sys.executable, "-c", TRIGGERER, database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [(await asyncio.to_thread(process.communicate, None, 60))[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    assert sum(int(answer) for answer in answers) == 120
    assert len(await durably.get_runs(status="pending")) == 120


async def test_the_database_itself_refuses_a_second_lease_of_a_key(database: str, open_durably: OpenDurably) -> None:
    """R7: whoever writes to the tables, one key is leased once."""
    await open_durably()
    connection = await asyncpg.connect(database)
    insert = (
        "INSERT INTO durably_runs (id, job_name, input, status, concurrency_key, created_at, updated_at)"
        " VALUES ($1, $2, '1', 'leased', 'k', '', '')"
    )
    await connection.execute(insert, "one", "red")
    refused = await asyncio.gather(connection.execute(insert, "two", "blue"), return_exceptions=True)
    await connection.close()

    assert isinstance(refused[0], asyncpg.UniqueViolationError)


async def test_migrations_of_many_processes_at_once_happen_once(database: str, open_durably: OpenDurably) -> None:
    """D2: each finds the schema up to date, whoever brought it there."""
    instances = [await open_durably(migrate=False) for _ in range(8)]

    await asyncio.gather(*(each.migrate() for each in instances))

    connection = await asyncpg.connect(database)
    versions = await connection.fetch("SELECT version FROM durably_schema_versions ORDER BY version")
    await connection.close()
    assert [row["version"] for row in versions] == [1, 2]


async def test_runs_that_another_claimer_looks_at_are_not_missed(database: str, open_durably: OpenDurably) -> None:
    """W1: rows that are locked for a moment are looked at again, not left until the next poll."""

    @define_job(name="work")
    async def work(step: StepContext, input: int) -> int:
        return input

    durably = await open_durably(work, polling_interval=60)
    run = await durably.jobs.work.trigger(1)
    connection = await asyncpg.connect(database)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT 1 FROM durably_runs WHERE id = $1 FOR UPDATE", run.id)

    claiming = asyncio.create_task(durably.process_one())
    await until(lambda: _has_looked(connection))
    await transaction.rollback()

    assert await claiming is True
    await connection.close()


async def _has_looked(connection: asyncpg.Connection) -> bool:
    # Inside of a transaction the server shows the same picture again and again, unless told to look.
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    rows = await connection.fetch(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%Lease the oldest%' AND pid <> pg_backend_pid()"
    )
    return bool(rows)
