"""A disk that is slow to flush: a shim in front of fsync and fdatasync, for one child process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

DELAY_VARIABLE: Final = "SLOW_DISK_MS"

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

/* Waits SLOW_DISK_MS before each flush, for the first SLOW_DISK_FLUSHES of them, or for all. */
static void wait_for_disk(void) {
  static int flushes = 0;
  const char *delay = getenv("SLOW_DISK_MS"), *count = getenv("SLOW_DISK_FLUSHES");
  if (delay == NULL || (count != NULL && __sync_fetch_and_add(&flushes, 1) >= atoi(count))) return;
  double milliseconds = atof(delay);
  struct timespec rest = {(time_t)(milliseconds / 1000), (long)(milliseconds * 1e6) % 1000000000L};
  while (nanosleep(&rest, &rest) != 0) {}
}

int fsync(int descriptor) {
  static int (*real)(int) = NULL;
  if (real == NULL) real = dlsym(RTLD_NEXT, "fsync");
  wait_for_disk();
  return real(descriptor);
}

int fdatasync(int descriptor) {
  static int (*real)(int) = NULL;
  if (real == NULL) real = dlsym(RTLD_NEXT, "fdatasync");
  wait_for_disk();
  return real(descriptor);
}
"""


class NoCompilerError(Exception):
    """There is no C compiler, so a slow disk cannot be simulated here."""


def build_shim(directory: Path) -> Path:
    """Compile the shim and return it. Raises `NoCompilerError`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("a slow disk cannot be simulated: neither gcc nor cc was found")
    source, shim = directory / "slow_disk.c", directory / "slow_disk.so"
    source.write_text(_SOURCE, encoding="ascii")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    return shim


def slow(shim: Path, milliseconds: float, flushes: int | None = None) -> dict[str, str]:
    """Return the environment of a child process whose flushes are slow: all, or the first `flushes`."""
    environment = {"LD_PRELOAD": str(shim), DELAY_VARIABLE: str(milliseconds)}
    return environment if flushes is None else {**environment, "SLOW_DISK_FLUSHES": str(flushes)}
