"""Reads the command line and calls the verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from durably.cli import migrate_command, types_command, worker_command
from durably.cli.errors import CommandError

_COMMANDS = (worker_command, migrate_command, types_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 found wanting, 2 could not be done.

    >>> main(["types", "app:durably", "-o", "durably.gen.ts"])
    0
    """
    parser = argparse.ArgumentParser(prog="durably", description="Jobs that survive crashes.")
    parser.add_argument("--version", action="version", version=f"durably {version('durably')}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(verbs)
    options = parser.parse_args(arguments)
    try:
        status: int = options.perform(options)
    except CommandError as error:
        print(f"durably: {error}", file=sys.stderr)  # noqa: T201 - a command speaks to its user
        return 2
    return status
