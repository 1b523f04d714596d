"""R3, R5 to R7, S2: names and keys are as long as every database can find again, and no longer."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest

from durably import JobDefinition, RunStatus, StepContext, ValidationError, define_job
from tests.conftest import OpenDurably

LONGEST = 1_024


def random_text(length: int) -> str:
    """Return text that no database can compress, the same one each time."""
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))


def job_with_step(name: str, step_name: str) -> JobDefinition[Any, Any]:
    async def perform(step: StepContext, input: Any) -> Any:
        return await step.run(step_name, lambda: input)

    return define_job(name=name, run=perform)


async def test_the_longest_names_and_keys_are_stored_and_found(open_durably: OpenDurably) -> None:
    """R5, R6, R7, S2: at the limit everything works, whatever is in the text."""
    text = random_text(LONGEST)
    durably = await open_durably(preserve_steps=True)
    handle = durably.get_job(job_with_step(text, text))
    options: Any = {"idempotency_key": text, "concurrency_key": text, "labels": {text: text}}

    run = await handle.trigger(1, **options)
    assert (await handle.trigger(2, **options)).id == run.id
    assert (await handle.trigger(3, concurrency_key=text, coalesce="skip")).disposition == "coalesced"
    assert await durably.process_one()

    (found,) = await durably.get_runs(job_name=text, labels={text: text})
    assert (found.status, found.output) == (RunStatus.COMPLETED, 1)
    assert [step.name for step in await durably.get_steps(run.id)] == [text]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"idempotency_key": random_text(LONGEST + 1)}, "idempotency_key"),
        ({"concurrency_key": random_text(LONGEST + 1)}, "concurrency_key"),
        ({"labels": {random_text(LONGEST + 1): "a"}}, "label key"),
        ({"labels": {"org": random_text(LONGEST + 1)}}, "label 'org'"),
        ({"idempotency_key": "\N{PILE OF POO}" * (LONGEST // 4) + "a"}, "idempotency_key"),
    ],
)
async def test_what_is_longer_is_refused_with_its_name_and_the_limit(
    open_durably: OpenDurably, options: Any, named: str
) -> None:
    """R3: nothing is stored."""
    durably = await open_durably(job_with_step("job", "step"))

    with pytest.raises(ValidationError, match=f"^Invalid {named}.* has 1,025 bytes in UTF-8, at most 1,024 are"):
        await durably.jobs.job.trigger(1, **options)

    assert await durably.get_runs() == []


async def test_a_step_name_that_is_too_long_fails_the_run(open_durably: OpenDurably) -> None:
    """S2: the name is refused before the step is called; else its result could never be stored."""
    durably = await open_durably(job_with_step("job", random_text(3_000)))

    run = await durably.jobs.job.trigger(1)
    assert await durably.process_one()

    found = await durably.get_run(run.id)
    assert found is not None
    assert found.status is RunStatus.FAILED
    assert found.error is not None
    assert found.error.startswith("Invalid step name 'NtrOi")
    assert "at most 1,024 are allowed" in found.error


def test_a_job_name_that_is_too_long_is_refused() -> None:
    """R6: it stands in the same index as the key."""
    with pytest.raises(ValidationError, match=r"^Invalid job name .* at most 1,024 are allowed"):
        job_with_step(random_text(LONGEST + 1), "step")
