"""What `crash_everywhere` found, as values and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

CrashMoment = Literal["first-line", "before-commit", "after-commit", "next-line", "before-end", "after-end"]
"""Where a process can be lost: before the job's first line, around the commit of a step, before the line that
follows the step, around the commit of the run's end."""

CRASH_MOMENTS: Final[tuple[CrashMoment, ...]] = get_args(CrashMoment)

_PHRASES: Final[Mapping[CrashMoment, str]] = {
    "first-line": "before the first line",
    "before-commit": "before the commit of {step!r}",
    "after-commit": "after the commit of {step!r}",
    "next-line": "before the line after {step!r}",
    "before-end": "before the end is recorded",
    "after-end": "after the end was recorded",
}
_UNDISTURBED: Final = "undisturbed, once more"
_LONGEST_VALUE: Final = 200


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A place where the process was lost; `occurrence` counts from 1 where a step ends more than once."""

    moment: CrashMoment
    step: str | None = None
    occurrence: int = 1

    def __str__(self) -> str:
        again = f" ({self.occurrence})" if self.occurrence > 1 else ""
        return _PHRASES[self.moment].format(step=self.step) + again


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a run did not end as the undisturbed one did.

    `what` is `"status"`, `"output"`, `"error"`, `"observed"`, `"steps"` (which steps ran), `"repeated"` (a
    completed step ran again) or `"reached"` (the job never came to the point). `point` is None where the
    undisturbed run differs from itself: then the job is not deterministic, and no other difference says much.
    """

    point: CrashPoint | None
    what: str
    undisturbed: object
    crashed: object

    def __str__(self) -> str:
        match self.what:
            case "reached":
                return "never came there: the job took another way than in the undisturbed run"
            case "repeated":
                return f"completed steps ran again: {_shown(self.crashed)}"
            case _:
                return f"{self.what}: {_shown(self.crashed)}, undisturbed {_shown(self.undisturbed)}"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: what is compared. `step_calls` counts how often each step's function was called."""

    status: str
    output: Any
    error: str | None
    observed: Any
    step_calls: dict[str, int]


@dataclass(frozen=True, slots=True)
class CrashResult:
    """One crash and what came after it.

    `in_flight` are the steps that were being performed when the process was lost and ran again.
    """

    point: CrashPoint | None
    ending: Ending
    in_flight: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class CrashReport:
    """All crashes of one job; printed, it is a table.

    >>> report = await crash_everywhere(charge, order)
    >>> print(report)
    >>> report.assert_no_differences()
    """

    job_name: str
    undisturbed: Ending
    crashes: tuple[CrashResult, ...] = field(repr=False)

    @property
    def differences(self) -> list[Difference]:
        """Return every difference from the undisturbed run."""
        return [difference for crash in self.crashes for difference in crash.differences]

    def assert_no_differences(self, *, status: str = "completed") -> None:
        """Raise `AssertionError` with the table if any crash made a difference.

        And if the undisturbed run did not end with `status`: of a job that breaks at its first line no crash makes
        a difference. Say `status="failed"` of a job that is meant to fail.
        """
        if self.differences or self.undisturbed.status != status:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        rows = [("process lost", "ran again", "what differs")]
        for crash in self.crashes:
            told = [str(difference) for difference in crash.differences] or ["-"]
            place = _UNDISTURBED if crash.point is None else str(crash.point)
            rows.append((place, ", ".join(crash.in_flight) or "-", told[0]))
            rows += [("", "", line) for line in told[1:]]
        return "\n".join([self._headline(), "", *_table(rows)])

    def _headline(self) -> str:
        crashes = sum(1 for crash in self.crashes if crash.point is not None)
        with_differences = sum(1 for crash in self.crashes if crash.differences)
        found = f"{with_differences} with differences" if with_differences else "no differences"
        headline = f"{self.job_name}: {crashes} crashes, {found}"
        match self.undisturbed.status:
            case "completed":
                return headline
            case "failed":
                return f"{headline}; the undisturbed run failed: {self.undisturbed.error}"
            case status:
                return f"{headline}; the undisturbed run was {status}"


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{row[0]:<{first}}  {row[1]:<{second}}  {row[2]}".rstrip() for row in rows]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"
