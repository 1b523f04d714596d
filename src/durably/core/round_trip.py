"""How a type writes what it reads back, and whether it can: found out once, when the type is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from durably.core.errors import ValidationError

_FIELDS: Final = frozenset({"model-field", "dataclass-field", "typed-dict-field"})
_PLAIN: Final = frozenset({"str", "int", "bool", "none"})
_OWNERS: Final = frozenset({"model", "dataclass", "typed-dict"})
# Parts of a schema that are none, whatever they look like.
GIVEN_BY_USERS: Final = frozenset({"metadata", "default"})


def check_round_trip(core_schema: Any) -> None:
    """Raise `ValidationError` for a field that is stored under a name which validation does not look for.

    `core_schema` is that of a Pydantic `TypeAdapter`. Unnoticed, the first execution would see the value and
    a resumed one the default.
    """
    for owner, name, field, reads_by_name in _fields(core_schema, "", None, reads_by_name=False):
        written = str(field.get("serialization_alias") or name)
        read = _read_as(name, field, reads_by_name=reads_by_name)
        if [written] not in read and not field.get("serialization_exclude"):
            raise ValidationError(
                f"{owner}.{name} would be stored as {written!r} and not be found again, for it is read as "
                f"{' or '.join(repr('.'.join(map(str, path))) for path in read)}: give it one alias for both, "
                "Field(alias=...)",
                field=f"{owner}.{name}",
            )


def writes_what_it_refuses(core_schema: Any) -> bool:
    """Tell whether a type must be written for the way back: JSON within JSON, or computed fields it forbids."""
    return any(
        node["type"] == "json" or (node.get("computed_fields") and forbids_extra)
        for node, forbids_extra in _nodes(core_schema, forbids_extra=False)
    )


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


def _nodes(node: Any, *, forbids_extra: bool) -> Iterator[tuple[Mapping[str, Any], bool]]:
    if isinstance(node, list | tuple):
        for item in node:
            yield from _nodes(item, forbids_extra=forbids_extra)
    if isinstance(node, dict):
        if kind_of(node) in _OWNERS:
            forbids_extra = (node.get("config") or {}).get("extra_fields_behavior") == "forbid"
        if kind_of(node) is not None:
            yield node, forbids_extra
        for _, item in _parts_of(node):
            yield from _nodes(item, forbids_extra=forbids_extra)


def _fields(
    node: Any, owner: str, key: str | None, *, reads_by_name: bool
) -> Iterator[tuple[str, str, Mapping[str, Any], bool]]:
    """Yield every field of a schema: the class it is in, its name, what is said of it, whether its name is read."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _fields(item, owner, None, reads_by_name=reads_by_name)
    if not isinstance(node, dict):
        return
    kind = kind_of(node)
    if kind in _OWNERS:
        config = node.get("config") or {}
        owner = getattr(node.get("cls"), "__name__", None) or str(config.get("title", owner))
        reads_by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    elif kind in _FIELDS:
        # A field of a dataclass knows its name, the others stand behind theirs.
        yield owner, str(node.get("name", key)), node, reads_by_name
    for name, item in _parts_of(node):
        yield from _fields(item, owner, name, reads_by_name=reads_by_name)


def _read_as(name: str, field: Mapping[str, Any], *, reads_by_name: bool) -> list[list[str | int]]:
    """Return the paths under which validation looks for a field."""
    alias = field.get("validation_alias")
    if alias is None:
        return [[name]]
    paths: list[list[str | int]]
    paths = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
    return [*paths, [name]] if reads_by_name else paths
