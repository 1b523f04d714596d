"""Build the page with Vite, when its sources or the packages that it uses have changed."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from examples.fullstack.settings import HERE, PAGE

_PACKAGES = HERE.parents[1] / "packages"
_SOURCES = PAGE.parent
_STAMP = PAGE / "built-from"


class BuildError(Exception):
    """The page could not be built; the message says what to do."""


def build_page() -> None:
    """Build the page unless it is up to date. Raises `BuildError`."""
    digest = _digest()
    if _STAMP.exists() and _STAMP.read_text() == digest:
        return
    if shutil.which("npm") is None:
        raise BuildError("Building the page needs Node 20.19 or newer with npm, and there is no npm on the PATH.")
    print("Building the page ...", flush=True)
    for folder in (_PACKAGES, _SOURCES):
        _install(folder)
        _npm("run", "build", cwd=folder)
    _STAMP.write_text(digest)


def _install(folder: Path) -> None:
    installed = folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        _npm("ci", "--no-audit", "--no-fund", cwd=folder)


def _npm(*words: str, cwd: Path) -> None:
    finished = subprocess.run(["npm", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise BuildError(f"npm {' '.join(words)} failed in {cwd}:\n{finished.stdout}{finished.stderr}")


def _digest() -> str:
    found = hashlib.sha256()
    for path in _inputs():
        found.update(str(path.relative_to(HERE.parents[1])).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def _inputs() -> Iterator[Path]:
    for pattern in ("*.html", "*.json", "*.ts", "src/**/*"):
        yield from sorted(path for path in _SOURCES.glob(pattern) if path.is_file())
    yield from sorted(_PACKAGES.glob("durably-*/src/**/*.ts*"))
    yield _PACKAGES / "package-lock.json"
