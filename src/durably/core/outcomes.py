"""How one execution of a run ended, as a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """The job returned; `output_json` is None when it returned nothing."""

    output_json: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job raised; `failed_step_name` is the step whose error ended it, if one did."""

    error: str
    failed_step_name: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Someone cancelled the run; that is recorded already."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another worker may hold the run now; nothing of this execution may be recorded any more."""


@dataclass(frozen=True, slots=True)
class Released:
    """This process gave the run back so that another can continue it."""


Outcome = Completed | Failed | Cancelled | LeaseLost | Released
