"""The core is what things are: it waits for nothing and speaks to nobody."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import durably.core

DOES_THINGS = {"asyncio", "concurrent", "http", "select", "socket", "sqlite3", "ssl", "subprocess", "urllib"}
KNOWN = (set(sys.stdlib_module_names) - DOES_THINGS) | {"durably", "pydantic", "pydantic_core", "typing_extensions"}


def test_the_core_knows_the_standard_library_and_pydantic_only() -> None:
    modules = sorted(Path(durably.core.__file__ or "").parent.glob("*.py"))
    found = {name for module in modules for name in imported(ast.parse(module.read_text(encoding="utf-8")))}

    assert "datetime" in found
    assert found <= KNOWN


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names
