"""S7: text that every database can hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durably.core.texts import is_storable, storable, text_of


@given(st.text(st.characters(), min_size=1))
def test_any_text_can_be_made_storable(text: str) -> None:
    """S7: for messages, which must not be lost."""
    made = storable(text)

    assert is_storable(made)
    assert made == text or not is_storable(text)


def test_any_object_has_a_text() -> None:
    """S7: at least its type."""

    class Unspeakable:
        def __repr__(self) -> str:
            raise RuntimeError

    assert text_of(Unspeakable()) == "<Unspeakable>"
    assert text_of(ValueError("x")) == "ValueError('x')"
