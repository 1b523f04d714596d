"""What a URL may say, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

import asyncpg
import pytest

from durably import (
    SchemaTooNewError,
    StepContext,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    create_durably,
    define_job,
)
from durably.core.store import Position
from durably.stores.postgres.options import PostgresOptions
from tests.conftest import OpenDurably
from tests.postgres.proxy import Proxy
from tests.postgres.server import free_port
from tests.postgres.shared import shared_server


@define_job(name="echo")
def echo(step: object, input: int) -> int:
    return input


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("pool_size=3", "pool_size"),
        ("pool_size=many", "pool_size"),
        ("schema=", "schema"),
        ("pgbouncer=yes", "pgbouncer"),
        ("direct=:1", "direct"),
        ("command_timeout=0", "command_timeout"),
        ("connect_timeout=soon", "connect_timeout"),
        ("options=nonsense", "options"),
        ("options='-c work_mem=4MB", "options"),
        ("channel_binding=require", "channel_binding"),
        ("sslmode=zz", "sslmode"),
        ("sslnegotiation=perhaps", "sslnegotiation"),
        ("target_session_attrs=writable", "target_session_attrs"),
        ("port=many", "port"),
        ("port=5432,65536", "port"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_named(query: str, named: str) -> None:
    with pytest.raises(ValidationError, match=f"Invalid database option {named}="):
        create_durably(database=f"postgresql://localhost/jobs?{query}")


@pytest.mark.parametrize("hosts", ["h:many", "h:65536", "a:5432,b:54x", "[::1]:many"])
def test_a_port_that_is_none_is_refused(hosts: str) -> None:
    with pytest.raises(ValidationError, match=r"Invalid database option port=.* a whole number up to 65535"):
        create_durably(database=f"postgresql://u:p%40ss@{hosts}/jobs")


@pytest.mark.parametrize(
    "address",
    [
        "h",
        "h:",
        "h:5432",
        "[::1]",
        "[::1]:5432",
        "a:1,b,[::1]:3",
        "u:p:w@h:1",
        "%2Fvar%2Frun%2Fpostgresql",
        "/jobs?host=/var/run/postgresql&port=5432",
        "/jobs?host=a,b&port=1,2&target_session_attrs=prefer-standby",
        "h/jobs?sslmode=verify-ca&sslnegotiation=direct&krbsrvname=p&gsslib=gssapi&gssencmode=disable",
        "h/jobs?ssl_min_protocol_version=TLSv1.2&sslcompression=0&sslsni=1&tcp_user_timeout=1&client_encoding=auto",
    ],
)
def test_what_libpq_understands_is_taken(address: str) -> None:
    create_durably(database=f"postgresql://{address}")


def test_parameters_of_libpq_reach_the_driver_or_the_server() -> None:
    options = PostgresOptions.parse(
        "postgresql://u:p%40ss@h/d?sslmode=verify-full&sslrootcert=%2Fca.pem&application_name=billing"
        "&options=-c%20work_mem%3D8MB%20-csearch_path%3Da&synchronous_commit=off&keepalives=1&connect_timeout=3"
    )
    assert options.dsn == "postgresql://u:p%40ss@h/d?sslmode=verify-full&sslrootcert=%2Fca.pem"
    assert options.connect_seconds == 3
    assert options.server_settings == {
        "application_name": "billing",
        "work_mem": "8MB",
        "search_path": "a",
        "synchronous_commit": "off",
    }


def test_of_several_hosts_the_one_that_can_be_written_is_used() -> None:
    assert "target_session_attrs=read-write" in PostgresOptions.parse("postgresql://a:1,b:2/d").dsn
    assert "target_session_attrs=any" in PostgresOptions.parse("postgresql://a,b/d?target_session_attrs=any").dsn


def test_a_secret_is_in_no_message() -> None:
    durably = create_durably(database="postgresql://me:secret@db.example:5433/jobs?password=secret")
    assert durably.storage.name == "database postgresql://db.example:5433/jobs"


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_driver(name: str, *rest: Any) -> Any:
        if name == "asyncpg":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_driver)
    with pytest.raises(ValidationError, match=r"pip install 'durably\[postgres\]'"):
        create_durably(database="postgresql://localhost/jobs")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    durably = create_durably(database=f"postgresql://u@127.0.0.1:{free_port()}/jobs")
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await durably.migrate()
    await durably.close()


async def test_a_server_behind_a_pooler_that_is_not_there_is_named() -> None:
    """The URL has two addresses, and the user looks at the one that is wrong."""
    durably = create_durably(database="postgresql://u@pooler:6432/jobs?pgbouncer=true&direct=127.0.0.1:1")
    with pytest.raises(StoreUnavailableError, match=r"at direct=127\.0\.0\.1:1, cannot be reached"):
        await durably.migrate()
    await durably.close()


async def test_a_database_that_does_not_exist_is_said_to_be_missing() -> None:
    durably = create_durably(database=shared_server().url("nowhere"))
    with pytest.raises(StoreError, match="createdb"):
        await durably.migrate()
    await durably.close()


async def test_a_wrong_password_is_refused_and_not_shown(database: str) -> None:
    server = shared_server()
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    server.sql("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    hba.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
    server.sql("SELECT pg_reload_conf()")
    try:
        durably = create_durably(database=database.replace("postgres@", "guarded:wrong-one@"))
        with pytest.raises(StoreError, match="refused the login") as refusal:
            await durably.migrate()
        assert "wrong-one" not in str(refusal.value)
        await durably.close()
    finally:
        hba.write_text(before)
        server.sql("SELECT pg_reload_conf()")
        server.sql("DROP ROLE guarded")


async def test_tables_that_are_not_there_yet_are_named(open_durably: OpenDurably, database: str) -> None:
    durably = await open_durably(echo, migrate=False)
    with pytest.raises(StoreError, match="call init\\(\\) or migrate\\(\\) first"):
        await durably.jobs.echo.trigger(1)


async def test_a_newer_schema_is_refused(open_durably: OpenDurably, database: str) -> None:
    """D2."""
    await open_durably()
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO durably_schema_versions VALUES (99, '')")
    await connection.close()
    with pytest.raises(SchemaTooNewError, match="version 99"):
        await open_durably()


async def test_tables_of_another_application_are_left_alone(open_durably: OpenDurably, database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE durably_runs (mine int)")
    await connection.close()
    with pytest.raises(StoreError, match="belongs to another application"):
        await open_durably()


async def test_two_schemas_of_one_database_know_nothing_of_each_other(open_durably: OpenDurably, database: str) -> None:
    """`schema=`: tables, events and hints are apart."""
    left = await open_durably(echo, database=f"{database}?schema=left", start=True)
    right = await open_durably(echo, database=f'{database}?schema=ri"ght')
    run = await left.jobs.echo.trigger_and_wait(1, timeout=30)

    assert await right.get_run(run.id) is None
    assert (await right.storage.events_after(Position(0), 10)).events == []
    assert (await right.jobs.echo.trigger(2)).disposition == "created"


async def test_connections_stay_within_the_limit(open_durably: OpenDurably, database: str) -> None:
    """`pool_size` is all that one process opens, however many ask at once."""
    durably = await open_durably(echo, database=f"{database}?pool_size=4&application_name=counted", start=True)
    await asyncio.gather(*(durably.get_runs() for _ in range(50)), *(durably.jobs.echo.trigger(n) for n in range(50)))
    connection = await asyncpg.connect(database)
    (row,) = await connection.fetch("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'counted'")
    await connection.close()
    assert 1 <= row["n"] <= 4


async def test_text_that_the_database_cannot_hold_fails_only_its_own_step(open_durably: OpenDurably) -> None:
    """A run whose error holds NUL still ends, and other runs do not notice."""

    @define_job(name="odd")
    async def odd(step: Any, input: int) -> None:
        raise ValueError("a\x00b")

    durably = await open_durably(odd, echo, start=True)
    run = await durably.jobs.odd.trigger(1)
    assert (await durably.jobs.echo.trigger_and_wait(5, timeout=30)).output == 5
    while not (found := await durably.get_run(run.id)) or not found.is_terminal:
        await asyncio.sleep(0.01)
    assert found.error == "a\N{REPLACEMENT CHARACTER}b"


REFUSES_LONG_RESULTS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the server says no' USING ERRCODE = '54000';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON durably_steps FOR EACH ROW WHEN (length(NEW.output) > 1000)
EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize("is_told_why", [True, False])
async def test_a_result_that_the_server_does_not_take_fails_its_step(
    open_durably: OpenDurably, proxy: Proxy, database: str, monkeypatch: pytest.MonkeyPatch, *, is_told_why: bool
) -> None:
    """S3: for good, by name, also where the server just ends the connection, as beyond a gigabyte."""

    @define_job(name="long")
    async def long(step: StepContext, input: int) -> str:
        return await step.run("fetch", lambda: "x" * input)

    durably = await open_durably(long, echo, database=proxy.url(database))
    if is_told_why:
        connection = await asyncpg.connect(database)
        await connection.execute(REFUSES_LONG_RESULTS)
        await connection.close()
    else:
        monkeypatch.setattr("durably.stores.postgres.group_commit._LARGEST_MESSAGE", 2_000)
        proxy.cut_on("x" * 2_000)
    run = await durably.jobs.long.trigger(2_000)
    other = await durably.jobs.echo.trigger(1)
    await durably.process_until_idle()

    failed = await durably.get_run(run.id)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.startswith("result of step 'fetch' cannot be stored, it is 2,002 characters of JSON: ")
    assert "takes no value of this size" in failed.error
    assert (await durably.wait_for_run(other.id, timeout=30)).output == 1


async def test_a_schema_that_an_administrator_made_needs_no_right_to_make_one(database: str) -> None:
    server, name = shared_server(), database.rpartition("/")[2]
    server.sql("CREATE ROLE tenant LOGIN")
    try:
        server.sql("CREATE SCHEMA mine AUTHORIZATION tenant", name)
        durably = create_durably(
            database=f"{database.replace('postgres@', 'tenant@')}?schema=mine", jobs={"echo": echo}
        )
        await durably.migrate()
        assert (await durably.jobs.echo.trigger(1)).disposition == "created"
        await durably.close()
    finally:
        server.sql("DROP SCHEMA mine CASCADE", name)
        server.sql("DROP ROLE tenant")


async def test_many_migrate_at_once_whatever_the_default_isolation_is(database: str) -> None:
    """D2: what is found under the lock is what is there by then."""
    server, name = shared_server(), database.rpartition("/")[2]
    server.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    instances = [create_durably(database=database) for _ in range(4)]
    try:
        await asyncio.gather(*[each.migrate() for each in instances])
    finally:
        server.sql(f"ALTER DATABASE {name} RESET default_transaction_isolation")
        for each in instances:
            await each.close()


async def test_a_row_that_somebody_holds_up_takes_no_other_lease(open_durably: OpenDurably, database: str) -> None:
    """L3: the others are renewed, and of that one it is said that nothing is known."""
    durably = await open_durably(echo)
    await durably.jobs.echo.batch_trigger([1, 2])
    held_up, other = [each.claim for each in await durably.storage.claim("here", ["echo"], 2, 1.5)]
    holder = await asyncpg.connect(database)
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM durably_runs WHERE id = $1 FOR UPDATE", held_up.run_id)
        renewer = durably.storage.lease_renewer()
        renewed = await asyncio.to_thread(renewer.renew, [held_up, other], 1.5)
        await asyncio.to_thread(renewer.close)
    await holder.close()

    assert renewed[held_up.run_id] is held_up
    assert renewed[other.run_id].expires_at > other.expires_at
