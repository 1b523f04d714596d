"""From the JSON Schema that Pydantic produces to TypeScript types."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from durably.core.json_schemas import STORED

Schema = Mapping[str, Any]

_REFERENCE: Final = "#/$defs/"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
_PRIMITIVES: Final = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_RESERVED: Final = frozenset(
    {
        "any",
        "await",
        "bigint",
        "boolean",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "function",
        "if",
        "implements",
        "import",
        "in",
        "infer",
        "instanceof",
        "interface",
        "intrinsic",
        "keyof",
        "let",
        "never",
        "new",
        "null",
        "number",
        "object",
        "package",
        "private",
        "protected",
        "public",
        "readonly",
        "return",
        "static",
        "string",
        "super",
        "switch",
        "symbol",
        "this",
        "throw",
        "true",
        "try",
        "type",
        "typeof",
        "undefined",
        "unique",
        "unknown",
        "var",
        "void",
        "while",
        "with",
        "yield",
    }
)


class Types:
    """The named types of one file, and the text of types that refer to them."""

    def __init__(self, definitions: Mapping[str, Schema], taken: frozenset[str]) -> None:
        self._definitions = definitions
        self._names = _names_of(definitions, taken | _RESERVED)

    def declarations(self) -> list[str]:
        """Return the declaration of every name."""
        named = {self._names[key]: schema for key, schema in self._definitions.items()}
        return [self._declaration(name, named[name]) for name in sorted(named)]

    def type_of(self, schema: Schema | bool, indent: int = 0) -> str:  # noqa: FBT001, PLR0911 - True is a schema too; a table
        """Return the type of a schema; `unknown` where it allows anything or says what TypeScript cannot."""
        match schema:
            case bool():
                return "unknown" if schema else "never"
            case {"$ref": str() as reference}:
                return self._names.get(reference.removeprefix(_REFERENCE), "unknown")
            case {"type": [*kinds]}:
                return _union([self.type_of({**schema, "type": kind}, indent) for kind in kinds])
            case {"const": _} | {"enum": _} | {"anyOf": _} | {"oneOf": _} | {"allOf": _}:
                return self._combination(schema, indent)
            case {"type": "array"}:
                return self._array(schema, indent)
            case {"type": "object"}:
                return self._object(schema, indent)
        return _PRIMITIVES.get(schema.get("type", ""), "unknown")

    def _combination(self, schema: Schema, indent: int) -> str:
        if "const" in schema:
            return literal(schema["const"])
        if "enum" in schema:
            return _union([literal(value) for value in schema["enum"]])
        if "allOf" in schema:
            return " & ".join(_grouped(self.type_of(part, indent)) for part in schema["allOf"])
        if "oneOf" in schema:
            return _union(list(self._variants(schema, (), indent)))
        return _union([self.type_of(variant, indent) for variant in schema.get("anyOf", [])])

    def _variants(self, union: Schema, tags: tuple[str, ...], indent: int) -> Iterator[str]:
        """Yield the variants of a union, each with the tags that it may leave out elsewhere and must have here."""
        tags = (*tags, *union.get("required", ()))
        for variant in union["oneOf"]:
            if "oneOf" in variant:
                yield from self._variants(variant, tags, indent)
                continue
            type_ = self.type_of(variant, indent)
            definition = self._definitions.get(variant.get("$ref", "").removeprefix(_REFERENCE), variant)
            properties = definition.get("properties", {})
            optional = [tag for tag in tags if tag in properties and tag not in definition.get("required", ())]
            needed = "; ".join(f"{property_name(tag)}: {self.type_of(properties[tag])}" for tag in optional)
            yield f"({type_} & {{ {needed} }})" if needed else type_

    def _declaration(self, name: str, schema: Schema) -> str:
        text = self.type_of(schema)
        is_shape = schema.get("type") == "object" and schema.get("properties")
        head = f"export interface {name} {text}" if is_shape else f"export type {name} = {text}"
        return documentation(schema.get("description"), 0) + head

    def _array(self, schema: Schema, indent: int) -> str:
        rest = schema.get("items", True)
        if schema.get("maxItems") == 0:
            return "[]"
        first = schema.get("prefixItems")
        if first is None:
            return f"{_grouped(self.type_of(rest, indent))}[]"
        needed = schema.get("minItems", 0)
        parts = [
            self.type_of(item, indent) if index < needed else f"{_grouped(self.type_of(item, indent))}?"
            for index, item in enumerate(first)
        ]
        if rest is not False and schema.get("maxItems") != len(first):
            parts.append(f"...{_grouped(self.type_of(rest, indent))}[]")
        return f"[{', '.join(parts)}]"

    def _object(self, schema: Schema, indent: int) -> str:
        properties: Mapping[str, Any] = schema.get("properties", {})
        others = schema.get("additionalProperties", not properties)
        margin = "  " * (indent + 1)
        lines = [self._property(name, each, schema, indent + 1) for name, each in properties.items()]
        if others is not False or "patternProperties" in schema:
            # Beside named properties the type of the others would have to allow all of theirs.
            kind = "unknown" if properties or isinstance(others, bool) else self.type_of(others, indent + 1)
            lines.append(f"{margin}[key: string]: {kind}\n")
        return "{\n" + "".join(lines) + "  " * indent + "}" if lines else "{ [key: string]: never }"

    def _property(self, name: str, schema: Any, parent: Schema, indent: int) -> str:
        mark = "" if name in parent.get("required", ()) else "?"
        note = documentation(schema.get("description") if isinstance(schema, Mapping) else None, indent)
        return f"{note}{'  ' * indent}{property_name(name)}{mark}: {self.type_of(schema, indent)}\n"


def property_name(name: str) -> str:
    """Return a name as it is written before a colon."""
    return name if _IDENTIFIER.match(name) else literal(name)


def documentation(text: str | None, indent: int) -> str:
    """Return a comment in the form that editors show, or nothing."""
    if not text:
        return ""
    margin = "  " * indent
    lines = text.replace("*/", "*\\/").splitlines()
    if len(lines) == 1:
        return f"{margin}/** {lines[0]} */\n"
    return f"{margin}/**\n" + "".join(f"{margin} * {line}".rstrip() + "\n" for line in lines) + f"{margin} */\n"


def _names_of(definitions: Mapping[str, Schema], taken: frozenset[str]) -> dict[str, str]:
    variants = {key: _variant_of(key, schema) for key, schema in definitions.items()}
    groups = _alike(definitions, {key: owner for key, (owner, _) in variants.items()})
    members: dict[str, list[tuple[str, str]]] = {}
    for key, group in groups.items():
        members.setdefault(group, []).append(variants[key])
    short = {group: _short_name(found) for group, found in members.items()}
    claims = Counter(short.values())
    used = set(taken)
    names = {}
    for group, claimed in short.items():
        # Two classes of one name are told apart by their modules.
        plain = re.sub(r"[^A-Za-z0-9_$]", "", claimed if claims[claimed] == 1 else group) or "Type"
        wanted = plain if _IDENTIFIER.match(plain) else f"_{plain}"
        name, number = wanted, 2
        while name in used:
            name, number = f"{wanted}{number}", number + 1
        used.add(name)
        names[group] = name
    return {key: names[group] for key, group in groups.items()}


def _variant_of(key: str, schema: Schema) -> tuple[str, str]:
    """Return the class that a definition is of, and as what: `module__Order-Input` is of Order, as Input."""
    mode = next((mode for mode in ("Input", "Output") if key.endswith(f"-{mode}")), "")
    name = key.removesuffix(f"-{mode}")
    title = schema.get("title")
    if title and name.endswith(f"__{title}"):
        return title, "Stored" if name.startswith(f"{STORED}__") else mode
    return name, mode


def _short_name(variants: list[tuple[str, str]]) -> str:
    """Return the name of the class, with what it is described as where that is one thing only."""
    (owner, mode), *others = variants
    return owner if any(other != mode for _, other in others) else owner + mode


def _alike(definitions: Mapping[str, Schema], owners: Mapping[str, str]) -> dict[str, str]:
    """Return for each definition the first of its class that says the same, references included."""
    texts = {key: json.dumps(schema) for key, schema in definitions.items()}
    groups = dict(owners)
    while True:
        first: dict[tuple[str, str], str] = {}
        finer = {key: first.setdefault((owners[key], _resolved(text, groups)), key) for key, text in texts.items()}
        if len(first) == len(set(groups.values())):
            return finer
        groups = finer


def _resolved(text: str, groups: Mapping[str, str]) -> str:
    return re.sub(rf'"{re.escape(_REFERENCE)}([^"]*)"', lambda found: json.dumps(groups.get(found[1])), text)


def literal(value: Any) -> str:
    """Return a value of JSON as the type that has only this value.

    >>> literal("new")
    "'new'"
    """
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
        # Two characters that end a line in the eyes of some tools.
        return "'" + quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "'"
    if value is None or (isinstance(value, bool | int | float) and math.isfinite(value)):
        return json.dumps(value)
    return "unknown"


def _union(types: list[str]) -> str:
    return "unknown" if "unknown" in types else " | ".join(dict.fromkeys(types))


def _grouped(text: str) -> str:
    """Return a type so that `[]`, `?` or `&` behind it belongs to all of it."""
    is_compound = " | " in text or " & " in text
    return f"({text})" if is_compound else text
