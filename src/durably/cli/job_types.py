"""The TypeScript file of an instance's jobs: the `Jobs` interface, the names, and the types behind them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import PydanticUserError

from durably.cli.errors import CommandError
from durably.cli.typescript import Types, documentation, literal, property_name
from durably.core.json_schemas import JsonSchemas
from durably.core.json_values import Codec, Mode
from durably.handles import JobHandle

# What `durably` of durably-react is beside its jobs, and what would make it a promise to `await`.
_TAKEN: Final = frozenset({"useRuns", "useRunActions", "then"})

_HEADER: Final = "// Written by `durably types`: change the jobs, not this file.\n"


def typescript_of_jobs(jobs: Mapping[str, JobHandle[Any, Any]]) -> str:
    """Return the file for jobs by attribute name. Raises `CommandError` where one could not be told by its name.

    Inputs are described as they must be sent, outputs as they come back: JSON, not Python.
    """
    properties = _properties_of(jobs)
    sides: list[tuple[str, Mode, Any]] = [
        (attribute, mode, codec.core_schema(mode))
        for attribute, handle in jobs.items()
        for mode, codec in _codecs_of(handle)
        if codec is not None and _can_be_described(codec, mode)
    ]
    schemas, definitions = JsonSchemas().generate_definitions(sides)
    types = Types({str(name): schema for name, schema in definitions.items()}, taken=frozenset({"Jobs"}))

    def side(attribute: str, mode: Mode) -> str:
        return types.type_of(schemas.get((attribute, mode), True), indent=2)

    entries = "".join(
        _entry(property_, handle, side(attribute, "validation"), side(attribute, "serialization"))
        for attribute, (property_, handle) in properties.items()
    )
    names = "".join(
        f"  {property_name(property_)}: {literal(handle.name)},\n" for property_, handle in properties.values()
    )
    blocks = [
        _HEADER,
        *(f"{declaration}\n" for declaration in types.declarations()),
        f"export interface Jobs {{\n{entries}}}\n",
        f"export const jobNames = {{\n{names}}} as const\n",
    ]
    return "\n".join(blocks)


def _codecs_of(handle: JobHandle[Any, Any]) -> tuple[tuple[Mode, Codec[Any] | None], ...]:
    return ("validation", handle.definition.input), ("serialization", handle.definition.output)


def _can_be_described(codec: Codec[Any], mode: Mode) -> bool:
    if codec.annotation is Any:
        return False
    try:
        codec.json_schema(mode)
    except PydanticUserError:
        # Pydantic can validate it and cannot describe it: for TypeScript it is unknown.
        return False
    return True


def _properties_of(jobs: Mapping[str, JobHandle[Any, Any]]) -> dict[str, tuple[str, JobHandle[Any, Any]]]:
    properties: dict[str, tuple[str, JobHandle[Any, Any]]] = {}
    for attribute, handle in jobs.items():
        property_ = re.sub(r"_+([a-zA-Z0-9])", lambda match: match[1].upper(), attribute).rstrip("_")
        if property_ in _TAKEN:
            raise CommandError(
                f"the job {attribute!r} would be {property_!r} in TypeScript, which cannot be a job there: register it "
                "under another name"
            )
        twin = _twin_of(property_, properties.items())
        if twin is not None:
            raise CommandError(
                f"the jobs {twin!r} and {attribute!r} would both be {property_!r} in TypeScript: register one under "
                "another name"
            )
        properties[attribute] = (property_, handle)
    return properties


def _twin_of(property_: str, known: Iterable[tuple[str, tuple[str, JobHandle[Any, Any]]]]) -> str | None:
    return next((attribute for attribute, (taken, _) in known if taken == property_), None)


def _entry(property_: str, handle: JobHandle[Any, Any], input_type: str, output_type: str) -> str:
    conventional = re.sub("[A-Z]", lambda match: f"-{match[0].lower()}", property_)
    # What TypeScript takes for a capital letter beyond ASCII is a matter of its version.
    is_derived = conventional == handle.name and property_.isascii()
    name = "" if is_derived else f"    name: {literal(handle.name)}\n"
    note = documentation(inspect.cleandoc(handle.definition.__doc__ or ""), 1)
    return f"{note}  {property_name(property_)}: {{\n{name}    input: {input_type}\n    output: {output_type}\n  }}\n"
