"""Another program that writes to the tables: the same statement on every database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import urllib.request
from contextlib import closing

import asyncpg


async def write(database: str, statement: str) -> None:
    """Perform a statement without values behind everybody's back."""
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement)
    elif database.startswith("postgresql"):
        connection = await asyncpg.connect(database)
        await connection.execute(statement)
        await connection.close()
    else:
        # Not on the event loop: the server serves one connection at a time, and may be waiting for ours.
        await asyncio.to_thread(_post, database, statement)


def _post(url: str, statement: str) -> None:
    body = json.dumps({"requests": [{"type": "execute", "stmt": {"sql": statement, "want_rows": True}}]})
    with urllib.request.urlopen(f"{url}/v2/pipeline", body.encode()) as response:
        assert json.load(response)["results"][0]["type"] == "ok"
