"""The error tree: what `except Exception` catches and what it must not."""

from __future__ import annotations

import pytest

from durably import (
    CancelledError,
    ConflictError,
    DurablyError,
    LeaseLostError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    SchemaTooNewError,
    StoreError,
    StoreUnavailableError,
    ValidationError,
)


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
