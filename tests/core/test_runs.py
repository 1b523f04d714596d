"""R1: the life of a run as a table, and what of a run may leave the server."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from durably import ClientRun, ProgressData, Run, RunStatus, to_client_run
from durably.core.runs import ACTIVE, ALLOWED_FROM, TERMINAL, TRANSITIONS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN: Run[int] = Run(
    id="1", job_name="job", status=RunStatus.COMPLETED, input={"n": 1}, output=5, error=None,
    progress=ProgressData(1), labels={"a": "b"}, idempotency_key="secret", concurrency_key="secret",
    current_step_index=1, completed_step_count=1, lease_owner="secret", lease_expires_at=NOW, lease_generation=3,
    started_at=NOW, completed_at=NOW, created_at=NOW, updated_at=NOW,
)  # fmt: skip


class TestTheLifeCycle:
    def test_nothing_leaves_a_terminal_state(self) -> None:
        """R1: the table covers every status."""
        assert set(TRANSITIONS) == set(RunStatus)
        assert {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED} == TERMINAL
        assert {RunStatus.PENDING, RunStatus.LEASED} == ACTIVE

    def test_every_transition_of_the_rule_is_in_the_table(self) -> None:
        """R1: pending, leased, and the three ends."""
        assert TRANSITIONS[RunStatus.PENDING] == {RunStatus.LEASED, RunStatus.CANCELLED}
        assert TRANSITIONS[RunStatus.LEASED] == {RunStatus.PENDING, *TERMINAL}

    def test_verbs_go_with_states(self) -> None:
        """R9, R10: what may be asked of a run."""
        assert ALLOWED_FROM == {"cancel": ACTIVE, "retrigger": TERMINAL, "delete": TERMINAL}

    @pytest.mark.parametrize("status", RunStatus)
    def test_a_run_is_terminal_or_active(self, status: RunStatus) -> None:
        """R1: one of the two."""
        run = dataclasses.replace(RUN, status=status)

        assert run.is_terminal is not run.is_active


class TestWhatClientsSee:
    def test_keys_and_leases_stay_on_the_server(self) -> None:
        """`to_client_run` leaves out keys, lease and `updated_at`, and adds the two properties."""
        client = to_client_run(RUN)

        hidden = {
            "idempotency_key", "concurrency_key", "lease_owner", "lease_expires_at", "lease_generation", "updated_at",
        }  # fmt: skip
        names = {field.name for field in dataclasses.fields(ClientRun)}
        assert names == {field.name for field in dataclasses.fields(Run)} - hidden | {"is_terminal", "is_active"}
        assert (client.output, client.is_terminal, client.is_active) == (5, True, False)
        assert "secret" not in repr(client)

    def test_runs_are_frozen(self) -> None:
        """A run is what was read, not a place to write."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            RUN.status = RunStatus.FAILED  # type: ignore[misc]
