"""The JSON Schema of what is sent to a job, and of what is stored of its result.

Pydantic describes what it would write. Stored values differ: they must be readable again, and are whole.
"""

from __future__ import annotations

from enum import Flag
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from durably.core.round_trip import GIVEN_BY_USERS, kind_of, writes_what_it_refuses

STORED: Final = "stored"
"""The module that a type seems to be of where it is described as stored: the name of the class stays."""

_REFERENCES: Final = frozenset({"ref", "schema_ref"})


class JsonSchemas(GenerateJsonSchema):
    """Describes inputs (mode `validation`) as they are accepted, and outputs (`serialization`) as they are stored."""

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,  # noqa: FBT001 - as Pydantic declares it
    ) -> bool:
        """Require of a stored value every field of a model, those with defaults too."""
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return not field.get("serialization_exclude_if")
        return super().field_is_required(field, total)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Describe flags as the number that any combination of them is."""
        described = super().enum_schema(schema)
        if issubclass(schema["cls"], Flag):
            return {**{name: part for name, part in described.items() if name != "enum"}, "type": "integer"}
        return described

    def named_tuple_schema(self, schema: core_schema.NamedTupleSchema) -> JsonSchemaValue:
        """Require every item of a stored one."""
        return self._whole(super().named_tuple_schema(schema))

    def p_arguments_schema(
        self, arguments: list[core_schema.ArgumentsParameter], var_args_schema: core_schema.CoreSchema | None
    ) -> JsonSchemaValue:
        """Require the same where, to an older Pydantic, a named tuple is the call that makes it."""
        return self._whole(super().p_arguments_schema(arguments, var_args_schema))

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        """Describe JSON within JSON as text: so it is stored, as it was sent."""
        text = {"type": "string", "contentMediaType": "application/json"}
        return {**text, "contentSchema": self.generate_inner(schema.get("schema") or core_schema.any_schema())}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Require a tag also where it has a default: without it there is no telling whose default."""
        described = super().tagged_union_schema(schema)
        if self.mode == "serialization" or "discriminator" not in described:
            return described
        return {**described, "required": [described["discriminator"]["propertyName"]]}

    def _whole(self, items: JsonSchemaValue) -> JsonSchemaValue:
        return items if self.mode == "validation" else {**items, "minItems": len(items.get("prefixItems", ()))}


def as_stored(schema: Any) -> Any:
    """Return the core schema of what is stored of a type: without computed fields, where they would be refused.

    It can be described beside the type itself, as another one of the same name.
    """
    return _without_computed(schema) if writes_what_it_refuses(schema) else schema


def _without_computed(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return type(node)(_without_computed(item) for item in node)
    if not isinstance(node, dict):
        return node
    if kind_of(node) is None:
        return {key: _without_computed(item) for key, item in node.items()}
    return {key: _part(key, item) for key, item in node.items() if key != "computed_fields"}


def _part(key: str, item: Any) -> Any:
    if key in GIVEN_BY_USERS:
        return item
    return f"{STORED}.{item}" if key in _REFERENCES else _without_computed(item)
