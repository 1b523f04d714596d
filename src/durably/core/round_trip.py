"""How a type writes what it reads back, and whether it can: found out once, when the type is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import BaseModel

from durably.core.errors import ValidationError
from durably.core.json_refusals import LEAVES

_FIELDS: Final = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
_PLAIN: Final = frozenset({"str", "int", "bool", "none"})
_OWNERS: Final = frozenset({"model", "dataclass", "typed-dict"})
_SCALARS: Final[Mapping[str, type]] = {
    "date": date,
    "datetime": datetime,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
}
_SURELY_READ: Final = frozenset(
    {
        *_PLAIN,
        *_SCALARS,
        *(
            "typed-dict",
            "typed-dict-field",
            "any",
            "float",
            "decimal",
            "list",
            "tuple",
            "dict",
            "set",
            "frozenset",
            "bytes",
        ),
        *("nullable", "default", "definitions", "definition-ref"),
    }
)
_UNMISTAKABLE: Final = frozenset({*_PLAIN, "float"})
_CODE: Final = ("serialization", "serialization_exclude_if")
# Parts of a schema that are none, whatever they look like.
GIVEN_BY_USERS: Final = frozenset({"metadata", "default"})


def check_round_trip(core_schema: Any) -> None:
    """Raise `ValidationError` for a part of a type that would not be found again in what is stored of it.

    `core_schema` is that of a Pydantic `TypeAdapter`. Unnoticed, the first execution would see the value and
    a resumed one the default.
    """
    for kind, node, owner, name, config in _nodes(core_schema):
        if kind == "generator":
            raise ValidationError(
                f"{f'{owner}.{name} has' if owner else 'it has'} an iterator, which can be gone through only once and "
                "would be stored as an empty list: use list[...]",
                field=f"{owner}.{name}" if owner else None,
            )
        if kind == "model" and node.get("cls") is BaseModel:
            raise ValidationError(
                f"{f'{owner}.{name} is' if name else 'it is'} BaseModel itself, which has no field to keep a value in: "
                "say which model",
                field=f"{owner}.{name}" if name else None,
            )
        if node.get("now_op") == "future":
            raise ValidationError(
                f"{f'{owner}.{name} is' if name else 'it is'} a date of the future, which a run that starts or resumes "
                "later could not read any more: say datetime or date, and check it in the job",
                field=f"{owner}.{name}" if name else None,
            )
        if kind in _FIELDS:
            _check_field(node, owner, name, config)


def _check_field(field: Mapping[str, Any], owner: str, name: str, config: Mapping[str, Any]) -> None:
    if field.get("serialization_exclude"):
        raise ValidationError(
            f"{owner}.{name} is excluded from what is stored, so that its value would be lost: leave exclude=True out, "
            "or the field",
            field=f"{owner}.{name}",
        )
    written = str(field.get("serialization_alias") or name)
    read = _read_as(name, field, config)
    if [written] not in read:
        raise ValidationError(
            f"{owner}.{name} would be stored as {written!r} and not be found again, for it is read as "
            f"{' or '.join(repr('.'.join(map(str, path))) for path in read)}: give it one alias for both, "
            "Field(alias=...)",
            field=f"{owner}.{name}",
        )


def writes_what_it_refuses(core_schema: Any) -> bool:
    """Tell whether a type must be written for the way back: JSON within JSON, computed fields it takes for others."""
    return any(
        kind == "json" or (node.get("computed_fields") and config.get("extra_fields_behavior") in ("forbid", "allow"))
        for kind, node, _, _, config in _nodes(core_schema)
    )


def may_lose_values(core_schema: Any) -> bool:
    """Tell whether a type has a field whose value is not always stored, or stored and never read."""
    return any(
        kind in _FIELDS and (node.get("init_only") or node.get("serialization_exclude_if") or node.get("init") is False)
        for kind, node, *_ in _nodes(core_schema)
    )


def reads_what_it_writes(core_schema: Any) -> bool:
    """Tell whether every value of a type, of its very classes, is sure to be read as it was written.

    What stands open in a type, as the values of a bare `dict`, is not looked at.
    """
    return all(_is_read_as_written(kind, node, config) for kind, node, _, _, config in _nodes(core_schema))


def classes_of(core_schema: Any) -> tuple[type[Any], ...]:
    """Return the classes of which a type also takes instances of subclasses, which it would not read again."""
    found = {_SCALARS[kind] for kind, *_ in _nodes(core_schema) if kind in _SCALARS}
    return tuple(found)


def is_written_as_it_is(core_schema: Any) -> bool:
    """Tell whether every valid value of a type is its own JSON form: text, whole numbers, lists and maps of them."""
    kind = core_schema.get("type")
    if "serialization" in core_schema:
        return False
    if kind == "nullable":
        return is_written_as_it_is(core_schema["schema"])
    if kind == "list":
        return "items_schema" in core_schema and is_written_as_it_is(core_schema["items_schema"])
    if kind == "dict":
        keys, values = core_schema.get("keys_schema", {}), core_schema.get("values_schema", {})
        return keys.get("type") == "str" and is_written_as_it_is(keys) and is_written_as_it_is(values)
    return kind in _PLAIN


def kind_of(node: Mapping[str, Any]) -> str | None:
    """Return which kind of schema this is; None for the fields of one by their names, of which `type` may be one."""
    kind = node.get("type")
    return kind if isinstance(kind, str) else None


def _parts_of(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    given = frozenset() if kind_of(node) is None else GIVEN_BY_USERS
    return ((name, item) for name, item in node.items() if name not in given)


def _is_read_as_written(kind: str, node: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    # Extra fields can be of any type, and code may write one value and read another. Nobody has looked at what is in an
    # instance of a model or a dataclass: it is taken as it is.
    has_extra = config.get("extra_fields_behavior") == "allow"
    if has_extra or any(node.get(part) for part in _CODE):
        return False
    match kind:
        case "enum":
            # Where None is allowed beside it, a member that is written as null is read as None.
            return all(type(member.value) in LEAVES and member.value is not None for member in node["members"])
        case "literal":
            return all(type(value) in LEAVES for value in node["expected"])
        case "union":
            return all(isinstance(each, Mapping) and kind_of(each) in _UNMISTAKABLE for each in node["choices"])
        case "tagged-union":
            return not callable(node["discriminator"])
    return kind in _SURELY_READ


class _Node(NamedTuple):
    """A part of a schema: the class and the field it is in, and how that class is configured."""

    kind: str
    node: Mapping[str, Any]
    owner: str
    field: str
    config: Mapping[str, Any]


def _nodes(
    node: Any, owner: str = "", field: str = "", config: Mapping[str, Any] = MappingProxyType({}), key: str = ""
) -> Iterator[_Node]:
    """Yield every part of a schema, outer ones first."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _nodes(item, owner, field, config)
    if not isinstance(node, dict):
        return
    kind = kind_of(node)
    if kind in _OWNERS:
        config = node.get("config") or {}
        owner = getattr(node.get("cls"), "__name__", None) or str(config.get("title", owner))
    elif kind in _FIELDS:
        # A field of a dataclass knows its name, the others stand behind theirs.
        field = str(node.get("name", key))
    if kind is not None:
        yield _Node(kind, node, owner, field, config)
    for name, item in _parts_of(node):
        yield from _nodes(item, owner, field, config, name)


def _read_as(name: str, field: Mapping[str, Any], config: Mapping[str, Any]) -> list[list[str | int]]:
    """Return the paths under which validation looks for a field."""
    alias = field.get("validation_alias")
    if alias is None:
        return [[name]]
    paths: list[list[str | int]]
    paths = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
    reads_by_name = config.get("validate_by_name") or config.get("populate_by_name")
    if config.get("validate_by_alias") is False:
        return [[name]]
    return [*paths, [name]] if reads_by_name else paths
