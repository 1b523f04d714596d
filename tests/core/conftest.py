"""Properties are tested without a stopwatch, and leave nothing behind."""

from hypothesis import settings

settings.register_profile("durably", deadline=None, database=None)
settings.load_profile("durably")
