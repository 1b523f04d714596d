"""What a type checker must know of jobs and handles; `test_typing.py` runs mypy and pyright over this file.

Every line with an ignore is one that must be an error: both checkers are told to complain about an ignore
that is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, assert_type
from unittest.mock import Mock

from pydantic import BaseModel, Field
from typing_extensions import Unpack

from durably import (
    BatchItem,
    Durably,
    JobDefinition,
    JobHandle,
    Run,
    RunFilter,
    StepContext,
    SyncStepContext,
    TriggerAndWaitResult,
    TriggerOptions,
    TriggerResult,
    create_durably,
    define_job,
)
from durably.testing import FakeStep, FakeSyncStep


class ImportCsv(BaseModel):
    filename: str


@dataclass
class Imported:
    count: int


class Tenant(TypedDict):
    org: str


class Tag(BaseModel):
    org: str


@define_job(name="import-csv")
async def import_csv(step: StepContext, input: ImportCsv) -> Imported:
    return Imported(count=len(input.filename))


@define_job(name="plain")
def plain(step: SyncStepContext, input: int) -> str:
    return str(input)


@define_job(name="typed", input=int, output=Imported)
async def typed(step: StepContext, input: int) -> Any:
    return {"count": input}


async def _function(step: StepContext, input: str) -> list[int]:
    return [len(input)]


def _plain_function(step: SyncStepContext, input: str) -> list[int]:
    return [len(input)]


async def _forms(step: StepContext, input: int | None) -> Literal["a", "b"]:
    return "a" if input is None else "b"


async def _annotated(step: StepContext, input: Annotated[int, Field(gt=0)]) -> Annotated[str, Field(min_length=1)]:
    return str(input)


Forms = JobDefinition[int | None, Literal["a", "b"]]

given = define_job(name="given", run=_function)


def definitions_know_their_types() -> None:
    assert_type(import_csv, JobDefinition[ImportCsv, Imported])
    assert_type(plain, JobDefinition[int, str])
    assert_type(typed, JobDefinition[int, Imported])
    assert_type(given, JobDefinition[str, list[int]])
    assert_type(define_job(name="both", input=int, output=Imported, run=_function), JobDefinition[int, Imported])
    define_job()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    define_job(name=5)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    define_job(nam="x")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


def one_type_is_given_and_the_function_tells_the_other() -> None:
    assert_type(define_job(name="input", input=str, run=_function), JobDefinition[str, list[int]])
    assert_type(define_job(name="input", input=str, run=_plain_function), JobDefinition[str, list[int]])
    assert_type(define_job(name="output", output=Imported, run=_function), JobDefinition[str, Imported])
    assert_type(define_job(name="output", output=None, run=_plain_function), JobDefinition[str, list[int]])
    assert_type(define_job(name="input", input=str)(_function), JobDefinition[str, list[int]])
    assert_type(define_job(name="input", input=str, output=None)(_plain_function), JobDefinition[str, list[int]])
    assert_type(define_job(name="output", output=Imported)(_function), JobDefinition[str, Imported])
    define_job(name="input", input=int)(_function)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]


def what_is_no_class_is_a_type_too() -> None:
    assert_type(define_job(name="forms", input=int | None, output=Literal["a", "b"], run=_forms), Forms)
    assert_type(define_job(name="forms", input=int | None, output=Literal["a", "b"])(_forms), Forms)
    annotated = define_job(
        name="annotated",
        input=Annotated[int, Field(gt=0)],
        output=Annotated[str, Field(min_length=1)],
        run=_annotated,
    )
    assert_type(annotated, JobDefinition[int, str])


async def a_definition_is_called_with_a_fake_step(mock: Mock) -> None:
    assert_type(await import_csv(FakeStep(), ImportCsv(filename="a")), Imported)
    assert_type(plain(FakeSyncStep(), input=5), str)
    assert_type(plain(mock, 5), Any)
    import_csv(FakeStep(), {"filename": "a"})  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    import_csv(FakeStep())  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


async def a_definition_is_called_with_a_real_step(step: StepContext, sync_step: SyncStepContext) -> None:
    assert_type(await import_csv(step, ImportCsv(filename="a")), Imported)
    assert_type(plain(sync_step, 5), str)


async def handles_know_their_types(durably: Durably) -> None:
    handle = durably.get_job(import_csv)
    assert_type(handle, JobHandle[ImportCsv, Imported])

    run = await handle.trigger(ImportCsv(filename="a"), labels={"org": "a"}, coalesce="skip", concurrency_key="k")
    assert_type(run, TriggerResult[Imported])
    assert_type(run.output, Imported | None)
    await handle.trigger({"filename": "a"})
    await handle.trigger(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await handle.trigger("a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await handle.trigger(ImportCsv(filename="a"), label={"org": "a"})  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await handle.trigger(ImportCsv(filename="a"), labels={"org": 1})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
    await handle.trigger(ImportCsv(filename="a"), coalesce="merge")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    result = await handle.trigger_and_wait(ImportCsv(filename="a"), timeout=1, on_progress=lambda p: p.current)
    assert_type(result, TriggerAndWaitResult[Imported])
    assert_type(result.output, Imported)
    assert_type(result.output.count, int)
    result.output.cuont  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] # noqa: B018
    await handle.trigger_and_wait(ImportCsv(filename="a"), timout=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]

    runs = await handle.batch_trigger([ImportCsv(filename="a"), BatchItem(ImportCsv(filename="b"), labels={"a": "b"})])
    assert_type(runs, list[TriggerResult[Imported]])
    items = [BatchItem(ImportCsv(filename="a"))]
    await handle.batch_trigger(items)
    await handle.batch_trigger([{"filename": "a"}, BatchItem({"filename": "b"}, idempotency_key="b")])
    await handle.batch_trigger([BatchItem(5)])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await handle.batch_trigger([5])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]

    assert_type(await handle.get_run("id"), Run[Imported] | None)
    assert_type(await handle.get_runs(status="failed", limit=1), list[Run[Imported]])
    some: RunFilter = {"status": "failed", "limit": 1}
    await handle.get_runs(**some)
    await handle.get_runs(job="other")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert_type(durably.get_job("by-name"), JobHandle[Any, Any] | None)


async def labels_may_have_a_type_of_their_own(durably: Durably, handle: JobHandle[ImportCsv, Imported]) -> None:
    tenant: Tenant = {"org": "a"}
    for labels in (tenant, Tag(org="a")):
        options: TriggerOptions = {"labels": labels}
        await handle.trigger(ImportCsv(filename="a"), labels=labels)
        await handle.trigger_and_wait(ImportCsv(filename="a"), **options)
        await handle.batch_trigger([BatchItem(ImportCsv(filename="a"), labels=labels)])
        await handle.get_runs(labels=labels)
        await durably.get_runs(labels=labels)
    await handle.trigger(ImportCsv(filename="a"), labels=Tenant)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def wrappers_pass_options_on(handle: JobHandle[ImportCsv, Imported], **options: Unpack[TriggerOptions]) -> None:
    await handle.trigger(ImportCsv(filename="a"), **options)
    await wrappers_pass_options_on(handle, idempotency_key="k")
    await wrappers_pass_options_on(handle, idempotency_kye="k")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def an_instance_knows_its_arguments() -> None:
    assert_type(create_durably(database="sqlite://:memory:", jobs={"import_csv": import_csv}), Durably)
    create_durably(databse="x")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    create_durably(jobs={"import_csv": 5})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
    create_durably(max_concurrent_runs="many")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def runs_can_be_asked_for(durably: Durably) -> None:
    assert_type(await durably.get_run("id"), Run[Any] | None)
    await durably.get_runs(status=["failed"], labels={"a": "b"}, limit=1)
    assert_type(durably.get_job(name="import-csv"), JobHandle[Any, Any] | None)
    assert_type(await durably.get_run(id="id"), Run[Any] | None)
    assert_type(await durably.wait_for_run(id="id", timeout=1), Run[Any])
    await durably.cancel(id="id")
    await durably.get_runs(state="failed")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await durably.purge_runs(older_than=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
