"""RESULTS.md: one section per benchmark program, each rewritten by its own program only."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sqlite3
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
_WORK: Final = Path(__file__).parent.parent / ".work" / "benchmarks"

_PREAMBLE: Final = """# Results

Every section is written by the program that it names. Figures are medians with the lowest and the highest
repetition; a ratio is the median of the ratios of neighbours, because workload and limit are measured in
turns. The targets were set before the measurement, and "reached" says what this run found.
"""


def directory(text: str) -> Path:
    """Return the directory that an option names, for `argparse`; its disk is what is measured."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    return Path(text)


def default_directory() -> Path:
    """Return a directory beside the sources that Git does not see; made when needed."""
    _WORK.mkdir(parents=True, exist_ok=True)
    return _WORK


def write_section(title: str, body: str, results: Path = RESULTS) -> None:
    """Replace the section `## title` of the results, or append it, and leave the others as they are."""
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    sections = [part for part in re.split(r"(?m)^(?=## )", text) if part.startswith("## ")]
    section = f"## {title}\n\n{body.strip()}\n"
    heads = [part.split("\n", 1)[0] for part in sections]
    if f"## {title}" in heads:
        sections[heads.index(f"## {title}")] = section
    else:
        sections.append(section)
    unfinished = results.with_suffix(".md.new")
    unfinished.write_text("\n".join([_PREAMBLE, *(part.strip() + "\n" for part in sections)]), encoding="utf-8")
    unfinished.replace(results)


def setting(command: str, measured: Path, *, more: str = "") -> str:
    """Return the paragraph that says where, when and how a section was measured."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return (
        f"Measured {when} by `{command}`. Machine: {os.cpu_count()} x {_processor()}, {_memory()}, "
        f"{platform.system()} {platform.release()}, {_file_system(measured)}; load average {busy:.1f} at the end. "
        f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, pydantic {version('pydantic')}, "
        f"durably {version('durably')}{more}."
    )


def _processor() -> str:
    return _first_match("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or platform.machine()


def _memory() -> str:
    kibibytes = _first_match("/proc/meminfo", r"MemTotal:\s*(\d+) kB")
    return f"{int(kibibytes) / 2**20:.0f} GiB" if kibibytes else "memory unknown"


def _file_system(measured: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "file system unknown"
    fields = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    holding = [each for each in fields if measured.resolve().is_relative_to(each[1])]
    return max(holding, key=lambda each: len(each[1]))[2]


def _first_match(file: str, pattern: str) -> str | None:
    path = Path(file)
    found = re.search(pattern, path.read_text(encoding="utf-8")) if path.exists() else None
    return found[1].strip() if found else None
