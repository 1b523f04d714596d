"""The command `durably`: one module per verb."""

from durably.cli.main import main

__all__ = ["main"]
