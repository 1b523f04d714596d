"""What a job logs, each line as part of the step in whose code it is written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from durably.core.clock import Clock
from durably.core.events import LogWriteEvent
from durably.core.json_values import encode_leniently
from durably.core.logs import LogLevel
from durably.core.texts import storable, text_of
from durably.engine.abort import AbortSignal
from durably.engine.event_hub import EventHub
from durably.engine.loop_thread import LoopThread

current_step: Final[ContextVar[tuple[JobLog, str] | None]] = ContextVar("durably_current_step", default=None)
"""The step that the running code belongs to, and the log of its run: a step may execute other runs."""

log = logging.getLogger("durably")


class JobLog:
    """The log of one run; `about` is what its events say of the run."""

    def __init__(
        self, about: dict[str, Any], signal: AbortSignal, hub: EventHub, clock: Clock, loop_thread: LoopThread
    ) -> None:
        self._about = about
        self._signal = signal
        self._hub = hub
        self._clock = clock
        self._loop_thread = loop_thread

    def write(self, level: LogLevel, message: str, data: Any, *, has_data: bool = False) -> None:
        """Write a line, from any thread."""
        text = storable(message) if isinstance(message, str) else text_of(message)
        if self._signal.unseen_reason == "lease-lost":
            # The log of the run is for whoever holds it now to write.
            log.warning("run %s, after its lease was lost: %s", self._about["run_id"], text)
            return
        event = LogWriteEvent(
            timestamp=self._clock.now(),
            **self._about,
            step_name=self.step_of_this_code(),
            level=level,
            message=text,
            data_json=encode_leniently(data) if has_data else None,
        )
        self._loop_thread.call(lambda: self._hub.announce(event))

    def step_of_this_code(self) -> str | None:
        """Return the step of this run whose code calls this, None for the job's own."""
        current = current_step.get()
        return current[1] if current is not None and current[0] is self else None

    def enter_step(self, name: str) -> Callable[[], None]:
        """Attribute what this thread logs to a step, until the returned function is called."""
        token = current_step.set((self, name))
        return lambda: current_step.reset(token)
