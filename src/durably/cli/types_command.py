"""`durably types`: the jobs of an instance as TypeScript types."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from durably.cli.errors import CommandError
from durably.cli.job_types import typescript_of_jobs
from durably.cli.loading import load_instance
from durably.cli.output import say


def add_parser(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "types",
        help="write TypeScript types of the jobs",
        description="Write TypeScript types of an instance's jobs, for durably-client and durably-react.",
    )
    parser.add_argument("target", metavar="MODULE:ATTRIBUTE", help="the instance, like app:durably")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when FILE is not what would be written"
    )
    parser.set_defaults(perform=perform)


def perform(options: argparse.Namespace) -> int:
    """Write or check the types. Raises `CommandError`."""
    if options.check and options.output is None:
        raise CommandError("--check needs -o FILE: the file to look at")
    text = typescript_of_jobs(load_instance(options.target).jobs)
    if options.check:
        return _check(options.output, text, options.target)
    if options.output is None:
        say(text)
    else:
        _write(options.output, text)
    return 0


def _check(file: Path, text: str, target: str) -> int:
    try:
        is_current = file.read_text(encoding="utf-8") == text
    except (FileNotFoundError, UnicodeDecodeError):
        is_current = False
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    if not is_current:
        sys.stderr.write(f"{file} is not up to date: run `durably types {target} -o {file}`\n")
    return 0 if is_current else 1


def _write(file: Path, text: str) -> None:
    if file.is_dir():
        raise CommandError(f"{file} cannot be written: it is a directory, name a file in it")
    if not file.parent.is_dir():
        raise CommandError(f"{file} cannot be written: there is no directory {file.parent}, create it first")
    # What a symbolic link leads to is written, not the link.
    file = file.resolve()
    if file.exists() and not file.is_file():
        raise CommandError(f"{file} cannot be written: it is no regular file. Leave -o out to write to standard output")
    # Renamed into place, so that a watching bundler never reads half a file.
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise CommandError(f"{file} cannot be written: {error.strerror}") from error
