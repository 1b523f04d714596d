"""A fresh database for each test, and processes to kill. Another database is another `database` fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.campaign import Campaign
from tests.crash.processes import Processes


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URL of a database that several processes can share."""
    return f"sqlite:///{tmp_path / 'crash.db'}"


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    """Give what starts processes; none is left behind."""
    async with Processes(tmp_path / "stderr.txt") as processes:
        yield processes


@pytest.fixture
def campaign(processes: Processes, database: str, tmp_path: Path) -> Campaign:
    """Give a series of lives on one database."""
    return Campaign(processes, database, tmp_path)
