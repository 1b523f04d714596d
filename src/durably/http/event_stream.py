"""One client's event stream: from the log to text, throttled, with a heartbeat, and able to be continued."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from durably.core.events import DurablyEvent, RunProgressEvent, TerminalEvent
from durably.core.store import Position, Recorded
from durably.engine.event_feed import EventFeed, LogGapError
from durably.http.cursor import Cursor, sequence_at
from durably.http.throttle import ProgressThrottle

HEARTBEAT_SECONDS: Final = 15.0
_RETRY_MILLISECONDS: Final = (500, 1_500)
_RETRY_ENDED_MILLISECONDS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Replay:
    """An event that stands for the state; `is_whole` with the last of them, when the client has it all."""

    event: DurablyEvent
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the log a stream carries, and how: `wants` picks, `encode` writes an event and its sequence."""

    wants: Callable[[DurablyEvent], bool]
    encode: Callable[[DurablyEvent, int], str]
    ends_with_run: bool


class EventStream:
    """What one client is sent: `opening`, which leads from `start` up to `here`, then what `feed` brings.

    The client's pace is the reader's pace: while nobody takes the next frame, nothing piles up here.
    """

    def __init__(
        self,
        feed: EventFeed,
        selection: Selection,
        throttle_seconds: float,
        *,
        opening: AsyncIterator[Replay | Recorded],
        start: Cursor,
        here: Position,
        state_after_gap: Callable[[], Awaitable[Sequence[Replay]]],
    ) -> None:
        self._feed = feed
        self._selection = selection
        self._throttle = ProgressThrottle(throttle_seconds)
        self._opening = opening
        self._sent = start.position
        self._owed_since = start.held_since
        """From where on the opening tells what was held back when the client left, until it is through."""
        self._here = here
        self._state_after_gap = state_after_gap
        self._has_ended = False

    def close(self) -> None:
        """Leave the hub."""
        self._feed.close()

    async def frames(self) -> AsyncGenerator[str, None]:
        """Yield the text of the stream, frame by frame, until it ends.

        A gap in the log ends it too: a client that comes again is told the state. What it could not be told then, as of
        a run that is gone, it is told before.
        """
        yield f": connected\n{_come_back_soon()}"
        try:
            async for entry in self._opening:
                for frame in self._replay(entry) if isinstance(entry, Replay) else self._take(entry):
                    yield frame
                if self._has_ended:
                    break
            else:
                self._owed_since = None
                self._sent = max(self._sent, self._here)
                # So that a client that has heard of nothing yet can go on from here as well.
                yield self._mark()
                async for frame in self._live():
                    yield frame
        except LogGapError:
            for replay in await self._state_after_gap():
                for frame in self._replay(replay):
                    yield frame
        if self._has_ended:
            # An EventSource that nobody closes comes back after every end, to be told the same.
            yield f"retry: {_RETRY_ENDED_MILLISECONDS}\n\n"

    async def _live(self) -> AsyncIterator[str]:
        time = asyncio.get_running_loop().time
        next_heartbeat = time() + HEARTBEAT_SECONDS
        while not self._has_ended:
            while (progress := self._throttle.due(time())) is not None:
                yield self._frame(progress)
            if time() >= next_heartbeat:
                next_heartbeat = time() + HEARTBEAT_SECONDS
                # The log forgets: a client that comes back must not point to where only others told anything.
                self._sent = max(self._sent, self._feed.caught_up())
                yield f": heartbeat\n{self._mark()}"
            next_due = self._throttle.next_due
            try:
                async with asyncio.timeout_at(next_heartbeat if next_due is None else min(next_due, next_heartbeat)):
                    recorded = await anext(self._feed)
            except TimeoutError:
                recorded = None
            except StopAsyncIteration:
                return
            if recorded is not None:
                for frame in self._take(recorded):
                    yield frame

    def _take(self, recorded: Recorded) -> Iterator[str]:
        event = recorded.event
        is_wanted = self._selection.wants(event)
        if is_wanted and isinstance(event, TerminalEvent):
            held = self._throttle.end(event.run_id)
            if held is not None:
                # Under the position before the end: a client that gets no further is still told the end.
                yield self._frame(held)
            self._has_ended = self._selection.ends_with_run
        self._sent = max(self._sent, recorded.position)
        if is_wanted and not self._holds_back(recorded):
            yield self._frame(recorded)

    def _holds_back(self, recorded: Recorded) -> bool:
        event = recorded.event
        if not isinstance(event, RunProgressEvent):
            return False
        return not self._throttle.admits(event.run_id, recorded, asyncio.get_running_loop().time())

    def _replay(self, replay: Replay) -> Iterator[str]:
        self._has_ended = self._selection.ends_with_run and isinstance(replay.event, TerminalEvent)
        data = f"data: {_one_line(self._selection.encode(replay.event, 0))}\n\n"
        if replay.is_whole:
            self._sent = max(self._sent, self._here)
            yield f"id: {self._cursor()}\n{data}"
        else:
            # Half of a state is nothing to go on from: an empty id makes the client begin again.
            yield f"id:\n{data}"

    def _frame(self, recorded: Recorded) -> str:
        data = _one_line(self._selection.encode(recorded.event, sequence_at(recorded.position)))
        return f"id: {self._cursor()}\ndata: {data}\n\n"

    def _mark(self) -> str:
        return f"id: {self._cursor()}\n\n"

    def _cursor(self) -> Cursor:
        return Cursor(self._sent, self._owed_since or self._throttle.held_since)


def _one_line(json: str) -> str:
    # Another program may have stored its JSON over several lines; within a text they are escaped.
    return json.replace("\r", " ").replace("\n", " ") if "\n" in json or "\r" in json else json


def _come_back_soon() -> str:
    # Browsers would wait for three seconds; not all the same, or a server that restarts meets them all at once.
    pause = random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - it is no secret
    return f"retry: {pause}\n\n"
