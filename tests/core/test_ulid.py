"""R2: ids sort by creation, whatever the clock does."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.core.ulid import UlidFactory, new_ulid

MILLISECONDS = st.integers(min_value=0, max_value=2**48 - 2)


class TestUlids:
    @given(st.lists(MILLISECONDS, min_size=2, max_size=50))
    def test_they_strictly_increase_also_when_the_clock_goes_back(self, clock: list[int]) -> None:
        """R2: monotonic within a process."""
        make = UlidFactory()

        ids = [make(milliseconds) for milliseconds in clock]

        assert ids == sorted(ids)
        assert len(set(ids)) == len(ids)

    @given(MILLISECONDS)
    def test_the_time_stands_at_the_beginning(self, milliseconds: int) -> None:
        """R2: ten characters of Crockford's alphabet, then sixteen of chance."""
        ulid = UlidFactory()(milliseconds)
        alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

        assert len(ulid) == 26
        assert sum(alphabet.index(c) << 5 * place for place, c in enumerate(reversed(ulid[:10]))) == milliseconds
        assert set(ulid) <= set(alphabet)

    def test_a_known_instant_has_the_known_beginning(self) -> None:
        """R2: as every other ULID library writes it."""
        assert UlidFactory()(1469918176385).startswith("01ARYZ6S41")

    def test_the_end_of_chance_carries_into_the_time(self) -> None:
        """R2: strictly increasing even after 2^40 ids in one millisecond."""
        make = UlidFactory()
        first = make(5)
        make._low = 2**40 - 1
        second, third = make(5), make(5)

        assert first < second < third
        assert second[:10] == UlidFactory()(6)[:10]

    def test_threads_never_make_the_same(self) -> None:
        """R2: from any thread."""
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(lambda _: [new_ulid(1) for _ in range(500)], range(8)))

        assert len({ulid for batch in batches for ulid in batch}) == 4000
        assert all(batch == sorted(batch) for batch in batches)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_process_makes_others(self) -> None:
        """R2: in the same millisecond, and while another thread was making one."""
        new_ulid(2**47)
        reader, writer = os.pipe()
        with new_ulid._lock:
            child = os.fork()
        if child == 0:
            os.write(writer, new_ulid(2**47).encode())
            os._exit(0)
        os.waitpid(child, 0)
        theirs = os.read(reader, 26).decode()
        os.close(reader)
        os.close(writer)

        assert theirs[:10] == new_ulid(2**47)[:10]
        assert theirs[10:18] != new_ulid(2**47)[10:18]
