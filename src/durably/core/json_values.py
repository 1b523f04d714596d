"""Values on their way to JSON and back: strict, typed where a type is known, adapters built once.

What JSON cannot carry is refused with the place where it stands. Pydantic alone would write a set as a
list, bytes as text and NaN as null, and a resumed run would see other values than the first execution.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined] # typeshed leaves it out
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import PydanticUserError, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from durably.core.errors import ValidationError
from durably.core.json_refusals import (
    LEAVES,
    changed,
    foreign_key,
    key_refused,
    not_json,
    raised_by_type,
    refusal,
    refuse_foreign,
    refuse_half,
    unreadable,
)
from durably.core.json_schemas import JsonSchemas, as_stored
from durably.core.round_trip import (
    check_round_trip,
    classes_of,
    is_written_as_it_is,
    may_lose_values,
    reads_what_it_writes,
    writes_what_it_refuses,
)
from durably.core.texts import text_of
from durably.core.type_adapters import adapter_of

T = TypeVar("T")

Mode = Literal["validation", "serialization"]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decode_strictly = json.JSONDecoder(parse_constant=_no_constant).decode

# Where the reader of JSON stops, and the one of every process that shares the database.
_MOST_NESTED: Final = 200
_MOST_DIGITS: Final = 4_300


def compact_encoder(default: Callable[[object], object] | None = None) -> Callable[[object], str]:
    """Return what writes values as compact JSON, not escaped; raises `ValueError` for NaN and `TypeError`.

    `json.JSONEncoder.encode` builds its C encoder anew for every value, which takes longer than encoding a
    small one; here it is built once.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=default)
    if c_make_encoder is None:
        return encoder.encode
    separators = (encoder.key_separator, encoder.item_separator)
    write = c_make_encoder(None, encoder.default, encode_basestring, None, *separators, False, False, False)
    return lambda value: "".join(write(value, 0))


_encode = compact_encoder()
_HALF: Final = re.compile("[\ud800-\udfff]")


class NotJson(str):
    """Stored text that should be JSON and is not: another program wrote it. Reading it must not fail a whole list."""

    __slots__ = ()


def decode_json(text: str) -> Any:
    """Return the value of JSON text. Raises `ValueError` for what is none.

    Half of a character, as other languages write when they cut a text within one, is read as U+FFFD.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        # It is strict about escapes that other writers of the database may use.
        try:
            value = _decode_strictly(text)
            # What was read so could be neither stored nor sent.
            return _decode_strictly(_HALF.sub("\ufffd", _encode(value))) if "\\" in text else value
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def decode_stored(text: str) -> Any:
    """Return the value of a stored column, or its text as `NotJson`.

    >>> decode_stored("{broken")
    '{broken'
    """
    try:
        return decode_json(text)
    except ValueError:
        return NotJson(text)


def decode_checked(text: str, what: str) -> Any:
    """Return the value of JSON text; `what` names it. Raises `ValidationError` for what is none."""
    try:
        return decode_json(text)
    except ValueError as error:
        raise not_json(text, what) from error


def as_json(text: str) -> str:
    """Return stored text as events carry it: as it is, or quoted where it is not JSON.

    >>> as_json("{broken")
    '"{broken"'
    """
    return encode_json(text, "text") if isinstance(decode_stored(text), NotJson) else text


def encode_json(value: object, what: str) -> str:
    """Return `value` as compact JSON; `what` names it in errors.

    Raises `ValidationError` naming the place of the first value that JSON cannot carry.

    >>> encode_json({"n": 1}, "output")
    '{"n":1}'
    """
    try:
        text = _storable(_encode(value), what)
        if value.__class__ not in LEAVES and (found := foreign_key(value)) is not None:
            raise key_refused(what, found)
        return text
    except ValidationError:
        raise
    except Exception:  # noqa: BLE001 - whatever a class of the user raises while it is looked at
        return _ANY.encode(value, what)


def encode_stored(value: object) -> str:
    """Return a value that was read from a stored column as JSON, nested however deep another program wrote it."""
    try:
        return _encode(value)
    except RecursionError:
        return encode_leniently(value)


def encode_leniently(value: object) -> str:
    """Return `value` as JSON, with the text form of whatever JSON cannot carry: for logs, which never fail."""
    try:
        return _storable(_encode(value), "data")
    except Exception:  # noqa: BLE001 - a log line must not fail the job, whatever object it was given
        return _encode_parts(value)


def _encode_parts(value: object) -> str:
    try:
        plain = _finite(to_jsonable_python(value, fallback=text_of, serialize_unknown=True, inf_nan_mode="strings"))
        return _encode(plain).encode("utf-8", "replace").decode("utf-8")
    except Exception:  # noqa: BLE001 - the same; what has no end or no readable parts is stored as one text
        return _encode(text_of(value))


class Codec(Generic[T]):
    """Validates values of one type and carries them to JSON text and back."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._adapter: TypeAdapter[T] = adapter_of(annotation)
        check_round_trip(self._adapter.core_schema)
        self._validate = self._adapter.validator.validate_python
        self._to_python = self._adapter.serializer.to_python
        self._round_trip = writes_what_it_refuses(self._adapter.core_schema)
        self._reads_what_it_writes = reads_what_it_writes(self._adapter.core_schema)
        self._may_lose_values = may_lose_values(self._adapter.core_schema)
        self._classes = classes_of(self._adapter.core_schema)
        self._to_json = self._adapter.serializer.to_json if is_written_as_it_is(self._adapter.core_schema) else None

    def validate(self, value: object, what: str) -> T:
        """Return `value` as this type. Raises `ValidationError` saying what was expected where."""
        try:
            validated: T = self._validate(value)
            return validated
        except PydanticValidationError as error:
            raise refusal(error, what, value) from error
        except Exception as error:
            raise raised_by_type(error, what) from error

    def read(self, value: object, what: str) -> T:
        """Return a value that came as JSON as this type. Raises `ValidationError` saying what was expected where."""
        try:
            validated: T = self._validate(value)
            return validated
        except PydanticValidationError as error:
            try:
                # A strict type takes the text of a date and the like from JSON only.
                read: T = self._adapter.validator.validate_json(_encode(value))
                return read
            except PydanticValidationError as json_error:
                is_about_less = json_error.error_count() < error.error_count()
                raise refusal(json_error if is_about_less else error, what, value) from error
            except Exception:  # noqa: BLE001 - what the first look found says more
                raise refusal(error, what, value) from error
        except Exception as error:
            raise raised_by_type(error, what) from error

    def encode(self, value: T, what: str) -> str:
        """Return the JSON text of a validated value. Raises `ValidationError` naming what JSON cannot carry."""
        try:
            if self._to_json is not None:
                # Validated just before, a value of these types is what the serializer expects: nothing to warn of, and
                # to say so takes longer than all the rest.
                text = self._to_json(value).decode()
                if len(text) > _MOST_DIGITS:
                    # It writes longer numbers than Python reads.
                    _encode(value)
                # So it writes half of a character in a key.
                return _storable(_encode(value), what) if "\ufffd" in text else text
            plain = self._to_python(value, by_alias=True, warnings=False, round_trip=self._round_trip)
            text = _storable(_encode(plain), what)
            if plain.__class__ not in LEAVES and (found := foreign_key(plain)) is not None:
                self._check_keys(found, plain, text, what)
            return text
        except (TypeError, ValueError, PydanticSerializationError) as error:
            if isinstance(error, ValidationError):
                raise
            return self._encode_rich(value, what)
        except Exception as error:
            raise raised_by_type(error, what) from error

    def round_trip(self, value: T, what: str) -> tuple[T, str]:
        """Return a validated value as it will be read from storage, and the JSON text that is stored.

        Raises `ValidationError` naming what JSON cannot carry, and for a value that would come back as another one or
        not at all.
        """
        text = self.encode(value, what)
        if self._reads_what_it_writes and not (self._classes and self._knows_subclasses()):
            return value, text
        again = self._read_again(text, what)
        if self._may_lose_values and not _are_equal(again, value) and (other := self.encode(again, what)) != text:
            raise changed(text, other, what)
        return again, text

    def decode(self, text: str, what: str) -> T:
        """Return the value of stored JSON text. Raises `ValidationError` when today's type refuses it."""
        return self.read(decode_checked(text, what), what)

    def to_mapping(self, value: T) -> Any:
        """Return a validated value as plain data, without what is None."""
        return self._adapter.dump_python(value, mode="json", by_alias=True, exclude_none=True, warnings=False)

    def json_schema(self, mode: Mode) -> dict[str, Any]:
        """Return the JSON Schema of what is accepted (`validation`) or stored (`serialization`)."""
        return JsonSchemas().generate(self.core_schema(mode), mode)

    def core_schema(self, mode: Mode) -> Any:
        """Return what `JsonSchemas` describes: several types at once get names that tell them apart."""
        schema = self._adapter.core_schema
        return as_stored(schema) if mode == "serialization" else schema

    def _read_again(self, text: str, what: str) -> T:
        try:
            return self.decode(text, what)
        except ValidationError as error:
            raise unreadable(text, what, error) from error

    def _knows_subclasses(self) -> bool:
        # Whether a value holds an instance of one can be told only by going through all of it.
        for cls in self._classes:
            for subclass in cls.__subclasses__():
                # Where a `date` is asked for, it becomes one.
                if subclass is not datetime:
                    return True
        return False

    def _check_keys(self, found: tuple[str, object], plain: object, text: str, what: str) -> None:
        """Refuse keys that JSON turns into text, unless the type turns them back."""
        again = self._dump(self._read_again(text, what))
        if foreign_key(again) is None or again != plain:
            raise key_refused(what, found)

    def _dump(self, value: T, *, mode: Literal["json", "python"] = "python") -> Any:
        return self._to_python(value, mode=mode, by_alias=True, warnings=False, round_trip=self._round_trip)

    def _encode_rich(self, value: T, what: str) -> str:
        # Dates, UUIDs, decimals and the like have a JSON form of Pydantic's that its validation accepts
        # back; everything that would come back as something else is found and refused first.
        try:
            plain = self._dump(value)
            refuse_foreign(plain, what)
            text = _storable(_encode(self._dump(value, mode="json")), what)
            if (found := foreign_key(plain)) is not None:
                self._check_keys(found, plain, text, what)
            return text
        except (PydanticSerializationError, TypeError, ValueError) as error:
            if isinstance(error, ValidationError):
                raise
            raise ValidationError(f"{what} cannot be stored as JSON: {error}", field=what, value=value) from error
        except Exception as error:
            raise raised_by_type(error, what) from error


def _are_equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - as arrays, which compare to no single answer
        return False


def codec_or_none(annotation: Any) -> Codec[Any] | None:
    """Return a codec for `annotation`, or None where Pydantic has no way to validate it."""
    if annotation is None or annotation is type(None) or annotation is Any:
        return None
    try:
        return Codec(annotation)
    except (PydanticUserError, TypeError, NameError):
        return None


def reason_of(error: Exception) -> str:
    """Return why Pydantic cannot validate a type, without what it adds for authors of types."""
    return str(error).partition("\n")[0].rstrip(".")


def _storable(text: str, what: str) -> str:
    if text.count("[") + text.count("{") > _MOST_NESTED:
        _check_depth(text, what)
    refuse_half(text, what)
    return text


def _check_depth(text: str, what: str) -> None:
    # The limit must not depend on how deep the stack of the writer is, or a reader could fail where it did not.
    try:
        from_json(text)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise ValidationError(
                f"{what} is nested too deeply: {_MOST_NESTED} lists and objects within each other at most", field=what
            ) from None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


_ANY: Final[Codec[Any]] = Codec(Any)
