"""The jobs. A worker executes them; the web process only needs to know their names and types."""

# ruff: noqa: G004, G010 - `step.log` belongs to the run, it is no logger of the standard library

import asyncio

from examples.fullstack import tables
from examples.fullstack.summary import ColumnSummary, summarize
from pydantic import BaseModel, Field

from durably import StepContext, define_job


class ImportCsv(BaseModel):
    """`pause` is seconds of rest after each batch, so that a small file can be watched, too."""

    file: str
    batch_size: int = Field(default=25, ge=1, le=1000)
    pause: float = Field(default=0, ge=0, le=5)


class Imported(BaseModel):
    rows: int
    skipped: int


class SummarizeCsv(BaseModel):
    file: str


class Summary(BaseModel):
    rows: int
    columns: list[ColumnSummary]


@define_job(name="import-csv")
async def import_csv(step: StepContext, input: ImportCsv) -> Imported:
    columns, rows = await asyncio.to_thread(tables.rows_of_file, input.file)
    if step.attempt > 1:
        step.log.warn(f"Attempt {step.attempt}: the worker before was lost, going on after its last batch")

    # What is told inside a step is told once: a resumed run goes over finished batches in silence.
    async def import_batch(first: int) -> int:
        batch = rows[first : first + input.batch_size]
        if first == 0:
            step.log.info(f"{len(rows)} rows with {len(columns)} columns", {"columns": columns})
        numbered = dict(enumerate(batch, first + 1))
        for number, row in numbered.items():
            if len(row) != len(columns):
                step.log.warn(f"Row {number} skipped: {len(row)} cells instead of {len(columns)}", {"cells": row})
        complete = {number: row for number, row in numbered.items() if len(row) == len(columns)}
        await asyncio.to_thread(tables.write_rows, input.file, complete)
        done = first + len(batch)
        step.progress(done, len(rows), f"{done} of {len(rows)} rows")
        return len(complete)

    imported = 0
    for first in range(0, len(rows), input.batch_size):
        imported += await step.run(f"rows-from-{first + 1}", import_batch, first)
        await asyncio.sleep(input.pause)
    step.log.info(f"Imported {imported} rows")
    return Imported(rows=imported, skipped=len(rows) - imported)


@define_job(name="summarize-csv")
async def summarize_csv(step: StepContext, input: SummarizeCsv) -> Summary:
    columns, _ = await asyncio.to_thread(tables.rows_of_file, input.file)
    rows = await asyncio.to_thread(tables.imported_rows, input.file)
    if not rows:
        raise LookupError("Nothing was imported from this file yet: import it first.")
    summaries = []
    for index, name in enumerate(columns):
        summaries.append(await step.run(f"column-{index + 1}", summarize, name, [row[index] for row in rows]))
        step.progress(index + 1, len(columns), f"{index + 1} of {len(columns)} columns")
    return Summary(rows=len(rows), columns=summaries)
