"""`python -m benchmarks`: measure the SQLite core and rewrite its section of RESULTS.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import event_log_cost, footprint, growth, latency, report, resume
from benchmarks.figures import HEADER, Line, table
from benchmarks.slow_disk import DELAY_VARIABLE, NoCompilerError, build_shim, slow
from benchmarks.throughput import Sizes, Throughput
from durably.cli.worker_command import spare_the_collector

Group = Callable[[], Iterator[Line]]

TITLE: Final = "The SQLite core"
SLOWER_TITLE: Final = "The SQLite core, on a slower disk"

_NAMES: Final = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "idle", "events", "growth")
_FLUSHING: Final = ("W1", "W2", "W3", "W4", "W5")

_INTRODUCTION: Final = """
`F1` and `F50` are the bare loop of the standard library's `sqlite3` with the statements of one step (one row
inserted, one run updated) in the same tables with all their indexes, WAL and `synchronous=FULL`, one and 50
steps per transaction; `N1` is one per transaction at `synchronous=NORMAL`. A step of a workload is an
`async def` function that returns `{"i": n}`, and each is committed before the next of its run begins.
Garbage collection passes over what was loaded before, as in a process of `durably worker`.
Growth is measured at `synchronous=NORMAL`, where the statements are most of what an operation costs.
"""


_ON_A_SLOWER_DISK: Final = """
Every `fsync` and `fdatasync`, those of the limits too, first sleeps for {milliseconds:g} ms. Most targets are shares of
what a disk allows, and were set on a machine that took about 0.3 ms to commit a step (F1 3,000/s): where a disk is much
faster than that, the time of the interpreter weighs more. Limits and workloads are those of "The SQLite core".
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure what was chosen; write the results when it was everything, at full size."""
    options = _parser().parse_args(arguments)
    if options.flush_ms and DELAY_VARIABLE not in os.environ:
        return _on_slower_disk(options.flush_ms, sys.argv[1:] if arguments is None else arguments)
    spare_the_collector()
    groups = _groups(options)
    everything = _FLUSHING if options.flush_ms else _NAMES
    chosen = options.workloads or everything
    lines: list[Line] = []
    started = time.perf_counter()
    for name in chosen:
        _say(f"{name} ...")
        for line in groups[name]():
            lines.append(line)
            _say("  " + " | ".join(cell for cell in line.cells if cell))
    minutes = (time.perf_counter() - started) / 60
    _say(f"{len(lines)} figures in {minutes:.1f} minutes; {_missed(lines)}")
    if chosen != everything or options.quick:
        _say("RESULTS.md is left as it is: only a whole run at full size is written there.")
        return 0
    title, command, introduction = TITLE, "python -m benchmarks", _INTRODUCTION
    if options.flush_ms:
        title, command = SLOWER_TITLE, f"{command} --flush-ms {options.flush_ms:g}"
        introduction = _ON_A_SLOWER_DISK.format(milliseconds=options.flush_ms)
    body = "\n\n".join(
        [
            report.setting(command, options.directory),
            introduction.strip(),
            table(HEADER, [line.cells for line in lines]),
            _missed(lines) + ".",
        ]
    )
    report.write_section(title, body)
    _say(f"wrote the section {title!r} of {report.RESULTS}")
    return 0


def _on_slower_disk(milliseconds: float, arguments: list[str]) -> int:
    with TemporaryDirectory() as directory:
        try:
            shim = build_shim(Path(directory))
        except NoCompilerError as error:
            _say(str(error))
            return 1
        command = [sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.run(command, env={**os.environ, **slow(shim, milliseconds)}, check=False).returncode


def _missed(lines: list[Line]) -> str:
    judged = [line for line in lines if line.reached is not None]
    missed = [line.what for line in judged if not line.reached]
    return f"{len(judged) - len(missed)} of {len(judged)} targets reached" + (
        f", not: {'; '.join(missed)}" if missed else ""
    )


def _groups(options: argparse.Namespace) -> dict[str, Group]:
    directory, repetitions = options.directory, options.repetitions
    quick = options.quick
    throughput = Throughput(
        directory,
        Sizes(
            repetitions=repetitions,
            steps=200 if quick else options.steps,
            runs=40 if quick else 200,
            single_runs=100 if quick else 2000,
            triggers=100 if quick else 1000,
            batches=2 if quick else 8,
        ),
    )
    count = 30 if quick else 200
    stored = (0, 1_000, 10_000) if quick else (0, 10_000, 100_000, 1_000_000)

    def latencies() -> Iterator[Line]:
        yield from latency.same_process(directory, count, min(repetitions, 5))
        yield from latency.other_process(directory, count)

    return {
        "W1": throughput.sequential,
        "W2": throughput.parallel,
        "W3": throughput.single_step_runs,
        "W4": throughput.triggering,
        "W5": latencies,
        "W6": lambda: resume.resume(directory, 500 if quick else 5_000, repetitions),
        "W7": lambda: footprint.resident_memory(directory, min(repetitions, 3), 10_000, 1 if quick else 5),
        "idle": lambda: footprint.idle_processor_time(directory, 2 if quick else 10),
        "events": lambda: event_log_cost.event_log_cost(directory, 200 if quick else 1000, repetitions),
        "growth": lambda: growth.growth(directory, stored, 20 if quick else 150, _say),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the SQLite core beside the raw limits of this machine. Without arguments everything is "
        "measured (some minutes) and the section of benchmarks/RESULTS.md is rewritten.",
    )
    parser.add_argument("workloads", nargs="*", type=_name, metavar="WORKLOAD", help=", ".join(_NAMES))
    parser.add_argument("--repetitions", type=_count, default=7, help="pairs of limit and workload (default 7)")
    parser.add_argument("--steps", type=_count, default=2000, help="steps of the one run of W1 (default 2000)")
    parser.add_argument(
        "--flush-ms",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="make every flush to the disk so much slower, and measure what depends on it, W1 to W5 (needs gcc)",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument(
        "--directory",
        type=report.directory,
        default=report.default_directory(),
        help="where database files are made; its disk is what is measured (default: .work/benchmarks)",
    )
    return parser


def _name(text: str) -> str:
    if text not in _NAMES:
        raise argparse.ArgumentTypeError(f"unknown workload {text!r}; there are {', '.join(_NAMES)}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not 0 <= milliseconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of milliseconds, 0 or more")
    return milliseconds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
