"""What a `postgresql://` URL says, to the driver and to us."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from durably.core.errors import ValidationError

_SMALLEST_POOL: Final = 4
_DEFAULT_POOL: Final = 8
_DEFAULT_CONNECT_SECONDS: Final = 10.0
_DEFAULT_COMMAND_SECONDS: Final = 30.0
_LONGEST_SCHEMA_NAME: Final = 63

# Understood by the driver as libpq would; anything else in a URL is a setting of the server.
_DRIVER: Final = frozenset(
    [
        "host",
        "port",
        "user",
        "password",
        "passfile",
        "dbname",
        "database",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "krbsrvname",
        "gsslib",
    ]
)
# Parts of libpq that need nothing here: a silent peer is noticed by the time limit of every statement.
_NEEDLESS: Final = frozenset(
    [
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "client_encoding",
        "fallback_application_name",
        "gssencmode",
        "sslcompression",
        "sslsni",
    ]
)
_CHOICES: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_REFUSED: Final = frozenset(
    ["channel_binding", "hostaddr", "load_balance_hosts", "replication", "requirepeer", "require_auth"]
)
_PORT: Final = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])(?::(\d*))?\Z", re.ASCII)
_LARGEST_PORT: Final = 65_535
_SETTING: Final = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.]*)=(.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The options of one URL. `dsn` and `server_settings` go to the driver; durations are in seconds."""

    dsn: str
    name: str
    server_settings: dict[str, str]
    pool_size: int
    schema: str | None
    pgbouncer: bool
    direct: tuple[str, int | None] | None
    connect_seconds: float
    command_seconds: float
    files: dict[str, str]

    @staticmethod
    def parse(url: str) -> PostgresOptions:
        """Return the options of a URL. Raises `ValidationError` naming the parameter that is wrong."""
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        own = {name: given.pop(name, None) for name in ("pool_size", "schema", "pgbouncer", "direct")}
        connect = given.pop("connect_timeout", None)
        command = given.pop("command_timeout", None)
        settings = _settings(given)
        driver = {name: value for name, value in given.items() if name in _DRIVER}
        _check_driver(parts.netloc, driver)
        if "," in parts.netloc + driver.get("host", ""):
            # Of several hosts one is the primary, and only that one can be written.
            driver.setdefault("target_session_attrs", "read-write")
        return PostgresOptions(
            dsn=parts._replace(query=urlencode(driver, quote_via=quote)).geturl(),
            name=_describe(url),
            server_settings=settings,
            pool_size=_whole("pool_size", own["pool_size"], _DEFAULT_POOL, _SMALLEST_POOL),
            schema=_schema(own["schema"]),
            pgbouncer=_flag("pgbouncer", own["pgbouncer"]),
            direct=_address("direct", own["direct"]),
            connect_seconds=_seconds("connect_timeout", connect, _DEFAULT_CONNECT_SECONDS),
            command_seconds=_seconds("command_timeout", command, _DEFAULT_COMMAND_SECONDS),
            files={name: driver[name] for name in _FILES if name in driver},
        )

    def arguments(self, *, direct: bool) -> dict[str, Any]:
        """Return what the driver's `connect` is given; `direct` goes past the pooler where there is one."""
        is_pooled = self.pgbouncer and not (direct and self.direct is not None)
        arguments: dict[str, Any] = {"dsn": self.dsn, "timeout": self.connect_seconds}
        if direct and self.direct is not None:
            arguments["host"], arguments["port"] = self.direct[0], self.direct[1] or 5432
        if is_pooled:
            # Behind a transaction pooler the next statement may meet another server session.
            arguments["statement_cache_size"] = 0
        else:
            arguments["server_settings"] = self.server_settings
        return arguments

    @property
    def direct_name(self) -> str:
        """Return the database as messages name it on the way past the pooler, if there is one."""
        return (
            self.name if self.direct is None else f"{self.name}, at direct={self.direct[0]}:{self.direct[1] or 5432},"
        )

    def missing_file(self) -> str | None:
        """Return the parameter that names a file which is not there, as it stands in the URL."""
        return next(
            (f"{name}={path}" for name, path in self.files.items() if not Path(path).expanduser().exists()), None
        )

    @property
    def can_listen(self) -> bool:
        """Tell whether there is a way to the server that keeps a session, as LISTEN needs it."""
        return not self.pgbouncer or self.direct is not None


def _check_driver(netloc: str, driver: dict[str, str]) -> None:
    for name, choices in _CHOICES.items():
        if name in driver and driver[name] not in choices:
            raise _refuse(name, driver[name], f"one of {', '.join(choices)}")
    hosts = netloc.rpartition("@")[2].split(",")
    ports = [match[1] if (match := _PORT.match(host)) else host for host in hosts]
    for port in [*filter(None, ports), *(driver["port"].split(",") if "port" in driver else ())]:
        if not (port.isascii() and port.isdigit() and int(port) <= _LARGEST_PORT):
            raise _refuse("port", port, f"a whole number up to {_LARGEST_PORT}")


def _settings(given: dict[str, str]) -> dict[str, str]:
    for name in sorted(_REFUSED & given.keys()):
        raise _refuse(name, given[name], "left out: the driver, asyncpg, cannot honour it")
    settings = {
        name: value
        for name, value in given.items()
        if name not in _DRIVER and name not in _NEEDLESS and name != "options"
    }
    for argument in _option_arguments(given.get("options", "")):
        match = _SETTING.match(argument)
        if match is None:
            raise _refuse_options(given["options"])
        settings[match[1]] = match[2]
    settings.setdefault("application_name", "durably")
    return settings


def _option_arguments(text: str) -> list[str]:
    arguments: list[str] = []
    try:
        words = shlex.split(text)
    except ValueError:
        # A quote that is never closed.
        raise _refuse_options(text) from None
    for word in words:
        if arguments and arguments[-1] == "-c":
            arguments[-1] += word
        else:
            arguments.append(word)
    return arguments


def _describe(url: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    hosts = parts.netloc.rpartition("@")[2] or query.get("host", "")
    database = unquote(parts.path.lstrip("/")) or query.get("dbname", query.get("database", ""))
    return f"database postgresql://{hosts}/{database}"


def _schema(value: str | None) -> str | None:
    if value is not None and (not value or "\x00" in value or len(value.encode()) > _LONGEST_SCHEMA_NAME):
        raise _refuse("schema", value, f"the name of a schema, at most {_LONGEST_SCHEMA_NAME} bytes")
    return value


def _flag(name: str, value: str | None) -> bool:
    if value not in (None, "true", "false"):
        raise _refuse(name, value, "true or false")
    return value == "true"


def _address(name: str, value: str | None) -> tuple[str, int | None] | None:
    if value is None:
        return None
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise _refuse(name, value, "HOST or HOST:PORT, the server itself behind the pooler")
    return host, port


def _whole(name: str, value: str | None, default: int, least: int) -> int:
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise _refuse(name, value, f"a whole number, {least} or more")
    return int(value)


def _seconds(name: str, value: str | None, default: float) -> float:
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise _refuse(name, value, "a number of seconds above 0")
    return seconds


def _refuse_options(value: str) -> ValidationError:
    return _refuse("options", value, "settings like '-c name=value'")


def _refuse(name: str, value: object, allowed: str) -> ValidationError:
    return ValidationError(
        f"Invalid database option {name}={value!r}: must be {allowed}", field="database", value=value
    )
