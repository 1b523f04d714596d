"""A step: one checkpoint of a run."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step as it is stored: its result, or the error it raised."""

    id: str
    run_id: str
    name: str
    index: int
    status: Literal["completed", "failed"]
    output: Any
    error: str | None
    started_at: datetime
    completed_at: datetime | None
