"""The JSON Schema of a type says what is accepted, and what is stored."""

from __future__ import annotations

import json
from enum import Flag
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, computed_field

from durably.core.errors import ValidationError
from durably.core.json_values import Codec


class Area(BaseModel):
    width: int
    height: int = 1

    @computed_field
    @property
    def size(self) -> int:
        return self.width * self.height


class StrictArea(Area):
    model_config = ConfigDict(extra="forbid")


class Measured(BaseModel):
    area: Area
    raw: Json[list[int]]


class Node(BaseModel):
    """Its fields are called as parts of Pydantic's own descriptions are."""

    model_config = ConfigDict(extra="forbid")
    default: StrictArea
    metadata: StrictArea
    ref: str = "a"
    computed_fields: list[Node] = []
    type: str = "b"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Point(NamedTuple):
    x: int
    y: int = 0


class Note(BaseModel):
    title: str
    text: str | None = Field(default=None, exclude_if=lambda text: text is None)


class Right(Flag):
    READ = 1
    WRITE = 2


KINDS = {"object": dict, "array": list, "string": str, "integer": int}


def described(schema: Any, value: Any, definitions: Any = None) -> bool:
    """Tell whether a schema, of the few words that are used here, says of `value` neither too much nor too little."""
    definitions = definitions or schema.get("$defs", {})
    if "$ref" in schema:
        return described(definitions[schema["$ref"].removeprefix("#/$defs/")], value, definitions)
    if not isinstance(value, KINDS[schema["type"]]):
        return False
    if isinstance(value, dict):
        properties = schema["properties"]
        names_agree = set(value) == set(properties) == set(schema["required"])
        return names_agree and all(described(properties[name], value[name], definitions) for name in value)
    return not isinstance(value, list) or schema.get("minItems", 0) <= len(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        pytest.param(Area, {"width": 2}, id="what has a default, and what is computed, is there"),
        pytest.param(StrictArea, {"width": 2}, id="what is computed is left out where it could not be read back"),
        pytest.param(Measured, {"area": {"width": 2}, "raw": "[1]"}, id="JSON within JSON is text"),
        pytest.param(
            Node,
            {"default": {"width": 2}, "metadata": {"width": 2}},
            id="whatever fields are called, also within itself",
        ),
    ],
)
def test_what_is_stored_is_as_the_schema_of_an_output_says(type_: Any, value: Any) -> None:
    codec = Codec(type_)
    stored = json.loads(codec.encode(codec.validate(value, "output"), "output"))

    assert described(codec.json_schema("serialization"), stored)


def test_a_field_that_may_be_left_out_is_not_required_of_what_is_stored() -> None:
    codec = Codec(Note)

    assert codec.json_schema("serialization")["required"] == ["title"]
    assert codec.encode(Note(title="a"), "output") == '{"title":"a"}'


def test_flags_are_the_number_of_their_combination() -> None:
    """A list of the single ones would leave out what they are made for."""
    codec = Codec(Right)

    assert codec.encode(Right.READ | Right.WRITE, "output") == "3"
    for mode in ("serialization", "validation"):
        schema = codec.json_schema(mode)
        assert (schema["type"], schema.get("enum")) == ("integer", None)


def test_a_stored_named_tuple_is_whole_and_a_sent_one_need_not_be() -> None:
    codec = Codec(Point)

    assert codec.encode(codec.validate([1], "output"), "output") == "[1,0]"
    assert codec.json_schema("serialization")["minItems"] == 2
    assert codec.json_schema("validation")["minItems"] == 1


def test_the_tag_of_a_union_must_be_sent_even_if_it_has_a_default() -> None:
    """Without it there is no telling whose default it would be; where nothing is to be told apart it may be missing."""
    codec = Codec(Pet)
    with pytest.raises(ValidationError, match="Unable to extract tag"):
        codec.validate({}, "input")
    assert Codec(Cat).validate({}, "input") == Cat()

    assert codec.json_schema("validation")["required"] == ["kind"]
    assert "required" not in Codec(Cat).json_schema("validation")
