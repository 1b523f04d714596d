"""What is SQLite's own: the file, its locks, its plans, its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durably.testing import FakeClock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database of the test is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def database(path: Path) -> str:
    """Return the URL of a fresh file."""
    return f"sqlite:///{path}"


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves only when the test says so."""
    return FakeClock()


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python programs of the test beside it; whatever still runs at its end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
