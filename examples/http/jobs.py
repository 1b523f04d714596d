"""The job of the examples, and the instance that every process of one of them makes."""

from pydantic import BaseModel

from durably import StepContext, create_durably, define_job


class ImportCsv(BaseModel):
    text: str


class Imported(BaseModel):
    rows: int


@define_job(name="import-csv")
async def import_csv(step: StepContext, input: ImportCsv) -> Imported:
    """Count the rows of a CSV text, one step per row."""
    rows = await step.run("parse", input.text.splitlines)
    for number, row in enumerate(rows, start=1):
        await step.run(f"import-{number}", row.strip)
        step.progress(number, len(rows))
    return Imported(rows=len(rows))


durably = create_durably(jobs={"import_csv": import_csv})
