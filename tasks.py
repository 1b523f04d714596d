#!/usr/bin/env python3
"""Everything one does with this repository: `python3 tasks.py VERB`.

Needs Python 3.11 or newer and nothing else to start; the TypeScript packages need Node 20.19 with npm.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets a sentence instead of a traceback
    sys.exit(
        "This needs Python 3.11 or newer, and {} is Python {}.{}. Install a newer one and start this file with it, "
        "for example: python3.12 tasks.py".format(sys.executable, *sys.version_info[:2])
    )

import argparse
import atexit
import hashlib
import os
import shutil
import subprocess
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
WORK = ROOT / ".work"
PACKAGES = ROOT / "packages"
OLDEST_NODE = (20, 19)
PYTHONS = ("3.11", "3.12", "3.13")
CORE_TESTS = ("tests/core", "tests/engine", "tests/sqlite", "tests/store_contract", "tests/testing")
WHEEL_TESTS = ("tests/docs/test_examples.py", "tests/docs/test_crash_it.py", "tests/examples", "tests/testing")
CONTRACT_TESTS = ("tests/store_contract",)
SERVER_TESTS = ("tests/libsql", "tests/postgres", "tests/typescript")
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it has names that nobody can guess
MEMORY_NEEDED = 2 * 2**30


# --- running things ------------------------------------------------------------------------------------------


class RefusalError(Exception):
    """Something is missing; the message says what to do."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> bool:
    """Run a command with its output on this terminal; tell whether it succeeded."""
    print(f"\n$ {' '.join(str(word) for word in command)}", flush=True)
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env={**os.environ, **environment}, check=False).returncode == 0


def must(why: str, *command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command that the rest depends on."""
    if not run(*command, cwd=cwd):
        raise RefusalError(why)


def answer_of(*command: str | Path) -> str | None:
    """Return what a command prints, None when it cannot be run or fails."""
    try:
        finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def is_fresh(stamp: Path, content: str) -> bool:
    """Tell whether `stamp` says that what it stands for was done already."""
    return stamp.exists() and stamp.read_text() == content


def digest(*sources: Path, also: object = "") -> str:
    """Return what changes when the files do."""
    found = hashlib.sha256(str(also).encode())
    for source in sources:
        found.update(source.read_bytes())
    return found.hexdigest()


# --- Python environments -------------------------------------------------------------------------------------


def python_in(venv: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def version_of(python: str | Path) -> str | None:
    """Return an interpreter's version as `3.12`, None when it does not run."""
    return answer_of(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")


def prepare_venv(venv: Path, group: str, *, interpreter: str = sys.executable, project: Sequence[str] = ()) -> Path:
    """Make a virtual environment with the project and a dependency group in it; return its interpreter.

    `project` is what to install; the default is this tree, editable, with every extra.
    """
    python = python_in(venv)
    pyproject = ROOT / "pyproject.toml"
    project = project or ("--editable", f".[{extras()}]")
    if not is_supported(version_of(python)):
        make_venv(venv, interpreter)
    content = digest(pyproject, also=(version_of(python), project))
    stamps = [venv / f"installed-{each}" for each in (group, "dev")]
    if not any(is_fresh(stamp, content) for stamp in stamps):
        install(python, *project, "--group", group)
        stamps[0].write_text(content)
    return python


def extras() -> str:
    """Return every extra of the project."""
    return ",".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def is_supported(version: str | None) -> bool:
    """Tell whether durably runs on that version of Python."""
    return version is not None and tuple(map(int, version.split("."))) >= (3, 11)


def make_venv(venv: Path, interpreter: str) -> None:
    """Make an empty virtual environment, in place of a broken one."""
    shutil.rmtree(venv, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        must(f"uv could not make {venv}.", uv, "venv", "--quiet", "--seed", "--python", interpreter, venv)
        return
    why = f"{interpreter} could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    must(why, interpreter, "-m", "venv", venv)


def install(python: Path, *what: str) -> None:
    """Install packages into the environment of an interpreter."""
    why = "The packages could not be installed, the message above says why. Is there a network?"
    uv = shutil.which("uv")
    if uv:
        must(why, uv, "pip", "install", "--quiet", "--python", python, *what)
        return
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    must(why, *pip, "pip>=25.1")  # older ones know no dependency groups
    must(why, *pip, *what)


def other_pythons() -> dict[str, str]:
    """Return the other supported Pythons of this machine, by version: from the PATH, pyenv or uv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = shutil.which("uv")
    here = version_of(python_in(VENV))
    found: dict[str, str] = {}
    for version in PYTHONS:
        candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
        if uv:
            candidates.append(answer_of(uv, "python", "find", "--no-python-downloads", version))
        for candidate in candidates:
            if candidate and version_of(candidate) == version != here:
                found.setdefault(version, candidate)
    return found


# --- Node and the machine's own packages ---------------------------------------------------------------------


def require_node() -> None:
    """Refuse to go on without a Node that can run the TypeScript tests."""
    version = answer_of("node", "--version")
    advice = (
        f"The TypeScript packages need Node {'.'.join(map(str, OLDEST_NODE))} or newer with npm: install it from your "
        "system's packages or from the Node project, then run this again. (Python alone: python3 tasks.py test-python)"
    )
    if version is None or shutil.which("npm") is None:
        raise RefusalError(f"There is no {'npm' if version else 'node'} on the PATH. {advice}")
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < OLDEST_NODE:
        raise RefusalError(f"This is Node {version}. {advice}")


def prepare_node() -> None:
    """Install what the TypeScript packages need."""
    require_node()
    npm_install(PACKAGES, "ci")


def prepare_programs() -> None:
    """Install the programs from npm that Python tests drive; without npm those tests are skipped.

    Before the tests, for a test may not take as long as compiling one of them can.
    """
    if shutil.which("npm"):
        npm_install(ROOT / "tests" / "typescript" / "node", "ci")
        # Not `ci`: the lock file has the server of one kind of machine only, and it refuses that.
        npm_install(ROOT / "tests" / "libsql" / "node", "install", "--no-save")


def npm_install(folder: Path, *how: str) -> None:
    """Install what the lock file of a folder names, unless that was done."""
    stamp = folder / "node_modules" / ".installed"
    content = digest(folder / "package-lock.json", also=answer_of("node", "--version"))
    if not is_fresh(stamp, content):
        why = f"npm could not install what {folder} needs, the message above says why. Is there a network?"
        must(why, "npm", *how, "--no-audit", "--no-fund", cwd=folder)
        stamp.write_text(content)


def has_chromium() -> bool:
    """Tell whether the browser tests find a browser."""
    return Path(os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium")).exists()


def prepare_machine() -> None:
    """Install the programs that some tests drive, where that is possible; those tests are skipped without them."""
    has_postgresql = shutil.which("initdb") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    present = {"chromium": has_chromium(), "postgresql": has_postgresql, "pgbouncer": shutil.which("pgbouncer")}
    missing = [name for name, is_present in present.items() if not is_present]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(f"Not on this machine: {', '.join(missing)}. The tests that need them are skipped.")
        return
    apt = ("apt-get", "--quiet", "--quiet", "--yes")
    installed = run(*apt, "update") and run(
        *apt, "install", "--no-install-recommends", *missing, DEBIAN_FRONTEND="noninteractive"
    )
    if not installed:
        print(f"Could not install {', '.join(missing)}. The tests that need them are skipped.")


# --- verbs ---------------------------------------------------------------------------------------------------


def setup() -> bool:
    """Install everything that development and tests need."""
    prepare_venv(VENV, "dev")
    prepare_node()
    prepare_programs()
    prepare_machine()
    return True


def demo(*arguments: str) -> bool:
    """Import 336,776 flights, kill the worker half-way, start it again, and show what was lost: nothing."""
    python = prepare_venv(VENV, "demo")
    return run(python, "examples/import_csv/demo.py", *arguments)


def test() -> bool:
    """Run every check and every test: Python, the other Pythons found, the built wheel, TypeScript."""
    require_node()
    setup()
    elsewhere = [f"--ignore={path}" for path in (*CONTRACT_TESTS, *SERVER_TESTS, *WHEEL_TESTS)]
    # The longest first, so that both lanes end at about the same time.
    verbs = deque(
        [
            f"test-python {' '.join(CONTRACT_TESTS)}",
            f"test-python {' '.join(elsewhere)}",
            "test-other-pythons",
            f"test-python {' '.join(SERVER_TESTS)}",
            "test-typescript",
            "wheel",
            "check",
        ]
    )
    beside = Beside(verbs)
    results = [
        (verb, *timed(partial(run, sys.executable, __file__, *verb.split()))) for verb in taken_from(verbs)
    ] + beside.results()
    print()
    for name, succeeded, seconds in results:
        print(f"{'ok' if succeeded else 'FAILED':6} {seconds:6.0f} s  {name}")
    return all(succeeded for _, succeeded, _ in results)


def taken_from(verbs: deque[str]) -> Iterator[str]:
    """Yield the verbs that the other lane has not taken before."""
    with suppress(IndexError):
        while True:
            yield verbs.popleft()


class Beside:
    """The lane beside what the terminal shows: it takes from the same verbs; what they print is shown afterwards."""

    def __init__(self, verbs: deque[str]) -> None:
        self._verbs = verbs
        self._begun: list[str] = []
        self._results: list[tuple[str, bool, float]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        WORK.mkdir(exist_ok=True)
        self._thread.start()
        atexit.register(self._end)

    def results(self) -> list[tuple[str, bool, float]]:
        """Wait for all of them, show what they printed and return how they ended."""
        self._thread.join()
        for verb, _, _ in self._results:
            print(f"\n--- {verb} ---\n{self._output(verb).read_text(errors='replace')}", flush=True)
        # A thread that died has left one undone: that is no success.
        return self._results + [(verb, False, 0.0) for verb in self._begun[len(self._results) :]]

    def _run(self) -> None:
        for verb in taken_from(self._verbs):
            self._begun.append(verb)
            self._results.append((verb, *timed(partial(self._run_verb, verb))))

    def _run_verb(self, verb: str) -> bool:
        with self._output(verb).open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *verb.split()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            return self._process.wait() == 0

    def _output(self, verb: str) -> Path:
        name = verb.replace("/", ".").replace(" ", "-")
        return WORK / f"{name[:100]}.log"

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()


def timed(stage: Callable[[], bool]) -> tuple[bool, float]:
    """Return whether a stage succeeded, and the seconds that it took."""
    started = time.monotonic()
    succeeded = stage()
    return succeeded, time.monotonic() - started


def check() -> bool:
    """Check lint, format, types and the direction of imports."""
    python = prepare_venv(VENV, "dev")
    results = [
        run(python, "-m", "ruff", "check", "."),
        run(python, "-m", "ruff", "format", "--check", "."),
        run(python, "-m", "mypy"),
        run(python, "-m", "pyright"),
        run(python.with_name("lint-imports")),
    ]
    return all(results)


def python_tests(*arguments: str) -> bool:
    """Run the Python tests; what follows goes to pytest (test-python -k cancel)."""
    python = prepare_venv(VENV, "dev")
    prepare_programs()
    return run(python, "-m", "pytest", *arguments, **in_memory())


def in_memory() -> dict[str, str]:
    """Return the environment of tests whose files need no disk to wait for, where there is memory for them.

    The tests on the other Pythons and those of the wheel do not use it: theirs are written to a disk.
    """
    has_room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED
    return {"TMPDIR": str(MEMORY)} if has_room else {}


def other_python_tests() -> bool:
    """Run the core's tests on the other Pythons found, on SQLite: the other databases need no more than one."""
    prepare_venv(VENV, "dev")
    results = []
    for version, interpreter in other_pythons().items():
        python = prepare_venv(WORK / f"venv-{version}", "core-tests", interpreter=interpreter)
        results.append(run(python, "-m", "pytest", "-k", "not postgres and not libsql", *CORE_TESTS))
    return all(results)


def typescript_tests() -> bool:
    """Check and test the TypeScript packages, against a Python server."""
    prepare_venv(VENV, "dev")
    prepare_node()
    if not run("npm", "run", "check", cwd=PACKAGES):
        return False
    if has_chromium():
        return run("npm", "test", cwd=PACKAGES)
    print("SKIPPED: the browser tests, for there is no Chromium (Debian: apt-get install chromium).")
    return run("npm", "test", "--", "--project", "unit", "--project", "server", cwd=PACKAGES)


def wheel() -> bool:
    """Build the wheel, install it into an environment of its own and test it there."""
    built = WORK / "wheel"
    shutil.rmtree(built, ignore_errors=True)
    python = prepare_venv(VENV, "dev")
    if not run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, ROOT):
        return False
    (file,) = built.glob("*.whl")
    venv = WORK / "venv-wheel"
    shutil.rmtree(venv, ignore_errors=True)
    tester = prepare_venv(venv, "test", project=[f"{file}[{extras()}]"])
    place = answer_of(tester, "-c", "import durably; print(durably.__file__)")
    if place is None or venv not in Path(place).parents:
        raise RefusalError(f"The tests of the wheel would not test the wheel: durably was imported from {place}.")
    return run(tester, "-m", "pytest", *WHEEL_TESTS)


def bench(*arguments: str) -> bool:
    """Measure; what follows goes to the benchmarks (bench W1 --quick)."""
    return run(prepare_venv(VENV, "dev"), "-m", "benchmarks", *arguments)


def docs() -> bool:
    """Execute every example in README and docs, and follow every link inside them."""
    return run(prepare_venv(VENV, "dev"), "-m", "pytest", "tests/docs")


VERBS: dict[str, Callable[..., bool]] = {
    "demo": demo,
    "test": test,
    "setup": setup,
    "check": check,
    "test-python": python_tests,
    "test-typescript": typescript_tests,
    "test-other-pythons": other_python_tests,
    "wheel": wheel,
    "docs": docs,
    "bench": bench,
}
PASSES_ARGUMENTS_ON = ("demo", "test-python", "bench")


def main() -> None:
    """Dispatch a verb."""
    parser = argparse.ArgumentParser(prog="tasks.py", description="Everything one does with this repository.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        text = (verb.__doc__ or "").splitlines()[0]
        verbs.add_parser(name, help=text, description=text)
    chosen, arguments = parser.parse_known_args()
    if chosen.verb is None:
        parser.print_help()
        return
    if arguments and chosen.verb not in PASSES_ARGUMENTS_ON:
        parser.error(f"{chosen.verb} takes no arguments: {' '.join(arguments)}")
    try:
        succeeded = VERBS[chosen.verb](*arguments)
    except RefusalError as refusal:
        sys.exit(f"\n{refusal}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
