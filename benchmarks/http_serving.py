"""Servers in processes of their own: durably's handler, and that of the TypeScript library."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_NODE: Final = _HERE / "node"
_NANOSECONDS: Final = 1e9

PLAIN: Final = ("--loop", "asyncio", "--http", "h11")
STANDARD: Final = ("--loop", "uvloop", "--http", "httptools")


@dataclass(frozen=True)
class Server:
    """A server that takes connections."""

    pid: int
    port: int

    @property
    def memory(self) -> float:
        """Return the resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None
        return int(resident[1]) / 1024

    @property
    def processor_time(self) -> float:
        """Return the seconds of processor time that all threads have used."""
        spent = (path.read_text().split()[0] for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"))
        return sum(map(int, spent)) / _NANOSECONDS


def has_standard_uvicorn() -> bool:
    """Tell whether what `uvicorn[standard]` brings is installed: a parser and a loop in C."""
    return find_spec("httptools") is not None and find_spec("uvloop") is not None


@contextmanager
def serve_durably(url: str, *, worker: bool = False, how: tuple[str, ...] = ()) -> Iterator[Server]:
    """Serve a database with uvicorn; `how` says on which loop and parser, its own default otherwise."""
    words = [sys.executable, "-m", "benchmarks.http_server", url, *how, *["--worker"] * worker]
    with _served(words) as server:
        yield server


@contextmanager
def serve_nothing(how: tuple[str, ...]) -> Iterator[Server]:
    """Run uvicorn with an application that answers at once."""
    with _served([sys.executable, "-m", "benchmarks.http_server", *how]) as server:
        yield server


@contextmanager
def serve_typescript(file: Path) -> Iterator[Server]:
    """Serve a SQLite file with Node and the TypeScript library's handler."""
    with _served(["node", str(_NODE / "server.mjs"), str(file)]) as server:
        yield server


def install_typescript() -> None:
    """Install the TypeScript library where it is missing. Raises `RuntimeError` when that fails."""
    if shutil.which("npm") is None:
        raise RuntimeError("The comparison needs Node 20 or newer with npm, and there is no npm on the PATH.")
    installed = _NODE / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= (_NODE / "package-lock.json").stat().st_mtime:
        return
    words = ["npm", "ci", "--no-audit", "--no-fund"]
    finished = subprocess.run(words, cwd=_NODE, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"npm ci failed in {_NODE}:\n{finished.stderr}")


@contextmanager
def _served(words: list[str]) -> Iterator[Server]:
    process = subprocess.Popen(words, cwd=_HERE.parent, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.strip().isdecimal():
            raise RuntimeError(f"{words} ended before it listened, with status {process.wait()}")
        yield Server(process.pid, int(line))
    finally:
        process.kill()
        process.wait()
