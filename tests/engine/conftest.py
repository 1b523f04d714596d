"""The engine is tested on the store that is always there."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.testing import FakeClock


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URL of a fresh database."""
    return f"sqlite:///{tmp_path / 'engine.db'}"


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves only when the test says so."""
    return FakeClock()
