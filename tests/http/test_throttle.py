"""Progress in doses: per run the first at once, then the latest of each window, the last before the end."""

from datetime import UTC, datetime

from durably import ProgressData, RunProgressEvent
from durably.core.store import Position, Recorded
from durably.http.throttle import ProgressThrottle


def progress(row: int, run_id: str = "run") -> Recorded:
    event = RunProgressEvent(
        timestamp=datetime.now(UTC), run_id=run_id, job_name="job", labels={}, progress=ProgressData(row)
    )
    return Recorded(Position(row), event, "committed")


def due(throttle: ProgressThrottle, now: float) -> list[int]:
    """Return the rows of all progress whose time has come."""
    return [each.position.row for each in iter(lambda: throttle.due(now), None)]


def test_the_first_goes_out_at_once_and_the_latest_when_the_window_closes() -> None:
    throttle = ProgressThrottle(0.1)

    assert throttle.admits("run", progress(1), now=0.0)
    assert not throttle.admits("run", progress(2), now=0.02)
    assert not throttle.admits("run", progress(3), now=0.04)

    assert due(throttle, 0.09) == []
    assert due(throttle, 0.1) == [3]


def test_what_was_released_opens_the_next_window() -> None:
    throttle = ProgressThrottle(0.1)
    throttle.admits("run", progress(1), now=0.0)
    throttle.admits("run", progress(2), now=0.05)
    due(throttle, 0.1)

    assert not throttle.admits("run", progress(3), now=0.15)
    assert due(throttle, 0.2) == [3]


def test_after_a_quiet_window_the_next_is_a_first_again() -> None:
    throttle = ProgressThrottle(0.1)
    throttle.admits("run", progress(1), now=0.0)
    due(throttle, 0.1)

    assert throttle.next_due is None
    assert throttle.admits("run", progress(2), now=0.11)


def test_runs_do_not_share_windows() -> None:
    throttle = ProgressThrottle(0.1)

    assert throttle.admits("a", progress(1, "a"), now=0.0)
    assert throttle.admits("b", progress(2, "b"), now=0.05)
    assert throttle.next_due == 0.1


def test_the_end_of_a_run_gives_out_what_was_held_and_forgets_it() -> None:
    throttle = ProgressThrottle(0.1)
    throttle.admits("run", progress(1), now=0.0)
    latest = progress(2)
    throttle.admits("run", latest, now=0.01)

    assert throttle.end("run") is latest
    assert (throttle.end("run"), throttle.next_due, throttle.held_since) == (None, None, None)


def test_it_tells_from_where_held_progress_can_be_read_again() -> None:
    """The oldest position of what is held, for the id of the events that overtake it."""
    throttle = ProgressThrottle(0.1)
    throttle.admits("a", progress(1, "a"), now=0.0)
    throttle.admits("b", progress(2, "b"), now=0.0)
    assert throttle.held_since is None

    throttle.admits("b", progress(3, "b"), now=0.01)
    throttle.admits("a", progress(4, "a"), now=0.02)
    throttle.admits("b", progress(5, "b"), now=0.03)
    assert throttle.held_since == Position(3)

    throttle.end("b")
    assert throttle.held_since == Position(4)


def test_what_is_due_counts_as_held_until_its_turn() -> None:
    """A client may be cut off between two of them."""
    throttle = ProgressThrottle(0.1)
    for run_id in "abc":
        throttle.admits(run_id, progress(1, run_id), now=0.0)
    for row, run_id in enumerate("abc", start=2):
        throttle.admits(run_id, progress(row, run_id), now=0.01)

    left = []
    while throttle.due(1.0) is not None:
        left.append(throttle.held_since)
    assert left == [Position(3), Position(4), None]


def test_progress_after_the_end_is_dropped() -> None:
    """A bar that stands at its end must not begin to move again."""
    for throttle in (ProgressThrottle(0.1), ProgressThrottle(0)):
        throttle.end("run")

        assert not throttle.admits("run", progress(1), now=0.0)
        assert due(throttle, 1.0) == []


def test_nothing_is_held_without_a_window() -> None:
    throttle = ProgressThrottle(0)

    assert all(throttle.admits("run", progress(row), now=0.0) for row in range(10))
