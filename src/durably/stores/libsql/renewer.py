"""Lease renewal on connections of its own, for a thread of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from durably.core.clock import from_text
from durably.core.leases import Claim
from durably.stores.libsql import statements as sql
from durably.stores.libsql.client import BlockingClient, Server
from durably.stores.libsql.hrana import Statement


class LibsqlLeaseRenewer:
    """Renews leases in one statement, by the server's clock."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: BlockingClient | None = None

    def renew(self, claims: Sequence[Claim], lease_seconds: float) -> dict[str, Claim]:
        """Prolong what is still held and not expired; return the renewed claims by run id."""
        if self._client is None:
            self._client = BlockingClient(self._server)
        held = json.dumps([[claim.run_id, claim.generation] for claim in claims])
        rows = self._client.query(Statement(sql.RENEW_LEASES, (sql.later(lease_seconds), held, held)))
        expiries = {run_id: from_text(expires_at) for run_id, expires_at in rows}
        return {
            claim.run_id: replace(claim, expires_at=expiries[claim.run_id])
            for claim in claims
            if claim.run_id in expiries
        }

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None
