"""An instance: wires the parts, exposes the verbs, decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, overload, runtime_checkable

from durably.core.arguments import (
    Seconds,
    aware,
    check_waiting,
    checked_run_id,
    checked_worker_id,
    duration,
    refuse,
    waiting_seconds,
    whole_number,
)
from durably.core.clock import Clock
from durably.core.events import DurablyEvent, Event, EventType, LogWriteEvent
from durably.core.jobs import InputT, JobDefinition, OutputT
from durably.core.json_values import Codec
from durably.core.logs import Log, LogData
from durably.core.names import Labels
from durably.core.runs import ProgressData, Run, RunStatus, TriggerResult
from durably.core.steps import Step
from durably.core.store import Store
from durably.engine.enqueue import Enqueuer, TriggerOrder
from durably.engine.event_bus import EventBus, Scope
from durably.engine.event_feed import EventFeed
from durably.engine.event_hub import EventHub
from durably.engine.executor import Executor
from durably.engine.leases import LeaseKeeper
from durably.engine.maintenance import Maintenance
from durably.engine.queries import run_query
from durably.engine.run_feed import follow_run
from durably.engine.run_service import RunService
from durably.engine.system_clock import SystemClock
from durably.engine.threads import Threads
from durably.engine.worker import Worker
from durably.handles import JobHandle
from durably.listening import OnEvent
from durably.plugins import InstalledPlugins
from durably.registry import JobRegistry, Jobs, attribute_of
from durably.settings import Settings, checked_clock, database_from_environment, label_codec
from durably.stores import open_store

_PURGE_LIMIT: Final = 500


def create_durably(
    *,
    database: str | Path | Store | None = None,
    jobs: Mapping[str, JobDefinition[Any, Any]] | None = None,
    polling_interval: Seconds = 1.0,
    max_concurrent_runs: int = 10,
    lease_duration: Seconds = 30,
    lease_renew_interval: Seconds | None = None,
    preserve_steps: bool = False,
    retain_runs: str | timedelta | None = None,
    labels: Any = None,
    worker_id: str | None = None,
    clock: Clock | None = None,
) -> Durably:
    """Make an instance; nothing is opened before it is used.

    `database`: a URL (`sqlite:///file.db`, `sqlite://:memory:`, `postgresql://...`, `libsql://...`), a path
    or a `Store`, which serves one instance at a time and is closed with it; default `$DURABLY_DATABASE_URL`,
    else `sqlite:///durably.db`. `jobs`: definitions by the name that `durably.jobs.<name>` has.
    `polling_interval`: seconds between two looks for work when nothing wakes the worker.
    `max_concurrent_runs`: 1 to 1000. `lease_duration`: seconds. `lease_renew_interval`: seconds, shorter than
    that; 5 by default, a sixth of a lease of less than 30 seconds. `preserve_steps`: keep the step rows of
    ended runs. `retain_runs`: `"30d"`, `"24h"`, `"60m"`, `"90s"` or a timedelta, after which ended runs are
    purged. `labels`: a type that labels are validated into. `worker_id`: shows as `lease_owner`. `clock`: for
    tests.

    Raises `ValidationError` naming the argument, its value and what is allowed.

    >>> durably = create_durably(database="sqlite:///jobs.db", jobs={"import_csv": import_csv})
    """
    settings = Settings.of(
        polling_interval=polling_interval,
        max_concurrent_runs=max_concurrent_runs,
        lease_duration=lease_duration,
        lease_renew_interval=lease_renew_interval,
        preserve_steps=preserve_steps,
        retain_runs=retain_runs,
        worker_id=worker_id,
    )
    clock = SystemClock() if clock is None else checked_clock(clock)
    store = open_store(database_from_environment() if database is None else database, clock)
    durably = Durably(store, settings, clock, label_codec(labels))
    return durably.register(jobs if jobs is not None else {})


class Durably:
    """Jobs, their runs, and a worker on one database. Made by `create_durably`.

    Used on one event loop at a time: when that has been closed without a `stop`, as at the end of an
    `asyncio.run`, the worker goes on in the next one that triggers or waits. As a context manager it migrates
    and starts on entry, stops and closes on exit.

    >>> async with create_durably(jobs={"import_csv": import_csv}) as durably:
    ...     await durably.jobs.import_csv.trigger_and_wait({"filename": "data.csv"})
    """

    def __init__(self, store: Store, settings: Settings, clock: Clock, label_codec: Codec[Any] | None) -> None:
        store.preserve_steps = settings.preserve_steps
        self.storage: Final = store
        self._clock = clock
        self._registry = JobRegistry()
        self._plugins = InstalledPlugins()
        self._bus = EventBus(clock)
        self._hub = EventHub(store, self._bus, clock)
        self._threads = Threads(settings.max_concurrent_runs)
        self._leases = LeaseKeeper(
            store, self._hub, clock, lease_seconds=settings.lease_seconds, renew_seconds=settings.renew_seconds
        )
        enqueuer = Enqueuer(store, self._hub, self._registry.definitions, clock, label_codec)
        self._runs = RunService(store, self._hub, self._leases, clock, enqueuer, settings.polling_seconds)
        self._worker = Worker(
            store,
            self._registry.definitions,
            Executor(store, self._registry.definitions, self._hub, clock, self._threads),
            self._leases,
            Maintenance(store, self._hub, clock, settings.retain_runs),
            self._hub,
            clock,
            worker_id=settings.worker_id,
            max_concurrent_runs=settings.max_concurrent_runs,
            lease_seconds=settings.lease_seconds,
            polling_seconds=settings.polling_seconds,
        )

    def __repr__(self) -> str:
        return f"<Durably on {self.storage.name}, jobs: {', '.join(self._registry.definitions) or 'none'}>"

    # --- life --------------------------------------------------------------------------------------

    async def init(self) -> None:
        """Migrate the database and start the worker. Raises what `migrate` raises.

        >>> await durably.init()
        """
        await self.migrate()
        await self.start()

    async def migrate(self) -> None:
        """Bring the schema up to date; idempotent, safe from many processes at once.

        Raises `SchemaTooNewError` when a newer durably has migrated it, `StoreError` saying what else is
        wrong with the database and what to do.

        >>> await durably.migrate()
        """
        await self.storage.migrate()
        await self._hub.start()

    async def start(self) -> None:
        """Start the worker; does nothing when it runs already. Waits for a `stop()` that is under way.

        Raises `StoreError` when the instance has been closed.

        >>> await durably.start()
        """
        await self._hub.start()
        await self._worker.start()

    async def stop(self, timeout: Seconds | None = None) -> None:
        """Claim nothing more and return when running runs and maintenance have ended.

        With `timeout` (seconds) it gives up waiting then, interrupts what is left and releases its leases,
        so that another worker can resume it at once. What plugins hold back is stored in what is left of
        that time, one second at least, and ten without `timeout`: a database that is away holds up no stop.

        Cancelled itself, as by a timeout around it, it leaves what executes as it is; nothing more is claimed until
        `start()`.

        Raises `ConflictError` in a job of this instance: it would wait for itself.

        >>> await durably.stop(timeout=20)
        """
        seconds = waiting_seconds("timeout", timeout)
        self._leases.refuse_within("stop")
        began = self._clock.monotonic()
        await self._worker.stop(seconds)
        await self._plugins.flush_within(None if seconds is None else seconds - (self._clock.monotonic() - began))

    async def close(self) -> None:
        """End every stream and close the database; the instance cannot be used again.

        Whoever still iterates `subscribe` or waits for a run gets a `StoreError`.
        What still executes is interrupted and its leases are released: `stop()` first to let it end.
        Raises `ConflictError` in a job of this instance.

        >>> await durably.close()
        """
        self._leases.refuse_within("close")
        try:
            await self.stop(timeout=0)
        finally:
            self._threads.close()
            self._hub.stop()
            try:
                await self._leases.stop()
            finally:
                await self.storage.close()
                self._plugins.close()

    async def __aenter__(self) -> Self:
        try:
            await self.init()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # An error on its way out must not wait for jobs that may take hours.
            await self.stop(timeout=None if error is None else 0)
        finally:
            await self.close()

    # --- jobs --------------------------------------------------------------------------------------

    @property
    def jobs(self) -> Jobs:
        """Return the handles by the names they were registered under: `durably.jobs.import_csv`."""
        return self._registry.jobs

    def register(self, jobs: Mapping[str, JobDefinition[Any, Any]]) -> Self:
        """Add jobs to this instance and return it; the same definition again changes nothing.

        Raises `ConflictError` when another definition holds a name, `ValidationError` for what is not a
        definition. Nothing is registered then.

        >>> durably.register({"import_csv": import_csv}).jobs.import_csv
        """
        self._registry.register(jobs, self._runs)
        self._worker.wake()
        return self

    @overload
    def get_job(self, definition: JobDefinition[InputT, OutputT], /) -> JobHandle[InputT, OutputT]: ...
    @overload
    def get_job(self, name: str) -> JobHandle[Any, Any] | None: ...
    def get_job(self, name: str | JobDefinition[Any, Any]) -> JobHandle[Any, Any] | None:
        """Return the handle of a job name, None when it is not registered; or, typed, of a definition.

        A definition that is not registered yet is registered under its name, with `_` for what cannot stand in one of
        Python's. Raises what `register` raises.

        >>> durably.get_job("import-csv")
        >>> durably.get_job(import_csv).trigger
        """
        if isinstance(name, str):
            return self._registry.find(name)
        if not isinstance(name, JobDefinition):
            raise refuse("name", name, "the name of a job or its definition")
        definition = name
        handle = self._registry.find(definition.name)
        if handle is None or handle.definition is not definition:
            self.register({attribute_of(definition.name): definition})
        return self._registry.find(definition.name)

    # --- runs --------------------------------------------------------------------------------------

    async def get_run(self, id: str) -> Run[Any] | None:
        """Return a run, None when there is none of that id. Raises `ValidationError` for what is no id.

        >>> run = await durably.get_run(run_id)
        """
        return await self._runs.get(checked_run_id(id))

    async def get_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        job_name: str | Sequence[str] | None = None,
        labels: Labels | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[Run[Any]]:
        """Return runs, newest first; all given filters must match, an empty sequence does not filter.

        Raises `ValidationError` for an unknown status, a bad label or a negative number.

        >>> await durably.get_runs(status=["failed", "cancelled"], labels={"org": "a"}, limit=20)
        """
        return await self._runs.find(
            run_query(status=status, job_name=job_name, labels=labels, limit=limit, offset=offset)
        )

    async def get_steps(self, run_id: str) -> list[Step]:
        """Return the stored steps of a run by index; none when it ended, unless steps are preserved.

        >>> [step.name for step in await durably.get_steps(run_id)]
        ['parse', 'import-0']
        """
        return await self.storage.get_steps(checked_run_id(run_id, "run_id"))

    async def get_logs(self, run_id: str) -> list[Log]:
        """Return the stored log lines of a run, oldest first; see `with_log_persistence`.

        Raises `StoreUnavailableError` while the database is away.

        >>> [line.message for line in await durably.get_logs(run_id)]
        ['336,776 rows']
        """
        checked_run_id(run_id, "run_id")
        await self._plugins.flush()
        return await self.storage.get_logs(run_id)

    async def wait_for_run(
        self,
        id: str,
        *,
        timeout: Seconds | None = None,
        polling_interval: Seconds | None = None,
        on_progress: Callable[[ProgressData], object] | None = None,
        on_log: Callable[[LogData], object] | None = None,
    ) -> Run[Any]:
        """Return the run once it has completed, wherever it executes.

        `timeout` and `polling_interval` are in seconds; polling is only the fallback for programs that
        share the database but tell nobody. `on_progress` and `on_log` are called as the run tells, one call
        at a time, async ones awaited, and for everything it told before this returns or raises how the run
        ended. `timeout` bounds them too; with 0 this looks once and reports nothing. What a callback raises
        goes to `on_error`, as what a listener raises. The run itself goes on in any case, and so does the waiting while
        the database is away.

        Raises `RunFailedError`, `CancelledError` (as `RunCancelledError`), `NotFoundError`, `TimeoutError`,
        `ConflictError` within that very run, and `StoreError` when the instance is closed before the run ends.

        >>> run = await durably.wait_for_run(run_id, timeout=60)
        """
        seconds, polling_seconds = check_waiting(timeout, polling_interval, on_progress, on_log)
        return await self._runs.wait(
            checked_run_id(id),
            since=None,
            timeout=seconds,
            polling_seconds=polling_seconds,
            on_progress=on_progress,
            on_log=on_log,
        )

    async def retrigger(self, id: str) -> Run[Any]:
        """Make a fresh run from a terminal one: same input, labels and concurrency key.

        Raises `NotFoundError` (run or job), `ConflictError` when it has not ended or its key is taken,
        `ValidationError` when today's schema refuses its input.

        >>> again = await durably.retrigger(run_id)
        """
        return await self._runs.retrigger(checked_run_id(id))

    async def cancel(self, id: str) -> None:
        """Cancel a pending or leased run, at once. Raises `NotFoundError`, `ConflictError` when it has ended.

        >>> await durably.cancel(run_id)
        """
        await self._runs.cancel(checked_run_id(id))

    async def delete_run(self, id: str) -> None:
        """Delete a terminal run with its steps, logs and labels. Raises `NotFoundError`, `ConflictError`.

        >>> await durably.delete_run(run_id)
        """
        await self._runs.delete(checked_run_id(id))

    async def purge_runs(self, *, older_than: str | timedelta | datetime, limit: int = _PURGE_LIMIT) -> int:
        """Delete up to `limit` terminal runs that ended at least `older_than` ago, oldest first.

        Returns how many were deleted. `older_than` is a timedelta, text like `"30d"` (`"0s"`: all that have
        ended), or an aware datetime: what ended then or before. Raises `ValidationError` for anything else.

        >>> await durably.purge_runs(older_than="30d")
        """
        ended = (aware if isinstance(older_than, datetime) else duration)("older_than", older_than)
        return await self._runs.purge(ended, whole_number("limit", limit))

    # --- executing without a worker ----------------------------------------------------------------

    async def process_one(self, *, worker_id: str | None = None) -> bool:
        """Claim one run, execute it, and tell whether there was one. Works without `start`.

        Cancelled, as by a timeout, it no longer waits for the run, which goes on in this process: `stop` waits
        for it, `stop(timeout=0)` interrupts it and gives it back. So it is with `process_until_idle`.

        Raises `StoreUnavailableError` while the database is away.

        >>> await durably.process_one()
        True
        """
        owner = None if worker_id is None else checked_worker_id(worker_id)
        await self._hub.start()
        return await self._worker.process(owner, max_runs=1, until_idle=False) == 1

    async def process_until_idle(self, *, worker_id: str | None = None, max_runs: int | None = None) -> int:
        """Execute runs until nothing is claimable, or `max_runs` of them; return how many.

        Works without `start`, for cron and serverless. Does maintenance when it got to the end. Raises
        `StoreUnavailableError` while the database is away.

        >>> await durably.process_until_idle(max_runs=100)
        3
        """
        owner = None if worker_id is None else checked_worker_id(worker_id)
        most = None if max_runs is None else whole_number("max_runs", max_runs)
        await self._hub.start()
        return await self._worker.process(owner, max_runs=most, until_idle=True)

    # --- events ------------------------------------------------------------------------------------

    @property
    def on(self) -> OnEvent:
        """Register a listener: `on(event_type, listener)`, which returns what removes it, or `@on(event_type)`.

        Listeners are called on the event loop, in order of registration; an async one is started. They
        hear of every event of the database; with `scope="process"` only of those that happen here. Raises
        `ValidationError` for an unknown type or scope.

        >>> durably.on("run:complete", lambda event: print(event.run_id, event.duration))
        """
        return self._on

    def on_error(self, handler: Callable[[Exception, DurablyEvent], object]) -> Callable[[], None]:
        """Register what is told of the failure of a listener, `on_progress` or `on_log`, as `(error, event)`.

        Returns what removes it. An async handler is started, as an async listener is. Raises `ValidationError` for
        what cannot be called.

        >>> durably.on_error(lambda error, event: sentry.capture_exception(error))
        """
        return self._bus.on_error(handler)

    def emit(self, event: DurablyEvent) -> None:
        """Deliver an event to the listeners of this process, and give it its sequence.

        From another thread, as that of a plain job, that happens soon: listeners are called on the event loop.
        JSON is text in an event made by hand: `RunCompleteEvent(..., output_json="7", duration=0.1)`.
        Raises `ValidationError` for what is no event.

        >>> durably.emit(WorkerErrorEvent(timestamp=datetime.now(UTC), error="no more disk", context="import"))
        """
        if not isinstance(event, Event):
            raise refuse("event", event, "one of the event classes, as RunCancelEvent(...)")
        # One that was delivered before keeps the number it has for those who hold it.
        self._hub.tell(replace(event, sequence=0) if event.sequence else event)

    async def subscribe(self, run_id: str) -> AsyncIterator[DurablyEvent]:
        """Yield the current state of a run as events, then what happens, to its end; wherever it executes.

        Where events are missing, because this process was suspended for longer than the log keeps them, the state is
        told again; a database that goes away is waited for. Raises `NotFoundError` at the first step of the iteration,
        `StoreError` when the instance is closed before the run ends.

        >>> async for event in durably.subscribe(run_id):
        ...     print(event.type)
        """
        async for event in follow_run(self._hub, self.storage, self._clock, checked_run_id(run_id, "run_id")):
            yield event

    def use(self, plugin: DurablyPlugin) -> Self:
        """Install a plugin and return this instance; one that is equal to an installed one is ignored.

        Raises `ValidationError` for what is no plugin.

        >>> durably.use(with_log_persistence())
        """
        self._plugins.install(plugin, self)
        return self

    # --- for the parts of this package -------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """Return the clock of this instance."""
        return self._clock

    async def enqueue(
        self, definition: JobDefinition[Any, Any], orders: Sequence[TriggerOrder]
    ) -> list[TriggerResult[Any]]:
        """Store a run for every order, all or none."""
        return await self._runs.enqueue(definition, orders)

    def executes(self, run_id: str) -> bool:
        """Tell whether a run executes here and has not been told to end."""
        return any(run.id == run_id for run in self._worker.executing())

    def keep_log_lines_by(self, keeper: Callable[[LogWriteEvent], None]) -> None:
        """Give every log line of this process to `keeper` as soon as it is written."""
        self._hub.keep_log_lines_by(keeper)

    async def open_feed(self, run_id: str | None = None) -> EventFeed:
        """Return a cursor over the events of one run, or of all; close it after use."""
        return await self._hub.open_feed(run_id)

    def _on(
        self, event_type: EventType, listener: Callable[[Any], object] | None = None, *, scope: Scope = "database"
    ) -> Any:
        if listener is not None:
            return self._bus.on(event_type, listener, scope)

        def register(decorated: Callable[[Any], object]) -> Callable[[Any], object]:
            self._bus.on(event_type, decorated, scope)
            return decorated

        return register


@runtime_checkable
class DurablyPlugin(Protocol):
    """Something that `Durably.use` can install.

    A plugin that has work under way may have an `async def flush(self)`: it is awaited before log lines are
    read and when the instance stops, and raises `StoreUnavailableError` while the database is away. It may
    have a `def close(self)`, called when the instance is closed: what is not stored by then is lost.
    """

    def install(self, durably: Durably) -> None:
        """Attach to an instance, mostly by listening to its events."""
        ...
