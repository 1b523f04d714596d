"""A real libSQL server for tests: `tursodb --sync-server`, which speaks Hrana over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest

NODE_FOLDER: Final = Path(__file__).parent / "node"
_START_SECONDS: Final = 30.0


class LibsqlServer:
    """A server on a database file; it can be stopped and started again on the same file and port."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._program = program()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Return the URL for `create_durably(database=...)`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and return when it answers."""
        self._process = subprocess.Popen(
            [self._program, str(self._database), "--sync-server", f"127.0.0.1:{self.port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # It leaves its temporary files behind when it is killed.
            env={**os.environ, "TMPDIR": str(self._database.parent)},
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._ask("SELECT 1")
                return
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, f"the server ended with {self._process.returncode}"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def ask(self, *statements: str) -> list[list[Any]]:
        """Return the rows of the last statement, read beside the library under test.

        Not on the event loop: the server serves one connection at a time, and may be waiting for ours.
        """
        return await asyncio.to_thread(self._ask, *statements)

    def _ask(self, *statements: str) -> list[list[Any]]:
        requests = [{"type": "execute", "stmt": {"sql": sql, "want_rows": True}} for sql in statements]
        request = urllib.request.Request(f"{self.url}/v2/pipeline", json.dumps({"requests": requests}).encode())
        with urllib.request.urlopen(request, timeout=_START_SECONDS) as response:
            results = json.load(response)["results"]
        for result in results:
            assert result["type"] == "ok", result
        return [[cell.get("value") for cell in row] for row in results[-1]["response"]["result"]["rows"]]


@lru_cache(maxsize=1)
def program() -> str:
    """Return the path of `tursodb`, brought by npm from the lock file when it is not there yet."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which brings the libSQL server")
    found = _find_program()
    if found is None:
        # Not `npm ci`: the lock file has the server of one kind of machine only, and it refuses that.
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        found = _find_program()
    if found is None:
        pytest.skip("there is no libSQL server for this kind of machine in the npm package turso")
    return str(found)


def _find_program() -> Path | None:
    folder = NODE_FOLDER / "node_modules" / "@tursodatabase"
    return next(iter([*folder.glob("cli-*/tursodb"), *folder.glob("cli-*/tursodb.exe")]), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(directory: Path) -> Iterator[LibsqlServer]:
    """Yield a server on an empty database."""
    server = LibsqlServer(directory / "libsql.db")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def libsql_database(directory: Path) -> Iterator[str]:
    """Yield the URL of an empty database: a factory of the store contract."""
    with running_server(directory) as server:
        yield server.url
