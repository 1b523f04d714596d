"""Every error that durably raises.

`DurablyError` stands beside `Exception`, not below it, so that one root can hold both kinds: ordinary
errors, which are `Exception`s too, and the two signals that end a run from outside (`CancelledError`,
`LeaseLostError`), which are not. A job that says `except Exception:` around a step, to compensate or to
retry, must not mistake being cancelled for a failure of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.core.runs import Run


class DurablyError(BaseException):
    """The root of all errors of this library. They can be pickled and copied."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args), self.__dict__


class ValidationError(DurablyError, ValueError):
    """A value was refused before anything was stored.

    `field` names the argument or the place inside the input (`"input.rows[3].price"`), `value` is what
    was given.
    """

    def __init__(self, message: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class NotFoundError(DurablyError, LookupError):
    """No run or job of that name: `kind` is `"run"` or `"job"`, `key` the id or name asked for."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind.capitalize()} not found: {key}")
        self.kind = kind
        self.key = key


class ConflictError(DurablyError, Exception):
    """What was asked for does not go together with the state of things.

    `run_id` is the run that stands in the way, where there is one; `operation` is what was tried:
    `"trigger"`, `"cancel"`, `"delete"`, `"retrigger"` or `"register"`; or, within the very run that it would wait
    for, `"stop"`, `"close"` or `"wait"`.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        run_id: str | None = None,
        job_name: str | None = None,
        concurrency_key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.run_id = run_id
        self.job_name = job_name
        self.concurrency_key = concurrency_key


class CancelledError(DurablyError):
    """The run was cancelled. Inside a job: clean up and let it pass."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run was cancelled: {run_id}")
        self.run_id = run_id


class RunCancelledError(CancelledError, Exception):
    """The run that was waited for was cancelled; the form of `CancelledError` that waiting calls raise.

    Outside a job nothing is being ended, so here it is an ordinary `Exception` as well. `run` is the
    cancelled run.
    """

    def __init__(self, run: Run[Any]) -> None:
        super().__init__(run.id)
        self.run = run


class LeaseLostError(DurablyError):
    """This process no longer holds the lease of the run; nothing more of it may be written here."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Lease lost, another worker may continue the run: {run_id}")
        self.run_id = run_id


class RunFailedError(DurablyError, Exception):
    """The run that was waited for failed; `run` is the failed run, its message the run's error."""

    def __init__(self, run: Run[Any]) -> None:
        super().__init__(run.error or "Run failed")
        self.run = run


class StoreError(DurablyError, Exception):
    """The database cannot do what was asked, and trying again will not help until someone mends it."""


class StoreUnavailableError(StoreError):
    """The database cannot do it now (locked, disk full, connection gone); the same call may succeed later."""


class ValueRefusedError(StoreError):
    """The database will never take this very value, as one beyond its limit of size; others it takes."""


class SchemaTooNewError(StoreError):
    """The database was migrated by a newer durably than this one."""

    def __init__(self, *, found: int, known: int, database: str) -> None:
        super().__init__(
            f"{database} has schema version {found}, this durably knows versions up to {known}: "
            "upgrade the durably package in this process"
        )
        self.found = found
        self.known = known


def _remade(kind: type[DurablyError], args: tuple[Any, ...]) -> DurablyError:
    # Not by calling the class, as other exceptions are made again: ours take facts, not the message.
    return kind.__new__(kind, *args)
