"""Says which step of which run blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from durably.core.clock import Clock
from durably.engine.held_lease import HeldLease
from durably.engine.loop_thread import LoopThread

_BLOCKED_SECONDS: Final = 1.0

log = logging.getLogger("durably")


class LoopWatch:
    """Asks the event loop for a sign of life; used by another thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._has_answered = True
        self._asked_at = 0.0
        self._report_after = _BLOCKED_SECONDS

    def look(self, loop_thread: LoopThread, leases: Sequence[HeldLease]) -> None:
        """Say what blocks the event loop, once per blockage and again each time it has lasted twice as long."""
        now = self._clock.monotonic()
        if self._has_answered:
            self._ask(loop_thread, now)
            return
        blocked = now - self._asked_at
        if blocked >= self._report_after:
            self._report_after *= 2
            log.warning(
                "the event loop has been blocked for %.1f s by %s; its lease is kept, but nothing else in this process "
                "moves. Make the step a plain `def` (it runs in a thread), or await what takes long.%s",
                blocked,
                _what_is_on(loop_thread, leases),
                _where(loop_thread.thread_id),
            )

    def _ask(self, loop_thread: LoopThread, now: float) -> None:
        self._has_answered = False
        self._asked_at = now
        self._report_after = _BLOCKED_SECONDS
        loop_thread.call_soon(self._answer)

    def _answer(self) -> None:
        self._has_answered = True


def _what_is_on(loop_thread: LoopThread, leases: Sequence[HeldLease]) -> str:
    task = asyncio.current_task(loop_thread.loop)
    for lease in leases:
        if task is not None and task in lease.tasks:
            step = lease.tasks[task]
            part = f"step {step!r}" if step is not None else "its code between steps"
            return f"run {lease.claim.run_id} of job {lease.run.job_name!r}, {part}"
    return "code outside of any run"


def _where(thread_id: int) -> str:
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way to another thread's stack
    if frame is None:
        return ""
    return "\nIt is at:\n" + "".join(traceback.format_stack(frame)[-3:]).rstrip()
