"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first_seconds: float = 0.05, longest_seconds: float = 2.0) -> Iterator[float]:
    """Yield how many seconds to wait before each next attempt: twice as long each time, up to the longest.

    Up to half of it is left to chance, so that those that failed together do not come back together.
    """
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(0.5, 1)  # noqa: S311 - not a secret
        seconds = min(2 * seconds, longest_seconds)
