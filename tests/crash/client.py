"""The other side: who triggers and looks, and executes nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from durably import Durably, create_durably
from tests.crash.fate import Fate
from tests.crash.jobs import jobs_for
from tests.crash.ledger import Ledger

JOBS: Final = jobs_for(Ledger(os.devnull), Fate(None))


@asynccontextmanager
async def client(database: str) -> AsyncIterator[Durably]:
    """Open an instance that knows the jobs, for a moment: between two of them the database has no connection."""
    durably = create_durably(database=database, jobs=JOBS)
    try:
        yield durably
    finally:
        await durably.close()
