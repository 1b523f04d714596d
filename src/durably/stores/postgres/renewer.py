"""Lease renewal on a connection and an event loop of its own, for a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.core.clock import from_text
from durably.core.leases import Claim
from durably.stores.postgres import statements as sql
from durably.stores.postgres.connections import Connection, Server, close
from durably.stores.postgres.errors import LOST

log = logging.getLogger("durably.postgres")


class PostgresLeaseRenewer:
    """Renews leases; connected at the first use, in the thread that uses it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        """Prolong what is still held and not expired; return the renewed claims by run id.

        One whose row somebody held up for too long is returned as it was.
        """
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        renewed: dict[str, Claim] = {}
        try:
            # A renewal that takes longer than this is of no use; the next one may fare better.
            self._loop.run_until_complete(
                asyncio.wait_for(self._renew_or_reconnect(claims, lease_seconds, renewed), lease_seconds / 3)
            )
        except Exception as error:
            explained = self._server.explain(error)
            if not renewed:
                raise explained from error
            # Somebody holds up a row or two: that must not take the other leases.
            log.warning("%d of %d leases could not be renewed: %r", len(claims) - len(renewed), len(claims), explained)
            return {claim.run_id: claim for claim in claims} | renewed
        return renewed

    def close(self) -> None:
        """Close the connection."""
        if self._loop is None:
            return
        if self._connection is not None:
            self._loop.run_until_complete(close(self._connection))
            self._connection = None
        # The socket of a connection that was given up is closed in the next turn of its loop.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self._loop = None

    async def _renew_or_reconnect(
        self, claims: Sequence[Claim], lease_seconds: float, renewed: dict[str, Claim]
    ) -> None:
        try:
            await self._renew(claims, lease_seconds, renewed)
        except LOST:
            # Between two renewals nobody notices that a connection has died.
            await self._renew(claims, lease_seconds, renewed)

    async def _renew(self, claims: Sequence[Claim], lease_seconds: float, renewed: dict[str, Claim]) -> None:
        by_id = {claim.run_id: claim for claim in claims}

        def note(rows: Sequence[Any]) -> None:
            for row in rows:
                renewed[row["id"]] = replace(by_id[row["id"]], expires_at=from_text(row["lease_expires_at"]))

        generations = [claim.generation for claim in by_id.values()]
        note(await self._fetch(sql.RENEW_LEASES, list(by_id), generations, lease_seconds))
        for run_id in by_id.keys() - renewed.keys():
            note(await self._fetch(sql.RENEW_LEASE, run_id, by_id[run_id].generation, lease_seconds))

    async def _fetch(self, statement: str, *values: Any) -> Sequence[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        try:
            return await self._server.fetch(self._connection, statement, *values)
        except LOST:
            self._connection.terminate()
            raise
