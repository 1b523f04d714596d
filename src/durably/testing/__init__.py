"""For the tests of those who use durably: time, an instance in memory, a fake step, crashes everywhere.

>>> from durably.testing import FakeClock, FakeStep, crash_everywhere, in_memory, run_until_idle
"""

from durably.testing.clock import FakeClock
from durably.testing.crash_everywhere import crash_everywhere
from durably.testing.crash_report import (
    CRASH_MOMENTS,
    CrashMoment,
    CrashPoint,
    CrashReport,
    CrashResult,
    Difference,
    Ending,
)
from durably.testing.fake_step import FakeStep, FakeStepCall, FakeSyncStep
from durably.testing.instances import InMemoryOptions, in_memory, run_until_idle

__all__ = [
    "CRASH_MOMENTS",
    "CrashMoment",
    "CrashPoint",
    "CrashReport",
    "CrashResult",
    "Difference",
    "Ending",
    "FakeClock",
    "FakeStep",
    "FakeStepCall",
    "FakeSyncStep",
    "InMemoryOptions",
    "crash_everywhere",
    "in_memory",
    "run_until_idle",
]
