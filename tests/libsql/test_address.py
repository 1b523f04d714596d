"""What a URL of a libSQL database may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably import ValidationError, create_durably
from durably.stores.libsql.address import Address


@pytest.mark.parametrize(
    ("url", "reached_at"),
    [
        ("libsql://db-org.turso.io?authToken=secret", "https://db-org.turso.io"),
        ("libsql://127.0.0.1:8080?tls=0", "http://127.0.0.1:8080"),
        ("https://example.com/tenant/", "https://example.com/tenant"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_where_the_server_is_reached(url: str, reached_at: str) -> None:
    assert Address.parse(url).url == reached_at


def test_the_token_is_taken_and_never_shown() -> None:
    durably = create_durably(database="libsql://host?authToken=s3cret")

    assert Address.parse("libsql://host?authToken=s3cret").token == "s3cret"
    assert durably.storage.name == "database https://host"
    assert "s3cret" not in repr(durably)


def test_how_often_to_look_is_configurable() -> None:
    assert Address.parse("libsql://host").poll_seconds == 0.5
    assert Address.parse("libsql://host?poll_interval=2.5").poll_seconds == 2.5


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://?authToken=s3cret", "names no host"),
        ("libsql://user:s3cret@host", "user or password"),
        ("libsql://host:s3cret", "the port is not a number up to 65535"),
        ("libsql://host:99999?authToken=s3cret", "the port 99999 is not a number up to 65535"),
        ("libsql://[host?authToken=s3cret", "expected one of"),
        ("libsql://host?authtoken=s3cret", "libSQL knows authToken"),
        ("libsql://host?tls=yes&authToken=s3cret", "must be 0 or 1"),
        ("http://host?tls=1&authToken=s3cret", "contradicts"),
        ("libsql://host?poll_interval=0&authToken=s3cret", "0.01 or more"),
        ("libsql://host?poll_interval=often&authToken=s3cret", "0.01 or more"),
        ("libsql://host?poll_interval=nan", "0.01 or more"),
    ],
)
def test_what_is_wrong_is_named_without_the_token(url: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        create_durably(database=url)

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("form", ["libsql:{}", "libsql:///{}"])
async def test_a_local_libsql_database_is_a_sqlite_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "local.db"
    durably = create_durably(database=form.format(path))

    await durably.migrate()
    await durably.close()

    assert path.is_file()


def test_a_local_libsql_database_needs_a_path() -> None:
    with pytest.raises(ValidationError):
        create_durably(database="libsql://")
