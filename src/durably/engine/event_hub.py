"""Where events from the log go: to listeners, to feeds, to whoever waits for a run, to the worker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal, Protocol

from durably.core.clock import Clock
from durably.core.errors import StoreError
from durably.core.event_codec import encode_events
from durably.core.events import (
    TERMINAL_EVENTS,
    DurablyEvent,
    LogWriteEvent,
    RunLeasedEvent,
    RunProgressEvent,
    RunTriggerEvent,
    WorkerErrorEvent,
)
from durably.core.runs import Run, RunStatus
from durably.core.store import Position, Recorded, Store
from durably.engine.event_bus import EventBus
from durably.engine.event_feed import EventFeed
from durably.engine.interruption import is_being_cancelled
from durably.engine.live_progress import LiveProgress
from durably.engine.loop_thread import LoopThread
from durably.engine.replay import deletion_of, replay_of
from durably.engine.silent_ends import SilentEnds
from durably.tasks import begin_task

_MOST_WITHHELD: Final = 20_000
_NOTED: Final = frozenset({*TERMINAL_EVENTS, RunTriggerEvent, RunLeasedEvent, RunProgressEvent})

TroubleContext = Literal["worker", "execution", "maintenance", "lease-renewal", "lease-lost"]

log = logging.getLogger("durably")


class RunsHere(Protocol):
    """What executes runs in this process, as the hub needs it."""

    def wake(self) -> None:
        """Look for work: there may be something to claim."""
        ...

    def run_ended(self, event: DurablyEvent) -> None:
        """Hear of an event that ends a run, wherever it was ended."""
        ...

    def executing(self) -> Sequence[Run[Any]]:
        """Return the runs that execute here and have not been told to end."""
        ...

    def loop_changed(self) -> None:
        """Hear that events are taken on an event loop that came after another one."""
        ...


class AwaitedEnd:
    """The end of a run that somebody waits for."""

    def __init__(self) -> None:
        self.arrived: Final = asyncio.Event()
        """Set when it is worth another look at the run."""
        self.told: DurablyEvent | None = None
        """The first event that ended the run, if one has come: the run may be deleted at once after it."""

    def tell(self, event: DurablyEvent) -> None:
        """Note the event that ended the run, or that deleted it later."""
        self.told = self.told or event
        self.arrived.set()


class EventHub:
    """Takes every event of the database in order and passes it on."""

    def __init__(self, store: Store, bus: EventBus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._run_feeds: dict[str, list[EventFeed]] = {}
        self._all_feeds: list[EventFeed] = []
        self._waiting: dict[str, set[AwaitedEnd]] = {}
        self._position = Position(0)
        self._loop_thread: LoopThread | None = None
        self._starting: asyncio.Task[None] | None = None
        self._silent_ends = SilentEnds(store, self._watched, lambda: self._position, self._settle_silently_ended)
        self._withheld: deque[DurablyEvent] = deque()
        self._log_keepers: list[Callable[[LogWriteEvent], None]] = []
        self.progress: Final = LiveProgress()
        self.is_stopped = False
        """Whether nothing is taken any more: the instance is being closed, or was."""
        self._worker: RunsHere

    def attach(self, worker: RunsHere) -> None:
        """Connect the hub to what executes runs in this process; before anything else."""
        self._worker = worker

    async def start(self) -> None:
        """Begin to take events; does nothing the second time on the same event loop."""
        loop = asyncio.get_running_loop()
        if self._loop_thread is not None and self._loop_thread.loop is loop:
            return
        starting = self._starting
        if starting is None or starting.done() or starting.get_loop() is not loop:
            starting = self._starting = begin_task(self._follow(), "durably-follow")
        # Shared by all who come first, and none of them may end it for the others.
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not self.is_stopped or is_being_cancelled():
                raise
            raise StoreError(f"{self._store.name} was closed: make a new instance to use it again") from None

    async def _follow(self) -> None:
        start = await self._store.follow(self)
        self._position = max(self._position, start)
        has_moved = self._loop_thread is not None
        self._loop_thread = LoopThread()
        if has_moved:
            self._silent_ends.forget_loop()
            self._worker.loop_changed()

    def stop(self) -> None:
        """Take no more events, end every feed and wake whoever waits."""
        self.is_stopped = True
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
            self._store.unfollow()
            self._loop_thread = None
        self._tell_withheld()
        # The store is about to be closed.
        self._silent_ends.stop()
        for feed in self._feeds():
            feed.close()
        for end in [each for waiting in self._waiting.values() for each in waiting]:
            end.arrived.set()

    def _feeds(self) -> list[EventFeed]:
        return [*self._all_feeds, *(feed for feeds in self._run_feeds.values() for feed in feeds)]

    def wake_worker(self) -> None:
        """Have the worker of this process look for work, though the log does not tell of any yet."""
        self._worker.wake()

    @property
    def position(self) -> Position:
        """Return the position of the event that was passed on last."""
        return self._position

    def announce(self, event: DurablyEvent) -> None:
        """Tell listeners now, and the log soon, of an event that belongs to no write of its own.

        While the log still holds back what this process committed before, listeners are told after that. But what is
        wrong they are told at once: a database that cannot be reached may be all of it.
        """
        self._store.announce(event)
        if isinstance(event, LogWriteEvent):
            self._keep_line(event)
        if isinstance(event, WorkerErrorEvent) or not (self._withheld or self._store.is_behind):
            self._bus.emit(event)
            return
        self._withheld.append(event)
        if len(self._withheld) > _MOST_WITHHELD:
            self._tell_withheld()

    def announce_trouble(self, error: str, context: TroubleContext, run_id: str | None = None) -> None:
        """Announce that something went wrong outside user code."""
        self.announce(WorkerErrorEvent(timestamp=self._clock.now(), error=error, context=context, run_id=run_id))

    def tell(self, event: DurablyEvent) -> None:
        """Tell listeners of an event that the program made, where they hear of all others: on the event loop.

        That is soon where it was made in another thread. Without an event loop, it is here and now.
        """
        if self._loop_thread is None or self._loop_thread.loop.is_closed():
            self._tell(event)
        else:
            self._loop_thread.call(partial(self._tell, event))

    def _tell(self, event: DurablyEvent) -> None:
        if isinstance(event, LogWriteEvent):
            self._keep_line(event)
        self._bus.emit(event)

    def keep_log_lines_by(self, keeper: Callable[[LogWriteEvent], None]) -> None:
        """Give every log line of this process to `keeper` as soon as it is written, whatever it is told after."""
        self._log_keepers.append(keeper)

    def _keep_line(self, event: LogWriteEvent) -> None:
        for keeper in self._log_keepers:
            try:
                keeper(event)
            except Exception as error:  # noqa: BLE001 - as what a listener raises: the line was written all the same
                self._bus.report(error, event)

    def report(self, error: BaseException, event: DurablyEvent) -> None:
        """Tell the error handlers of what was raised by somebody who was told of an event."""
        self._bus.report(error, event)

    async def open_feed(self, run_id: str | None = None) -> EventFeed:
        """Return a feed of one run's events, or of all, from now on. Close it after use."""
        await self.start()
        feed = EventFeed(
            self._store, run_id, number=self._bus.number, passed=lambda: self._position, closed=self._forget
        )
        feed.start_after(self._position)
        (self._all_feeds if run_id is None else self._run_feeds.setdefault(run_id, [])).append(feed)
        return feed

    def _forget(self, feed: EventFeed) -> None:
        if feed.run_id is None:
            if feed in self._all_feeds:
                self._all_feeds.remove(feed)
        elif feed in (feeds := self._run_feeds.get(feed.run_id, [])):
            feeds.remove(feed)
            if not feeds:
                del self._run_feeds[feed.run_id]

    @contextmanager
    def waiting_for_end(self, run_id: str) -> Iterator[AwaitedEnd]:
        """Give what is told when the run ends; the hub must have been started."""
        end = AwaitedEnd()
        waiting = self._waiting.setdefault(run_id, set())
        waiting.add(end)
        try:
            yield end
        finally:
            waiting.discard(end)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]

    # --- what the store tells ----------------------------------------------------------------------

    @property
    def is_listening(self) -> bool:
        """Tell whether anybody here wants all events of other processes."""
        return bool(self._all_feeds or self._run_feeds) or self._bus.hears_of_others

    def take(self, batch: Sequence[Recorded]) -> None:
        """Pass on what comes next in the log."""
        has_work = False
        for recorded in batch:
            self._position, event, source = recorded
            if source != "announced":
                self._bus.emit(event, is_foreign=source == "elsewhere")
            elif not event.sequence:
                self._pass_announced(event)
            if self._all_feeds or self._run_feeds:
                self._feed(recorded)
            # Most tell of steps, and nobody here has to know.
            if event.__class__ in _NOTED:
                has_work = self._note(event) or has_work
        if self._withheld and not self._store.is_behind:
            self._tell_withheld()
        if has_work:
            self._worker.wake()

    def _note(self, event: DurablyEvent) -> bool:
        """Learn what an event says of a run; tell whether there may be something to claim now."""
        if isinstance(event, TERMINAL_EVENTS):
            self._end(event)
            # The end of a run frees its concurrency key.
            return True
        if isinstance(event, RunLeasedEvent):
            self.progress.forget(event.run_id)
        elif isinstance(event, RunProgressEvent):
            self.progress.note(event)
        return isinstance(event, RunTriggerEvent)

    def _feed(self, recorded: Recorded) -> None:
        for feed in self._all_feeds:
            feed.deliver(recorded)
        for feed in tuple(self._run_feeds.get(getattr(recorded.event, "run_id", ""), ())):
            feed.deliver(recorded)

    def _pass_announced(self, event: DurablyEvent) -> None:
        """Take an announced event that has no number; a store may give back a copy of what was announced."""
        for each in self._withheld:
            if each is event or encode_events([each]) == encode_events([event]):
                self._tell_withheld(each)
                break
        self._bus.number(event)

    def _tell_withheld(self, last: DurablyEvent | None = None) -> None:
        while self._withheld:
            event = self._withheld.popleft()
            self._bus.emit(event)
            if event is last:
                return

    def _end(self, event: DurablyEvent) -> None:
        self._worker.run_ended(event)
        for end in self._waiting.get(getattr(event, "run_id", ""), ()):
            end.tell(event)

    def others_wrote(self) -> None:
        """Look for work, and for runs that ended: not every program that shares the database writes events."""
        self._worker.wake()
        if self._watched():
            self._silent_ends.look_soon()

    def missed(self) -> None:
        """Say that events will not come: cleaned away in a suspended process, or lost with the answer to a write."""
        log.warning("events did not reach this process in time: its listeners do not hear of them")
        for feed in self._feeds():
            feed.miss()

    def _watched(self) -> set[str]:
        """Return the runs whose end somebody here wants to know."""
        return {*self._waiting, *self._run_feeds, *(run.id for run in self._worker.executing())}

    def _settle_silently_ended(self, run_id: str, run: Run[Any] | None, position: Position) -> None:
        for executed in self._worker.executing():
            if executed.id == run_id and (run is None or run.status is RunStatus.CANCELLED):
                # Only its holder tells, and stops it now: no other look finds it while the event is on its way.
                now = self._clock.now()
                event = deletion_of(executed, now) if run is None else replay_of(run, now)[0]
                self._worker.run_ended(event)
                self.announce(event)
        for feed in tuple(self._run_feeds.get(run_id, ())):
            if run is None:
                feed.miss()
                continue
            for event in replay_of(run, self._clock.now()):
                feed.end_with(Recorded(position, event, "elsewhere"))
        for end in self._waiting.get(run_id, ()):
            end.arrived.set()
