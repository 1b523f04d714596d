"""A database that Python and the TypeScript library share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.postgres.shared import fresh_database
from tests.typescript.actor import TypeScriptProgram, install_typescript_library


@dataclass(frozen=True)
class SharedDatabase:
    """The same database, as each side names it."""

    python: str
    typescript: str


StartTypeScript = Callable[..., Awaitable[TypeScriptProgram]]


@pytest.fixture(scope="session")
def typescript_library() -> None:
    install_typescript_library()


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedDatabase]:
    if request.param == "sqlite":
        path = tmp_path / "shared.db"
        yield SharedDatabase(f"sqlite:///{path}", str(path))
        return
    with fresh_database() as url:
        yield SharedDatabase(url, url)


@pytest.fixture
def database(shared: SharedDatabase) -> str:
    return shared.python


@pytest.fixture
async def start_typescript(typescript_library: None, shared: SharedDatabase) -> AsyncIterator[StartTypeScript]:
    """Start programs in TypeScript on the database; they end with the test."""
    started: list[TypeScriptProgram] = []

    async def start(*options: str) -> TypeScriptProgram:
        program = await TypeScriptProgram.start(shared.typescript, *options)
        started.append(program)
        return program

    yield start
    for program in started:
        await program.close()
