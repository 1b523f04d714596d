"""The error tree: what `except Exception` catches and what it must not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from durably import (
    CancelledError,
    ConflictError,
    DurablyError,
    LeaseLostError,
    NotFoundError,
    Run,
    RunCancelledError,
    RunFailedError,
    RunStatus,
    SchemaTooNewError,
    StoreError,
    StoreUnavailableError,
    ValidationError,
    ValueRefusedError,
)

RUN: Run[Any] = Run(
    id="run-1",
    job_name="job",
    status=RunStatus.FAILED,
    input={"n": 1},
    output=None,
    error="no such row",
    progress=None,
    labels={"org": "a"},
    idempotency_key=None,
    concurrency_key=None,
    current_step_index=0,
    completed_step_count=0,
    lease_owner=None,
    lease_expires_at=None,
    lease_generation=1,
    started_at=None,
    completed_at=None,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)


class TestCopies:
    @pytest.mark.parametrize(
        "error",
        [
            ValidationError("bad", field="input.n", value=3),
            NotFoundError("run", "run-1"),
            ConflictError("taken", operation="trigger", run_id="run-1", job_name="job", concurrency_key="key"),
            CancelledError("run-1"),
            RunCancelledError(RUN),
            LeaseLostError("run-1"),
            RunFailedError(RUN),
            StoreError("broken"),
            StoreUnavailableError("away"),
            ValueRefusedError("too large"),
            SchemaTooNewError(found=9, known=3, database="database jobs.db"),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize(
        "copied",
        [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
        ids=["pickle", "copy", "deep"],
    )
    def test_an_error_that_went_through_another_process_says_the_same(
        self, error: DurablyError, copied: Callable[[DurablyError], DurablyError]
    ) -> None:
        """Process pools and test runners send errors pickled; type, message and facts arrive."""
        error.add_note("while importing")
        arrived = copied(error)

        assert type(arrived) is type(error)
        assert (str(arrived), vars(arrived)) == (str(error), vars(error))


class TestTheTree:
    @pytest.mark.parametrize("kind", [CancelledError, LeaseLostError])
    def test_the_signals_of_a_run_are_no_exceptions(self, kind: type[DurablyError]) -> None:
        """S5: an `except Exception` around a step must not swallow them."""
        assert issubclass(kind, DurablyError)
        assert not issubclass(kind, Exception)
        assert "run-1" in str(kind("run-1"))  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        "kind",
        [
            ValidationError,
            NotFoundError,
            ConflictError,
            RunFailedError,
            RunCancelledError,
            StoreError,
            StoreUnavailableError,
            SchemaTooNewError,
        ],
    )
    def test_all_others_are(self, kind: type[DurablyError]) -> None:
        """R11: also the cancellation that a waiting call raises."""
        assert issubclass(kind, DurablyError)
        assert issubclass(kind, Exception)

    def test_they_are_what_python_calls_them_too(self) -> None:
        """`ValidationError` is a `ValueError`, `NotFoundError` a `LookupError`."""
        assert issubclass(ValidationError, ValueError)
        assert issubclass(NotFoundError, LookupError)
        assert issubclass(RunCancelledError, CancelledError)
        assert issubclass(StoreUnavailableError, StoreError)
        assert issubclass(SchemaTooNewError, StoreError)

    def test_they_carry_their_facts(self) -> None:
        """The HTTP edge and callers read attributes, not messages."""
        newer = SchemaTooNewError(found=9, known=2, database="database x.db")

        assert (newer.found, newer.known) == (9, 2)
        assert "upgrade the durably package" in str(newer)
        assert (NotFoundError("job", "x").kind, str(NotFoundError("run", "y"))) == ("job", "Run not found: y")
        conflict = ConflictError("taken", operation="trigger", run_id="r", job_name="j", concurrency_key="k")
        assert (conflict.operation, conflict.run_id, conflict.job_name, conflict.concurrency_key) == (
            "trigger", "r", "j", "k",
        )  # fmt: skip
        invalid = ValidationError("bad", field="input.x", value=5)
        assert (invalid.field, invalid.value) == ("input.x", 5)
