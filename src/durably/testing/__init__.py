"""For the tests of those who use durably: time, an instance in memory, a fake step.

>>> from durably.testing import FakeClock, FakeStep, in_memory, run_until_idle
"""

from durably.testing.clock import FakeClock
from durably.testing.fake_step import FakeStep, FakeStepCall, FakeSyncStep
from durably.testing.instances import InMemoryOptions, in_memory, run_until_idle

__all__ = [
    "FakeClock",
    "FakeStep",
    "FakeStepCall",
    "FakeSyncStep",
    "InMemoryOptions",
    "in_memory",
    "run_until_idle",
]
