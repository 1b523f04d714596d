"""Ids that sort by the moment they were made."""

import os
import threading
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_HALF_BITS: Final = 40


class UlidFactory:
    """Makes ULIDs that strictly increase within the process, also when the clock stands or goes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = -1
        self._prefix = ""
        self._low = 0

    def __call__(self, milliseconds: int) -> str:
        """Return the next id, for an instant given in milliseconds since 1970."""
        with self._lock:
            if milliseconds > self._milliseconds:
                self._start(milliseconds)
            else:
                # Only the lower half of the random part counts up: the rest of the text stays as it is.
                self._low += 1
                if self._low >> _HALF_BITS:
                    self._start(self._milliseconds + 1)
            return self._prefix + _encode_half(self._low)

    def _start(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        time_part = "".join(_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0))
        high, self._low = (int.from_bytes(os.urandom(_HALF_BITS // 8), "big") for _ in range(2))
        self._prefix = time_part + _encode_half(high)


def _encode_half(number: int) -> str:
    return _PAIRS[number >> 30] + _PAIRS[number >> 20 & 1023] + _PAIRS[number >> 10 & 1023] + _PAIRS[number & 1023]


new_ulid: Final = UlidFactory()
"""The ids of this process: two instances side by side must not make the same or disordered ones."""
