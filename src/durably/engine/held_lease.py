"""A lease that this process holds, and what works under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably.core.clock import Clock
from durably.core.leases import Claim
from durably.core.runs import Run
from durably.engine.abort import AbortController


class HeldLease:
    """A lease that this process holds, and the tasks that work under it."""

    def __init__(
        self,
        claim: Claim,
        run: Run[Any],
        claimed_at: float,
        lease_seconds: float,
        clock: Clock,
        lost: Callable[[HeldLease, str], None],
    ) -> None:
        self.claim = claim
        self.run = run
        self.claimed_at = claimed_at
        self.deadline = claimed_at + lease_seconds
        self.controller = AbortController(claim.run_id)
        self.tasks: dict[asyncio.Task[Any], str | None] = {}
        """Which step each task is at; None for the job's own code between steps."""
        self._clock = clock
        self._lost = lost

    def is_held(self) -> bool:
        """Tell whether anything may still be written; gives the lease up when it has run out."""
        if self._clock.monotonic() >= self.deadline:
            self.lose("it could not be renewed in time")
        return self.controller.signal.unseen_reason is None

    def check_held(self) -> None:
        """Raise what ends an execution when nothing may be written any more."""
        if not self.is_held():
            raise self.controller.signal.error()

    def lose(self, why: str) -> None:
        """Stop what works under the lease, and say so once."""
        if self.controller.abort("lease-lost"):
            self._lost(self, why)
