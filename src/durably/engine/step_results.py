"""The result of a step: as the job sees it, as it is stored, and what is said where it cannot be."""

from __future__ import annotations

from typing import Any

from durably.core.errors import ValueRefusedError
from durably.core.json_values import Codec, decode_checked, encode_json


def encoded_result(name: str, codec: Codec[Any] | None, value: Any) -> tuple[Any, str | None]:
    """Return the result of a step as the job sees it, now and after a resume, and as it is stored."""
    what = f"result of step {name!r}"
    if codec is not None:
        return codec.round_trip(codec.validate(value, what), what)
    return value, None if value is None else encode_json(value, what)


def decoded_result(name: str, codec: Codec[Any] | None, text: str | None) -> Any:
    """Return the stored result of a step as the job sees it."""
    if text is None:
        return None
    what = f"result of step {name!r}"
    return decode_checked(text, what) if codec is None else codec.decode(text, what)


def refused_result(what: str, text: str | None, refusal: ValueRefusedError) -> ValueRefusedError:
    """Return what to say of a result that the database refused."""
    return ValueRefusedError(
        f"{what} cannot be stored, it is {len(text or ''):,} characters of JSON: {refusal}. "
        "Store it elsewhere and return where it is"
    )
