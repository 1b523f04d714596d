"""From a trigger to a stored run: validate everything, then store, then it is announced."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from durably.core.clock import Clock
from durably.core.errors import ConflictError, NotFoundError, ValidationError
from durably.core.jobs import JobDefinition
from durably.core.json_values import Codec, encode_stored
from durably.core.names import LabelKeyError, Labels, checked_labels, checked_name
from durably.core.runs import ALLOWED_FROM, Run, TriggerResult
from durably.core.store import NewRun, Store
from durably.core.ulid import new_ulid
from durably.engine.event_hub import EventHub


class TriggerOrder(NamedTuple):
    """What a caller asks for: an input and the options of its trigger."""

    input: object
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    coalesce: str | None = None
    labels: Labels | None = None
    only_into: str | None = None
    """Refuse to join any run but the one of this id, which is the one that the caller may see."""
    place: int | None = None
    """The place in a batch, which errors then name."""


class Enqueuer:
    """Makes runs."""

    def __init__(
        self,
        store: Store,
        hub: EventHub,
        jobs: Mapping[str, JobDefinition[Any, Any]],
        clock: Clock,
        label_codec: Codec[Any] | None,
    ) -> None:
        self._store = store
        self._hub = hub
        self._jobs = jobs
        self._clock = clock
        self._label_codec = label_codec

    async def enqueue(self, job: JobDefinition[Any, Any], orders: Sequence[TriggerOrder]) -> list[TriggerResult[Any]]:
        """Store a run for every order, all or none. Raises `ValidationError`, `ConflictError`."""
        if not orders:
            return []
        try:
            runs = self._new_runs(job, orders)
        except LabelKeyError:
            # A repeated trigger is answered with its run, as by the TypeScript library.
            found = await self._find_idempotent(job, orders[0])
            if found is None:
                raise
            return [found]
        try:
            return await self._put(runs)
        except ConflictError as conflict:
            if orders[0].place is None:
                raise
            raise _conflict_in_batch(conflict, orders, runs) from conflict

    async def retrigger(self, run_id: str) -> Run[Any]:
        """Make a fresh run like a terminal one, without its idempotency key.

        Raises `NotFoundError`, `ConflictError`, and `ValidationError` when today's schema refuses its input.
        """
        run = await self._store.get_run(run_id)
        if run is None:
            raise NotFoundError("run", run_id)
        if run.status not in ALLOWED_FROM["retrigger"]:
            raise ConflictError(f"Cannot retrigger {run.status} run: {run_id}", operation="retrigger", run_id=run_id)
        job = self._jobs.get(run.job_name)
        if job is None:
            raise NotFoundError("job", run.job_name)
        job.stored_input(run)
        now = self._clock.now()
        fresh = NewRun(
            id=new_ulid(int(now.timestamp() * 1000)),
            job_name=run.job_name,
            input_json=encode_stored(run.input),
            labels=run.labels,
            idempotency_key=None,
            concurrency_key=run.concurrency_key,
            coalesce=False,
            created_at=now,
        )
        try:
            return (await self._put([fresh]))[0]
        except ConflictError as conflict:
            raise ConflictError(
                f"Cannot retrigger run {run_id}: run {conflict.run_id} of its job and concurrency key waits already",
                operation="retrigger",
                run_id=conflict.run_id,
                job_name=conflict.job_name,
                concurrency_key=conflict.concurrency_key,
            ) from conflict

    async def _find_idempotent(self, job: JobDefinition[Any, Any], order: TriggerOrder) -> TriggerResult[Any] | None:
        if order.idempotency_key is None:
            return None
        return await self._store.find_idempotent(job.name, order.idempotency_key)

    def _put(self, runs: Sequence[NewRun]) -> Coroutine[Any, Any, list[TriggerResult[Any]]]:
        if self._store.claims_see_writes_under_way:
            # An idle worker of this process claims in the same transaction: one flush to the disk less.
            self._hub.wake_worker()
        return self._store.enqueue(runs)

    def _new_runs(self, job: JobDefinition[Any, Any], orders: Sequence[TriggerOrder]) -> list[NewRun]:
        now = self._clock.now()
        milliseconds = int(now.timestamp() * 1000)
        runs: list[NewRun] = []
        for order in orders:
            try:
                runs.append(self._new_run(job, order, now, milliseconds))
            except ValidationError as error:
                if order.place is None:
                    raise
                where = f"items[{order.place}]"
                raise ValidationError(f"{where}: {error}", field=f"{where}.{error.field}", value=error.value) from error
        return runs

    def _new_run(self, job: JobDefinition[Any, Any], order: TriggerOrder, now: datetime, milliseconds: int) -> NewRun:
        if order.coalesce is not None:
            _check_coalesce(order)
        _, input_json = job.input.round_trip(job.input.read(order.input, "input"), "input")
        if order.idempotency_key is not None:
            checked_name("idempotency_key", order.idempotency_key, field="idempotency_key")
        if order.concurrency_key is not None:
            checked_name("concurrency_key", order.concurrency_key, field="concurrency_key")
        labels = {} if order.labels is None and self._label_codec is None else self._labels(order.labels)
        return NewRun(
            new_ulid(milliseconds),
            job.name,
            input_json,
            labels,
            order.idempotency_key,
            order.concurrency_key,
            order.coalesce is not None,
            now,
            order.only_into,
        )

    def _labels(self, labels: Labels | None) -> dict[str, str]:
        if self._label_codec is not None:
            validated = self._label_codec.validate(labels if labels is not None else {}, "labels")
            labels = self._label_codec.to_mapping(validated)
        return checked_labels(labels)


def _check_coalesce(order: TriggerOrder) -> None:
    if order.coalesce != "skip":
        raise ValidationError(
            f"Invalid coalesce value: {order.coalesce!r}. Valid values: 'skip'", field="coalesce", value=order.coalesce
        )
    if order.concurrency_key is None:
        raise ValidationError("coalesce requires concurrency_key", field="coalesce", value=order.coalesce)


def _conflict_in_batch(
    conflict: ConflictError, orders: Sequence[TriggerOrder], runs: Sequence[NewRun]
) -> ConflictError:
    """Return the same error with the places of the items that it may be about."""
    places = [n for n, order in enumerate(orders) if order.concurrency_key == conflict.concurrency_key]
    within = next((n for n, run in enumerate(runs) if run.id == conflict.run_id), None)
    if within is None:
        items = f"items[{places[0]}]" if len(places) == 1 else f"one of items{places}"
        message, run_id = f"{items}: {conflict}", conflict.run_id
    else:
        # Nothing of the batch is stored: there is no run to name.
        key, run_id = json.dumps(conflict.concurrency_key, ensure_ascii=False), None
        message = (
            f"items{places} have the same concurrency key {key}, of which one run of a job can be pending. "
            'Use coalesce="skip" to join them.'
        )
    return ConflictError(
        message,
        operation="trigger",
        run_id=run_id,
        job_name=conflict.job_name,
        concurrency_key=conflict.concurrency_key,
    )
