"""Lease renewal on a connection of its own, for a thread of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Final

from durably.core.clock import Clock, to_text
from durably.core.leases import Claim
from durably.stores.sqlite import statements as sql
from durably.stores.sqlite.connections import Connections
from durably.stores.sqlite.database import Database
from durably.stores.sqlite.locking import begin_writing

_BUSY_SECONDS: Final = 2.0


class SqliteLeaseRenewer:
    """Renews leases; opened at the first use, in the thread that uses it."""

    def __init__(self, database: Database, clock: Clock, shared: Connections | None) -> None:
        self._database = database
        self._clock = clock
        self._connection: sqlite3.Connection | None = None if shared is None else shared.writing
        self._turn: AbstractContextManager[object] = nullcontext() if shared is None else shared.lock
        self._is_shared = shared is not None

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        """Prolong what is still held and not expired; return the renewed claims by run id."""
        with self._turn, self._database.errors():
            self._database.files.check()
            connection = self._open()
            begin_writing(connection, lambda waited: waited < _BUSY_SECONDS)
            try:
                renewed = self._renew(connection, claims, lease_seconds)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return renewed

    def close(self) -> None:
        """Close the connection, if it is the renewer's own."""
        if self._connection is not None and not self._is_shared:
            self._connection.close()
        self._connection = None

    def _renew(self, connection: sqlite3.Connection, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        instant = self._clock.now()
        now, expires_at = to_text(instant), instant + timedelta(seconds=lease_seconds)
        return {
            claim.run_id: replace(claim, expires_at=expires_at)
            for claim in claims
            if connection.execute(
                sql.RENEW_LEASE, (to_text(expires_at), now, claim.run_id, claim.generation, now)
            ).rowcount
        }

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._database.connect(writes=True)
            self._connection.execute("PRAGMA busy_timeout = 0")
        return self._connection
