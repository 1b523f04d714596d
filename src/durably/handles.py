"""A job registered with an instance: what triggers it and finds its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel

from durably.core.arguments import Seconds, check_waiting, checked_run_id, refuse
from durably.core.errors import ValidationError
from durably.core.jobs import InputT, JobDefinition, OutputT
from durably.core.logs import LogData
from durably.core.names import Labels
from durably.core.runs import Disposition, ProgressData, Run, RunStatus, TriggerResult
from durably.engine.enqueue import TriggerOrder
from durably.engine.queries import run_query
from durably.engine.run_service import RunService
from durably.options import BatchItem

RunT = TypeVar("RunT", bound=Run[Any])


@dataclass(frozen=True, slots=True)
class TriggerAndWaitResult(Generic[OutputT]):
    """The end of a run that was triggered and waited for."""

    id: str
    output: OutputT
    disposition: Disposition


class JobHandle(Generic[InputT, OutputT]):
    """A job of one instance: `durably.jobs.<name>`, or typed `durably.get_job(definition)`."""

    def __init__(self, runs: RunService, definition: JobDefinition[InputT, OutputT]) -> None:
        self._runs = runs
        self.definition = definition

    @property
    def name(self) -> str:
        """Return the name that the runs of this job are stored under."""
        return self.definition.name

    async def trigger(
        self,
        input: InputT | dict[str, Any],
        *,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Literal["skip"] | None = None,
        labels: Labels | None = None,
    ) -> TriggerResult[OutputT]:
        """Store a run of this job and return it; a worker will execute it.

        The same `idempotency_key` gives the same run. Of a `concurrency_key` one run executes at a time and
        one per job waits; with `coalesce="skip"` a second one becomes the waiting one. `labels` are text by
        text, as a mapping or a model, to find runs by.

        Raises `ValidationError` when the input or an option is refused, `ConflictError` when a run of that
        concurrency key waits already. Nothing is stored then.

        >>> run = await durably.jobs.import_csv.trigger({"filename": "data.csv"}, labels={"org": "a"})
        """
        order = TriggerOrder(input, idempotency_key, concurrency_key, coalesce, labels)
        return (await self._trigger([order]))[0]

    async def trigger_and_wait(
        self,
        input: InputT | dict[str, Any],
        *,
        timeout: Seconds | None = None,
        polling_interval: Seconds | None = None,
        on_progress: Callable[[ProgressData], object] | None = None,
        on_log: Callable[[LogData], object] | None = None,
        idempotency_key: str | None = None,
        concurrency_key: str | None = None,
        coalesce: Literal["skip"] | None = None,
        labels: Labels | None = None,
    ) -> TriggerAndWaitResult[OutputT]:
        """Trigger a run and return its output once it has completed.

        Takes the options of `trigger` and of `Durably.wait_for_run`, and raises what those raise.

        >>> result = await durably.jobs.import_csv.trigger_and_wait({"filename": "data.csv"}, timeout=60)
        >>> result.output.count
        """
        # Refused before anything is stored, not after.
        seconds, polling_seconds = check_waiting(timeout, polling_interval, on_progress, on_log)
        before = await self._runs.position() if on_progress is not None or on_log is not None else None
        triggered = await self.trigger(
            input,
            idempotency_key=idempotency_key,
            concurrency_key=concurrency_key,
            coalesce=coalesce,
            labels=labels,
        )
        run = await self._runs.wait(
            triggered.id,
            # A run that was found, not made, may have told all it has to tell before this call.
            since=before if triggered.disposition == "created" else None,
            timeout=seconds,
            polling_seconds=polling_seconds,
            on_progress=on_progress,
            on_log=on_log,
        )
        return TriggerAndWaitResult(run.id, cast("OutputT", self._typed(run).output), triggered.disposition)

    async def batch_trigger(
        self, items: Iterable[InputT | dict[str, Any] | BatchItem[InputT | dict[str, Any]]]
    ) -> list[TriggerResult[OutputT]]:
        """Store a run for every item in one transaction, all or none; an item is an input or a `BatchItem`.

        Raises what `trigger` raises, with the place of the item; then nothing was stored.

        >>> await durably.jobs.import_csv.batch_trigger([{"filename": "a.csv"}, {"filename": "b.csv"}])
        """
        if isinstance(items, str | bytes | Mapping | BaseModel) or not isinstance(items, Iterable):
            # Text, dicts and models can be iterated too, over what nobody meant to trigger.
            raise refuse("items", items, "a sequence of inputs or BatchItems")
        return await self._trigger([_order(item)._replace(place=place) for place, item in enumerate(items)])

    async def get_run(self, id: str) -> Run[OutputT] | None:
        """Return a run of this job, its output as the output type; None when there is none of this job.

        An old output that today's type refuses is handed over as the plain JSON value that is stored.

        >>> run = await durably.jobs.import_csv.get_run(run_id)
        """
        run = await self._runs.get(checked_run_id(id))
        return None if run is None or run.job_name != self.name else self._typed_if_it_fits(run)

    async def get_runs(
        self,
        *,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        job_name: str | Sequence[str] | None = None,
        labels: Labels | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[Run[OutputT]]:
        """Return runs of this job, newest first, outputs as the output type.

        All given filters must match, so with other jobs as `job_name` there are none. An old output that today's
        type refuses is handed over as the plain JSON value that is stored.

        >>> failed = await durably.jobs.import_csv.get_runs(status="failed", limit=20)
        """
        query = run_query(status=status, job_name=job_name, labels=labels, limit=limit, offset=offset)
        if query.job_names and self.name not in query.job_names:
            return []
        runs = await self._runs.find(replace(query, job_names=(self.name,)))
        return [self._typed_if_it_fits(run) for run in runs]

    async def _trigger(self, orders: Sequence[TriggerOrder]) -> list[TriggerResult[OutputT]]:
        return [self._typed_if_it_fits(run) for run in await self._runs.enqueue(self.definition, orders)]

    def _typed(self, run: RunT) -> RunT:
        codec = self.definition.output
        if codec is None or run.status is not RunStatus.COMPLETED:
            return run
        return replace(run, output=codec.read(run.output, "output"))

    def _typed_if_it_fits(self, run: RunT) -> RunT:
        try:
            return self._typed(run)
        except ValidationError:
            # One run of last year's type must not make a list unreadable.
            return run


def _order(item: Any) -> TriggerOrder:
    if isinstance(item, BatchItem):
        return TriggerOrder(item.input, item.idempotency_key, item.concurrency_key, item.coalesce, item.labels)
    return TriggerOrder(item)
