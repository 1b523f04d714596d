"""What every test may use: jobs that wait for a word of the test, recorded events, instances that close themselves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from threading import Thread
from typing import Any, Protocol

import pytest

from durably import Durably, DurablyEvent, JobDefinition, StepContext, create_durably, define_job
from durably.core.events import EVENT_CLASSES, Event
from durably.engine.event_feed import EventFeed
from tests.store_contract.foreign_writer import write


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers of this suite known."""
    config.addinivalue_line("markers", "two_processes: opens its database twice, as two processes would")


def pytest_collection_finish() -> None:
    """Let the collections after each test look only at what the tests made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Fail the test that leaves something open, and not the one in whose midst Python happens to find it.

    What outlives a test is not looked at again, which saves more time than the collections take.
    """
    yield
    gc.collect()
    gc.freeze()


PATIENCE_SECONDS = 30.0
"""How long a test waits for something that must happen before it says what did not."""


class Gate:
    """A door in a job: the job tells that it stands before it, the test opens it."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def pass_through(self) -> None:
        """Called by the job."""
        self._reached.set()
        await self._opened.wait()

    async def reached(self) -> None:
        """Return when the job stands before the door."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._reached.wait()

    def open(self) -> None:
        """Let the job go on."""
        self._opened.set()


class Events:
    """Every event that one instance delivers, in the order of delivery."""

    def __init__(self, durably: Durably) -> None:
        self.seen: list[DurablyEvent] = []
        self._arrived = asyncio.Event()
        for event_type in EVENT_CLASSES:
            durably.on(event_type, self._take)  # type: ignore[call-overload]

    def _take(self, event: DurablyEvent) -> None:
        self.seen.append(event)
        self._arrived.set()

    def of(self, *types: str) -> list[Any]:
        """Return the events of these types."""
        return [event for event in self.seen if event.type in types]

    def types(self) -> list[str]:
        """Return the types of all events."""
        return [event.type for event in self.seen]

    async def until(self, event_type: str, count: int = 1) -> Any:
        """Return the event of a type, the `count`th, once it has been delivered."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := self.of(event_type)) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return found[count - 1]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer of `condition`; for what no event tells of, as the end of a short lease."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (answer := await condition()):
            await asyncio.sleep(0.005)
    return answer


def open_feeds() -> int:
    """Return how many feeds there are in this process."""
    gc.collect()
    return sum(isinstance(each, EventFeed) for each in gc.get_objects())


def kept_events(run_id: str) -> list[Event]:
    """Return the events of a run that somebody keeps, as a feed does that nobody reads and nobody forgot.

    Others must have been written since: a store may hold on to its last.
    """
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Event) and getattr(each, "run_id", None) == run_id]


class OpenDurably(Protocol):
    """Makes an instance on the test's database; it is migrated, and started when asked for."""

    def __call__(
        self,
        *jobs: JobDefinition[Any, Any],
        start: bool = False,
        migrate: bool = True,
        database: Any = None,
        **options: Any,
    ) -> Awaitable[Durably]: ...


def attribute_of(job: JobDefinition[Any, Any]) -> str:
    """Return the name behind `durably.jobs.` that the tests give to a job."""
    return job.name.replace("-", "_")


@pytest.fixture
async def open_durably(database: str) -> AsyncIterator[OpenDurably]:
    """Make instances on the test's database; all are stopped and closed when the test ends."""
    opened: list[Durably] = []

    async def make(
        *jobs: JobDefinition[Any, Any],
        start: bool = False,
        migrate: bool = True,
        database: Any = database,
        **options: Any,
    ) -> Durably:
        durably = create_durably(database=database, jobs={attribute_of(job): job for job in jobs}, **options)
        opened.append(durably)
        if migrate:
            await durably.migrate()
        if start:
            await durably.start()
        return durably

    yield make
    for durably in reversed(opened):
        await durably.stop(timeout=0)
        await durably.close()


MeanwhileElsewhere = Callable[[Callable[[Durably], Awaitable[object]]], None]


@define_job(name="job")
async def any_job(step: StepContext, input: Any) -> None: ...


@pytest.fixture
def meanwhile_elsewhere(database: str) -> MeanwhileElsewhere:
    """Hold up this event loop, as a suspended process is, until another has worked and its events are cleaned away."""
    if database.startswith("http"):
        pytest.skip("its server waits for the connection that is held up: tests/libsql/test_sharing.py does it")

    async def live(work: Callable[[Durably], Awaitable[object]]) -> None:
        elsewhere = create_durably(database=database, jobs={"job": any_job})
        await elsewhere.migrate()
        await work(elsewhere)
        await elsewhere.jobs.job.trigger("old")
        # The newest row stays.
        await elsewhere.jobs.job.trigger("newest")
        await write(database, "UPDATE durably_events SET created_at = '2020-01-01T00:00:00.000Z'")
        await elsewhere.storage.maintain(idle=False)
        await elsewhere.close()

    def hold_up(work: Callable[[Durably], Awaitable[object]]) -> None:
        thread = Thread(target=asyncio.run, args=(live(work),))
        thread.start()
        thread.join()

    return hold_up
