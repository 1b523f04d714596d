"""D1: the one text form of an instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.core.clock import from_text, to_text
from durably.engine.system_clock import SystemClock

INSTANTS = st.datetimes(timezones=st.just(UTC))


class TestTexts:
    @given(INSTANTS)
    def test_an_instant_comes_back_to_the_millisecond(self, instant: datetime) -> None:
        """D1: always the same length, so that it sorts."""
        text = to_text(instant)

        assert len(text) == 24
        assert from_text(text) == instant.replace(microsecond=instant.microsecond // 1000 * 1000)

    @given(INSTANTS, INSTANTS)
    def test_text_sorts_as_time_does(self, one: datetime, other: datetime) -> None:
        """D1: compared as text."""
        if to_text(one) < to_text(other):
            assert one < other

    @given(st.lists(INSTANTS, min_size=1, max_size=4))
    def test_what_was_written_before_makes_no_difference(self, instants: list[datetime]) -> None:
        """D1: however the instants follow each other."""
        in_turns = [to_text(instant) for instant in [*instants, *instants, *reversed(instants)]]

        assert in_turns == [
            *in_turns[: len(instants)],
            *in_turns[: len(instants)],
            *reversed(in_turns[: len(instants)]),
        ]
        assert [from_text(text).replace(microsecond=0) for text in in_turns[: len(instants)]] == [
            instant.replace(microsecond=0) for instant in instants
        ]

    @pytest.mark.parametrize(
        "text", ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678+00:00", "2026-01-02T04:04:05.678+01:00"]
    )
    def test_other_writers_forms_are_read(self, text: str) -> None:
        """D1: an offset is an offset."""
        assert from_text(text) == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

    def test_other_zones_are_written_in_utc(self) -> None:
        """D1: UTC in the database."""
        local = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=9)))
        assert to_text(local) == "2026-01-01T18:04:05.000Z"

    def test_the_system_clock_gives_what_can_be_stored(self) -> None:
        """D1: whole milliseconds, UTC, and a monotonic reading that does not go back."""
        clock = SystemClock()
        before, now, after = clock.monotonic(), clock.now(), clock.monotonic()

        assert from_text(to_text(now)) == now
        assert before <= after
