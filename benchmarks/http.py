"""`python -m benchmarks.http`: requests and event streams over HTTP; rewrites its section of RESULTS.md."""

# ruff: noqa: A005 - named as it is typed; nothing here is run by its path

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from tests.postgres.server import NoPostgres, postgres_server

from benchmarks import report
from benchmarks.figures import HEADER, Line, in_turns, number, paired_line, samples, table
from benchmarks.http_load import Load, put_under_load
from benchmarks.http_server import BASE
from benchmarks.http_serving import (
    PLAIN,
    STANDARD,
    Server,
    has_standard_uvicorn,
    install_typescript,
    serve_durably,
    serve_nothing,
    serve_typescript,
)
from benchmarks.http_streams import fan_out, latencies
from benchmarks.limits import file_of, fresh_file

TITLE: Final = "HTTP"

_TARGET: Final = 2
_TRIGGER: Final = b'{"jobName":"nothing","input":{"n":1}}'
_INTRODUCTION: Final = """
Requests: both handlers serve a SQLite file (WAL, `synchronous=FULL`) from one process, on keep-alive connections,
asked by the same load generator (raw sockets: a blocking one, or at 64 connections two processes with loops, which
share the two processors with the server), without a framework around them. "Plain" is uvicorn with nothing else
installed, "standard" what `uvicorn[standard]` brings: httptools and uvloop. "uvicorn alone" is an application that
does nothing but answer: more than its ratio no handler can reach there. `TS` is the handler of `@coji/durably` 0.15.0
on Node's own HTTP server, with better-sqlite3. A trigger stores a run; the run that is read has not been executed.
"Processor" is what the server process spent on a request, on all its threads; other programs on the machine change it
least.

Streams: `sse_throttle=0`, durably's defaults otherwise. A job tells the time as its progress, and the client compares
it with the clock when the event arrives. Both clients listen to all runs.
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results unless it was a quick look."""
    options = _parser().parse_args(arguments)
    lines: list[Line] = []
    try:
        for line in _measure(options):
            lines.append(line)
            _say("  " + " | ".join(cell for cell in line.cells if cell))
    except RuntimeError as error:
        sys.exit(str(error))
    if options.quick:
        _say("RESULTS.md is left as it is: only a whole run at full size is written there.")
        return 0
    heading = report.setting("python -m benchmarks.http", options.directory, more=_versions())
    report.write_section(TITLE, "\n\n".join([heading, _INTRODUCTION.strip(), table(HEADER, [x.cells for x in lines])]))
    _say(f"wrote the section {TITLE!r} of {report.RESULTS}")
    return 0


def _measure(options: argparse.Namespace) -> Iterator[Line]:
    install_typescript()
    ways = {"plain": PLAIN} | ({"standard": STANDARD} if has_standard_uvicorn() else {})
    if "standard" not in ways:
        _say("httptools and uvloop are not installed: uvicorn is measured without them only")
        _say("`.venv/bin/python -m pip install httptools uvloop` brings them")
    for way, how in ways.items():
        for connections in (1, 64):
            yield _nothing(options, f"uvicorn alone, {connections} at once, {way}", how, connections)
        for operation in ("GET /run", "POST /trigger"):
            for connections in (1, 64):
                yield _requests(options, f"{operation}, {connections} at once, {way}", how, operation, connections)
    effort = (50, 1) if options.quick else (500, 3)
    with fresh_file(options.directory) as url:
        yield from latencies("SQLite", url, *effort)
    try:
        with postgres_server(is_safe=True) as server:
            yield from latencies("PostgreSQL", server.create_database(), *effort)
    except NoPostgres as reason:
        _say(f"  PostgreSQL is not measured: {reason}")
    with fresh_file(options.directory) as url:
        yield from fan_out(url, 1000, 10 if options.quick else 50)


def _requests(options: argparse.Namespace, what: str, how: tuple[str, ...], operation: str, connections: int) -> Line:
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}

    def measure(whose: str, server: Server) -> float:
        request = _request(operation, server.port)
        before = server.processor_time
        load = _loaded(options, server, request, connections)
        spent[whose].append((server.processor_time - before) / load.answers)
        return load.rate

    def ours() -> float:
        with fresh_file(options.directory) as url, serve_durably(url, how=how) as server:
            return measure("ours", server)

    def theirs() -> float:
        with fresh_file(options.directory) as url, serve_typescript(file_of(url)) as server:
            return measure("theirs", server)

    paired = in_turns(theirs, ours, 1 if options.quick else options.repetitions)
    processor = ", TS ".join(number(samples(spent[whose]).median, "us") for whose in ("ours", "theirs"))
    return paired_line(f"{what} (processor {processor} us)", paired, "/s", "TS", _TARGET)


def _nothing(options: argparse.Namespace, what: str, how: tuple[str, ...], connections: int) -> Line:
    def nothing() -> float:
        with serve_nothing(how) as server:
            return _loaded(options, server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", connections).rate

    def theirs() -> float:
        with fresh_file(options.directory) as url, serve_typescript(file_of(url)) as server:
            return _loaded(options, server, _request("GET /run", server.port), connections).rate

    paired = in_turns(theirs, nothing, 1 if options.quick else options.repetitions)
    return paired_line(what, paired, "/s", "TS GET /run", None)


def _loaded(options: argparse.Namespace, server: Server, request: bytes, connections: int) -> Load:
    seconds = 0.5 if options.quick else 2.0
    return put_under_load(server.port, request, connections, processes=min(connections, 2), seconds=seconds)


def _request(operation: str, port: int) -> bytes:
    if operation == "POST /trigger":
        head = f"POST {BASE}/trigger HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(_TRIGGER)}\r\n\r\n".encode() + _TRIGGER
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{BASE}/trigger", data=_TRIGGER, timeout=30) as answer:
        run_id = json.load(answer)["runId"]
    return f"GET {BASE}/run?runId={run_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _versions() -> str:
    return f", uvicorn {version('uvicorn')}, starlette {version('starlette')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of the two handlers (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument(
        "--directory",
        type=report.directory,
        default=report.default_directory(),
        help="where database files are made; its disk is what is measured (default: .work/benchmarks)",
    )
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
