"""Fresh databases, and processes to kill. To run on another database, let `new_database` make its URLs."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.crash.campaign import Campaign
from tests.crash.processes import Processes


@pytest.fixture
def new_database(tmp_path: Path) -> Callable[[], str]:
    """Give what makes the URL of an empty database that several processes can share."""
    numbers = itertools.count(1)
    return lambda: f"sqlite:///{tmp_path / f'crash-{next(numbers)}.db'}"


@pytest.fixture
def database(new_database: Callable[[], str]) -> str:
    """Return the URL of an empty database."""
    return new_database()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    """Give what starts processes; none is left behind."""
    async with Processes(tmp_path / "stderr.txt") as processes:
        yield processes


@pytest.fixture
def campaign(processes: Processes, database: str, tmp_path: Path) -> Campaign:
    """Give a series of lives on one database."""
    return Campaign(processes, database, tmp_path)
