"""`durably migrate`: brings the tables of an instance's database up to date."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from durably.app import Durably
from durably.cli.errors import CommandError
from durably.cli.loading import load_instance
from durably.cli.output import say
from durably.core.errors import DurablyError


def add_parser(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "migrate",
        help="bring the tables up to date",
        description="Create or update the tables of an instance's database. Workers do so by themselves where their "
        "user may; safe to repeat, and from many processes at once.",
    )
    parser.add_argument("target", metavar="MODULE:ATTRIBUTE", help="the instance, like app:durably")
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Migrate. Raises `CommandError`."""
    durably = load_instance(options.target)
    try:
        asyncio.run(_migrate(durably))
    except DurablyError as error:
        raise CommandError(str(error)) from error
    say(f"{durably.storage.name} is up to date\n")
    return 0


async def _migrate(durably: Durably) -> None:
    try:
        await durably.migrate()
    finally:
        await durably.close()
