# ruff: noqa: G004, G010 - `step.log` is the log of a run, not one of the logging module
"""The jobs that the contract server offers."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Literal, NotRequired

from pydantic import BaseModel
from typing_extensions import TypedDict

from durably import JobDefinition, StepContext, define_job


class ImportCsv(BaseModel):
    filename: str


class Imported(BaseModel):
    count: int


class FailAt(BaseModel):
    step: int


class Slow(TypedDict):
    ms: float
    steps: int
    fastSteps: NotRequired[int]


class Done(BaseModel):
    done: int


class Echo(BaseModel):
    value: Any


class Burst(BaseModel):
    count: int


class Number(BaseModel):
    n: float


class Nothing(BaseModel):
    pass


class Labels(TypedDict, total=False):
    """The label schema of instance B: all optional, others are dropped."""

    organizationId: str
    env: Literal["dev", "prod"]
    tag: str


@define_job(name="import-csv")
async def import_csv(step: StepContext, input: ImportCsv) -> Imported:
    digits = re.search("[0-9]+", input.filename)
    count = int(digits[0]) if digits else 3
    step.log.info("import started", {"filename": input.filename})

    def parse() -> dict[str, int]:
        step.log.info(f"parsed {count} rows")
        return {"rows": count}

    def import_row(row: int) -> dict[str, int]:
        step.progress(row + 1, count, f"row {row + 1} of {count}")
        if row == 0:
            step.log.warn("first row", {"row": 0, "header": True})
        return {"row": row}

    await step.run("parse", parse)
    for row in range(count):
        await step.run(f"import-{row}", import_row, row)
    step.log.info("import finished", {"count": count})
    return Imported(count=count)


@define_job(name="fail-at")
async def fail_at(step: StepContext, input: FailAt) -> None:
    if input.step < 0:
        raise RuntimeError("boom before any step")

    def perform(number: int) -> int:
        if number == input.step:
            step.log.error("about to fail", {"at": number})
            raise RuntimeError(f"boom at step {number}")
        return number

    for number in range(3):
        await step.run(f"step-{number}", perform, number)


@define_job(name="slow")
async def slow(step: StepContext, input: Slow) -> Done:
    async def wait(milliseconds: float) -> dict[str, float]:
        if milliseconds:
            await asyncio.sleep(milliseconds / 1000)
        return {"waited": milliseconds}

    for number in range(input["steps"]):
        await step.run(f"slow-{number}", wait, 0 if number < input.get("fastSteps", 0) else input["ms"])
        step.progress(number + 1, input["steps"])
    return Done(done=input["steps"])


@define_job(name="echo")
async def echo(step: StepContext, input: Echo) -> Any:
    return input.value


@define_job(name="noop")
async def noop(step: StepContext, input: Nothing) -> None:
    return


@define_job(name="burst")
async def burst(step: StepContext, input: Burst) -> Burst:
    async def report() -> None:
        for number in range(input.count):
            step.progress(number + 1, input.count)

    await step.run("burst", report)
    return Burst(count=input.count)


async def _give_no_number(step: StepContext, input: Nothing) -> Any:
    return {"n": "not a number"}


bad_output = define_job(name="bad-output", input=Nothing, output=Number, run=_give_no_number)

JOBS: dict[str, JobDefinition[Any, Any]] = {
    "import_csv": import_csv,
    "fail_at": fail_at,
    "slow": slow,
    "echo": echo,
    "noop": noop,
    "burst": burst,
    "bad_output": bad_output,
}
