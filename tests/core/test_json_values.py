"""R3: what JSON can carry comes back equal; what it cannot is refused by place."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FutureDate,
    FutureDatetime,
    SecretStr,
    computed_field,
    model_validator,
)

from durably import ValidationError
from durably.core.json_values import Codec, codec_or_none, decode_json, decode_stored, encode_json, encode_leniently

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


class Owner(BaseModel):
    what: BaseModel


class Maybe(Enum):
    NONE = None
    SOME = 1


class Colour(Enum):
    RED = "red"


class Everything(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    text: str = Field(alias="theText")
    day: date
    at: datetime
    took: timedelta
    price: Decimal
    key: UUID
    colour: Colour
    pair: tuple[int, str]
    by_number: dict[int, float]
    level: Literal["low", "high"]
    child: Everything | None = None


EVERYTHING = st.builds(
    Everything,
    text=TEXT,
    day=st.dates(),
    at=st.datetimes(timezones=st.just(UTC)),
    took=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    key=st.uuids(),
    colour=st.sampled_from(Colour),
    pair=st.tuples(st.integers(), TEXT),
    by_number=st.dictionaries(st.integers(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    level=st.sampled_from(["low", "high"]),
    child=st.none(),
)


@dataclass
class Point:
    x: int
    y: int = 0
    note: str = field(default="", kw_only=True)


class TestRoundTrip:
    @given(JSON)
    def test_any_json_value_comes_back_equal(self, value: Any) -> None:
        """R3: what is stored is what was given."""
        back = decode_json(encode_json(value, "value"))

        assert back == value
        assert repr(back) == repr(value)

    @given(EVERYTHING)
    def test_a_typed_value_comes_back_equal(self, value: Everything) -> None:
        """R3: dates, decimals, UUIDs, enums, tuples and aliases come back as what they were."""
        codec = Codec(Everything)

        assert codec.decode(codec.encode(value, "value"), "value") == value

    @given(st.lists(st.builds(Point, st.integers(), st.integers(), note=TEXT)))
    def test_dataclasses_come_back_equal(self, value: list[Point]) -> None:
        """R3: whatever Pydantic can validate."""
        codec = Codec(list[Point])

        assert codec.decode(codec.encode(value, "value"), "value") == value

    @pytest.mark.parametrize(
        "annotation",
        [str, int, bool, str | None, list[int], list[str | None], dict[str, list[int]], list[dict[str, str]]],
    )
    @given(st.data())
    def test_plain_types_are_written_as_any_other_value(self, annotation: Any, data: st.DataObject) -> None:
        """R3, D1: the quick way for what is its own JSON form gives the same text, and refuses the same."""
        codec, untyped = Codec(annotation), Codec(Any)
        value = data.draw(st.from_type(annotation))

        try:
            expected = untyped.encode(value, "value")
        except ValidationError:
            with pytest.raises(ValidationError):
                codec.encode(value, "value")
            return
        assert codec.encode(value, "value") == expected
        assert codec.decode(expected, "value") == value

    @given(st.recursive(st.floats() | st.binary() | st.text() | st.sets(st.integers()), st.lists))
    def test_lenient_encoding_never_fails(self, value: Any) -> None:
        """S7: any data can be logged, and read again by a strict reader."""
        text = encode_leniently(value)

        assert text.encode()
        json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))

    def test_it_is_compact_and_not_escaped(self) -> None:
        """D1: compact, UTF-8 not escaped."""
        assert encode_json({"ü": [1, None, "🚂"]}, "value") == '{"ü":[1,null,"🚂"]}'

    def test_readers_accept_spaces_and_escapes(self) -> None:
        """D1: other programs may write them."""
        assert decode_json(' { "a" : [ 1 , "\\u00fc\\ud83d\\ude82" ] } ') == {"a": [1, "ü🚂"]}

    def test_half_of_a_character_is_read_as_one_that_is_not_known(self) -> None:
        """D1: another program may have cut a text within one; what is read can be stored and sent again."""
        assert decode_json(r'{"cut \ud83d": ["\udfff", "\ud83d\ude82"]}') == {"cut \ufffd": ["\ufffd", "🚂"]}

    def test_what_is_nested_too_deeply_is_no_json(self) -> None:
        """R11: another program may have written it; reading it harms nothing else."""
        assert decode_stored("[" * 100_000) == "[" * 100_000
        with pytest.raises(ValueError, match="deeply"):
            decode_json("[" * 100_000 + "]" * 100_000)


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "field", "message"),
        [
            (math.nan, "value", "nan"),
            ([1, [2, -math.inf]], "value[1][1]", "-inf"),
            ({"a": {"b": {1}}}, "value.a.b", "a set; use a list"),
            ({"a": frozenset()}, "value.a", "a set"),
            ([b"x"], "value[0]", "encode them as text"),
            ([bytearray(b"x")], "value[0]", "bytes"),
            ({"a": object()}, "value.a", "object of type 'object'"),
            ({"a": [lambda: 1]}, "value.a[0]", "function"),
            ({"a": [{1: 2}]}, "value.a[0]", "the key 1, keys are text"),
            ({"a": ({None: date(2026, 1, 1)},)}, "value.a[0]", "the key None"),
            ("\ud800", "value", "lone surrogate"),
            ({"\udfff": 1}, "value", "lone surrogate"),
            (10**5000, "value", "cannot be stored"),
            ([datetime(1971, 5, 1, tzinfo=ZoneInfo("Africa/Monrovia"))], "value[0]", "an offset from UTC with seconds"),
            (time(1, tzinfo=timezone(timedelta(seconds=3_601))), "value", "convert it to UTC"),
            (time(1, tzinfo=ZoneInfo("Europe/Berlin")), "value", "a time zone's rules, Europe/Berlin; use a datetime"),
        ],
        ids=[
            *("nan", "inf", "set", "frozenset", "bytes", "bytearray", "object", "function"),
            *("int-key", "none-key", "text", "key", "huge", "datetime", "time", "zone"),
        ],
    )
    def test_the_place_is_named(self, value: Any, field: str, message: str) -> None:
        """R3: NaN, Infinity, sets, bytes, objects, lone surrogates."""
        with pytest.raises(ValidationError) as refused:
            encode_json(value, "value")

        assert refused.value.field == field
        assert message in str(refused.value)

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (dict[int, str], {1: "one"}),
            (dict[date, list[dict[bool, int]]], {date(2026, 1, 1): [{True: 1}]}),
            (Counter[str], Counter("aab")),
            (dict[Colour, int], {Colour.RED: 1}),
        ],
        ids=["int", "date", "counter", "enum"],
    )
    def test_keys_come_back_where_the_type_says_what_they_are(self, annotation: Any, value: Any) -> None:
        """R3, S2: JSON has text for keys only."""
        codec = Codec(annotation)

        assert codec.decode(codec.encode(value, "value"), "value") == value

    @pytest.mark.parametrize("annotation", [dict[str, int], list[dict[str, int]], dict[str, date]], ids=str)
    def test_keys_that_are_no_valid_text_are_refused(self, annotation: Any) -> None:
        """R3, S2: Pydantic writes others in their place, and of two keys one could be left."""
        item: Any = date(2026, 1, 1) if annotation == dict[str, date] else 1
        value: Any = {"caf\udce9.txt": item}
        value = [value] if annotation == list[dict[str, int]] else value

        with pytest.raises(ValidationError, match="lone surrogate"):
            Codec(annotation).round_trip(value, "value")

    @pytest.mark.parametrize("annotation", [dict, dict[str, Any], dict[int | str, Any]], ids=str)
    def test_keys_that_would_come_back_as_text_are_refused(self, annotation: Any) -> None:
        """R3, S2: both executions must see the same, so this is known before anything is stored."""
        value = {"a": {1: 1}} if annotation == dict[str, Any] else {1: 1}

        with pytest.raises(ValidationError, match=r"the key 1.*dict\[int, \.\.\.\]"):
            Codec(annotation).encode(value, "value")

    def test_nesting_without_end_is_refused(self) -> None:
        """R3: deep or endless, plain or inside something that needs a second look."""
        endless: list[Any] = []
        endless.append(endless)
        deep: list[Any] = [date(2026, 1, 1)]
        for _ in range(100_000):
            deep = [deep]

        for value in (endless, deep, {"a": [deep]}):
            for encode in (encode_json, Codec(Any).encode, Codec(list[Any] | dict[str, Any]).encode):
                with pytest.raises(ValidationError, match="value"):
                    encode(value, "value")

    def test_what_was_stored_can_be_read_from_anywhere(self) -> None:
        """R3: what is accepted high on the stack can be read deep down, and the other way round."""

        def nested(depth: int) -> Any:
            value: Any = 1
            for _ in range(depth):
                value = [value]
            return value

        def at_depth(frames: int, function: Any, *args: Any) -> Any:
            return function(*args) if frames == 0 else at_depth(frames - 1, function, *args)

        for depth in (50, 190, 500, 900, 950, 990):
            try:
                text = encode_json(nested(depth), "value")
            except ValidationError:
                continue
            assert at_depth(400, decode_json, text) == nested(depth)

    def test_a_model_names_its_field(self) -> None:
        """R3: also values that were validated."""

        class Row(BaseModel):
            price: float
            tags: set[str] | None = None

        codec = Codec(list[Row])
        with pytest.raises(ValidationError, match=r"input\[1\]\.price") as refused:
            codec.encode(codec.validate([{"price": 1}, {"price": math.inf}], "input"), "input")
        assert refused.value.field == "input[1].price"
        with pytest.raises(ValidationError, match=r"input\[0\]\.tags"):
            codec.encode(codec.validate([{"price": 1, "tags": ["a"]}], "input"), "input")

    @pytest.mark.parametrize("annotation", [int, list[int], int | None, dict[str, int], Decimal | int], ids=str)
    def test_a_number_longer_than_python_reads_is_refused(self, annotation: Any) -> None:
        """R3: it would be stored and never read again."""
        value = {list[int]: [10**5000], dict[str, int]: {"n": 10**5000}}.get(annotation, 10**5000)

        with pytest.raises(ValidationError, match=r"cannot be stored as JSON: .*4300 digits"):
            Codec(annotation).encode(value, "value")

    def test_what_the_code_of_a_type_raises_is_a_refusal(self) -> None:
        """R3: also a mistake in it, which Pydantic hands on as it is."""

        class Careless(BaseModel):
            total: int

            @model_validator(mode="before")
            @classmethod
            def rename(cls, values: dict[str, int]) -> dict[str, int]:
                return {"total": values["sum"]}

        class Divided(BaseModel):
            parts: int

            @computed_field
            def share(self) -> float:
                return 1 / self.parts

        for read in (Codec(Careless).validate, Codec(Careless).read):
            with pytest.raises(ValidationError, match=r"input: its type raised KeyError\('sum'\)"):
                read({"value": 1}, "input")
        for encode in (Codec(Divided).encode, encode_json):
            with pytest.raises(ValidationError, match="output: its type raised ZeroDivisionError"):
                encode(Divided(parts=0), "output")

    @pytest.mark.parametrize("annotation", [BaseModel, list[BaseModel], Owner], ids=["itself", "list", "field"])
    def test_a_model_without_fields_of_its_own_keeps_nothing(self, annotation: Any) -> None:
        """R3: a value of it would be stored as an empty object."""
        with pytest.raises(ValidationError, match=r"BaseModel itself, .*: say which model"):
            Codec(annotation)

    @pytest.mark.parametrize("annotation", [FutureDate, list[FutureDatetime]], ids=["date", "datetimes"])
    def test_a_type_that_takes_a_value_for_a_while_only_is_refused(self, annotation: Any) -> None:
        """R3: a run that starts or resumes later could not read it."""
        with pytest.raises(ValidationError, match="a date of the future"):
            Codec(annotation)

    def test_a_computed_field_is_not_taken_for_an_extra_one(self) -> None:
        """S2: what is written for others is not read back."""

        class Price(BaseModel):
            model_config = ConfigDict(extra="allow")
            net: int

            @computed_field
            def gross(self) -> int:
                return 2 * self.net

        assert Codec(Price).round_trip(Price(net=2), "value")[0] == Price(net=2)

    def test_a_member_that_is_written_as_null_is_seen_as_it_will_be_read(self) -> None:
        """S2: as None, where that is allowed too; by the first execution as well."""
        assert Codec(Maybe | None).round_trip(Maybe.NONE, "value") == (None, "null")

    def test_a_secret_is_not_stored_as_asterisks(self) -> None:
        """R3: what would come back as something else is refused."""

        class Login(BaseModel):
            password: SecretStr

        codec = Codec(Login)
        with pytest.raises(ValidationError, match=r"input\.password"):
            codec.encode(Login(password=SecretStr("hush")), "input")

    def test_validation_lists_the_first_places(self) -> None:
        """R3: one line, not a page."""
        with pytest.raises(ValidationError, match="and 5 more") as refused:
            Codec(list[int]).validate(["x"] * 10, "input")

        assert refused.value.field == "input[0]"
        assert str(refused.value).count("input[") == 5

    def test_a_place_is_named_once(self) -> None:
        """R3, R4: the value itself, or what within it."""
        with pytest.raises(ValidationError, match=r"^Invalid output: Input should be a valid list$"):
            Codec(list[int]).validate(None, "output")
        with pytest.raises(
            ValidationError, match=r"^Invalid output\[1\]: Input should be a valid integer; output\[2\]: "
        ):
            Codec(list[int]).validate([1, None, None], "output")

    def test_a_type_describes_itself_as_a_schema(self) -> None:
        """For those who show forms: the JSON Schema, by the names that are stored."""
        assert "theText" in Codec(Everything).json_schema("validation")["$defs"]["Everything"]["properties"]

    def test_a_type_without_validation_has_no_codec(self) -> None:
        """A step annotated with a type of its own is stored unchecked."""

        class Plain: ...

        assert codec_or_none(Plain) is None
        assert codec_or_none(None) is None
        assert codec_or_none(Any) is None
