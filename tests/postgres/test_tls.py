"""TLS and the other parameters of a URL, with a real server and a real certificate authority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from durably import Durably, StoreError, StoreUnavailableError, create_durably, define_job
from tests.postgres.certificates import Authority
from tests.postgres.server import NoPostgres, PostgresServer, postgres_server, server_directory

PASSWORD = "p@ss/word"
HBA = """
hostssl all certified all cert clientcert=verify-full
hostssl all guarded all scram-sha-256
hostssl all postgres all trust
host postgres postgres 127.0.0.1/32 trust
"""


@define_job(name="echo")
def echo(step: object, input: int) -> int:
    return input


@dataclass
class Secured:
    """A server whose certificate is for `localhost` and that wants TLS for every database but its own."""

    server: PostgresServer
    authority: Authority
    database: str

    def url(self, *parameters: str, user: str = "postgres", host: str = "localhost") -> str:
        """Return the URL of the database; a parameter may name a file with `=@name`."""
        query = "&".join(
            each.replace("=@", f"={quote(str(self.authority.directory), safe='')}%2F") for each in parameters
        )
        return f"postgresql://{user}@{host}:{self.server.port}/{self.database}?{query}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with ExitStack() as stack:
        authority = Authority(stack.enter_context(server_directory()))
        certificate, key = authority.issue("server", "DNS:localhost")
        for name in ("certified", "nobody"):
            authority.issue(name)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
            "ssl_ca_file": str(authority.certificate),
        }
        authority.certificate.chmod(0o644)
        authority.directory.chmod(0o755)
        try:
            server = stack.enter_context(postgres_server(settings=settings))
        except NoPostgres as error:
            pytest.skip(str(error))
        database = server.create_database().rpartition("/")[2]
        server.sql(f"CREATE ROLE guarded SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        server.sql("CREATE ROLE certified SUPERUSER LOGIN")
        (server.data / "pg_hba.conf").write_text(HBA)
        server.sql("SELECT pg_reload_conf()")
        yield Secured(server, authority, database)


@pytest.fixture(autouse=True)
async def closed_transports() -> AsyncIterator[None]:
    """Let the event loop close what TLS has on top of a connection; that takes it some turns."""
    yield
    for _ in range(50):
        await asyncio.sleep(0)


async def does_a_job(url: str) -> Durably:
    """Execute a run, renewal of its lease included, and return the closed instance."""
    durably = create_durably(database=url, jobs={"echo": echo})
    try:
        await durably.init()
        assert (await durably.jobs.echo.trigger_and_wait(1, timeout=30)).output == 1
    finally:
        await durably.stop(timeout=0)
        await durably.close()
    return durably


async def refusal(url: str) -> StoreError:
    durably = create_durably(database=url)
    try:
        with pytest.raises(StoreError) as raised:
            await durably.migrate()
    finally:
        await durably.close()
    return raised.value


async def test_the_right_host_is_trusted(secured: Secured) -> None:
    await does_a_job(secured.url("sslmode=verify-full", "sslrootcert=@ca.crt", "ssl_min_protocol_version=TLSv1.3"))
    await does_a_job(secured.url("sslmode=verify-ca", "sslrootcert=@ca.crt", host="127.0.0.1"))


async def test_the_wrong_host_is_refused(secured: Secured) -> None:
    """The message says that it is the certificate, and names the host."""
    error = await refusal(secured.url("sslmode=verify-full", "sslrootcert=@ca.crt", host="127.0.0.1"))

    assert "cannot be trusted" in str(error)
    assert "127.0.0.1" in str(error)
    assert not isinstance(error, StoreUnavailableError), "to try again would not help"


async def test_a_certificate_of_an_unknown_authority_is_refused(secured: Secured) -> None:
    stranger = secured.authority.directory / "stranger"
    stranger.mkdir(exist_ok=True)
    Authority(stranger)

    error = await refusal(secured.url("sslmode=verify-full", "sslrootcert=@stranger%2Fca.crt"))

    assert "cannot be trusted" in str(error)


async def test_a_worker_that_meets_a_wrong_certificate_says_so_at_once(secured: Secured) -> None:
    """It is no outage: a trigger does not wait for it to pass."""
    durably = create_durably(
        database=secured.url("sslmode=verify-full", "sslrootcert=@ca.crt", host="127.0.0.1"), jobs={"echo": echo}
    )
    with pytest.raises(StoreError, match="cannot be trusted"):
        await durably.jobs.echo.trigger(1)
    await durably.close()


async def test_a_root_certificate_that_is_not_there_is_named(secured: Secured) -> None:
    error = await refusal(secured.url("sslmode=verify-full", "sslrootcert=@nowhere.crt"))

    assert "sslrootcert=" in str(error)
    assert "nowhere.crt" in str(error)
    assert not isinstance(error, StoreUnavailableError)


async def test_a_server_that_wants_tls_says_so(secured: Secured) -> None:
    error = await refusal(secured.url("sslmode=disable"))

    assert "refused the login" in str(error)
    assert "no encryption" in str(error)


async def test_a_client_shows_its_certificate(secured: Secured) -> None:
    """`sslcert` and `sslkey` go to the driver, for every connection of the process."""
    await does_a_job(
        secured.url(
            "sslmode=verify-full",
            "sslrootcert=@ca.crt",
            "sslcert=@certified.crt",
            "sslkey=@certified.key",
            user="certified",
        )
    )


@pytest.mark.parametrize("shown", [(), ("sslcert=@nobody.crt", "sslkey=@nobody.key")], ids=["none", "another's"])
async def test_a_client_without_the_right_certificate_is_refused(secured: Secured, shown: tuple[str, ...]) -> None:
    error = await refusal(secured.url("sslmode=verify-full", "sslrootcert=@ca.crt", *shown, user="certified"))

    assert "refused the login" in str(error)


async def test_a_password_comes_from_where_libpq_finds_it(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`passfile=`, `PGPASSWORD`, and the URL itself."""
    passfile = tmp_path / "passwords"
    passfile.write_text(f"localhost:*:*:guarded:{PASSWORD}\n")
    passfile.chmod(0o600)
    await does_a_job(secured.url(f"passfile={quote(str(passfile), safe='')}", user="guarded"))

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    await does_a_job(secured.url(user="guarded"))

    monkeypatch.delenv("PGPASSWORD")
    await does_a_job(secured.url(user=f"guarded:{quote(PASSWORD, safe='')}"))


async def test_a_service_names_everything(secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services.conf"
    services.write_text(
        f"[jobs]\nhost=localhost\nport={secured.server.port}\ndbname={secured.database}\nuser=postgres\n"
        f"sslmode=verify-full\nsslrootcert={secured.authority.certificate}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))

    await does_a_job("postgresql:///?service=jobs")


@pytest.mark.parametrize(
    ("parameter", "setting", "value"),
    [
        ("application_name=billing", "application_name", "billing"),
        ("options=-c%20work_mem%3D8MB", "work_mem", "8MB"),
        ("synchronous_commit=off", "synchronous_commit", "off"),
        ("statement_timeout=7s", "statement_timeout", "7s"),
        ("search_path=public", "search_path", "public"),
    ],
)
async def test_a_setting_holds_in_the_sessions_of_the_server(
    secured: Secured, parameter: str, setting: str, value: str
) -> None:
    durably = create_durably(database=secured.url(parameter))
    storage: Any = durably.storage
    (row,) = await storage._open().pool.fetch(f"SELECT current_setting('{setting}') AS value")
    await durably.close()

    assert row["value"] == value
