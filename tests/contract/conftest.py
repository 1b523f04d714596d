"""The contract server as a process of its own, one for all tests of the session that need it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def contract_server() -> Iterator[str]:
    """Return the base URL of a running contract server."""
    command = [sys.executable, "-m", "tests.contract.server", "--port", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("listening on "), line
        try:
            yield line.removeprefix("listening on ").strip()
        finally:
            server.terminate()
