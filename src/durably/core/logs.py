"""A line that a job wrote to its log."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

LogLevel = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class LogData:
    """A log line as the job wrote it; `step_name` is None outside a step."""

    level: LogLevel
    message: str
    data: Any
    step_name: str | None


@dataclass(frozen=True, slots=True)
class Log:
    """A stored log line."""

    id: str
    run_id: str
    step_name: str | None
    level: LogLevel
    message: str
    data: Any
    created_at: datetime
