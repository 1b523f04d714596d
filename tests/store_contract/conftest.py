"""One suite, every database: `database` is the URL of a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store_contract.factories import DATABASES, PRIVATE

SHARED = [name for name in DATABASES if name not in PRIVATE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every database; one that opens it twice only where others can see it."""
    if "database" in metafunc.fixturenames:
        is_shared = metafunc.definition.get_closest_marker("two_processes") is not None
        metafunc.parametrize("database", SHARED if is_shared else list(DATABASES), indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a fresh database."""
    with DATABASES[request.param](tmp_path) as url:
        yield url
