"""mypy and pyright over the files beside this one: what must be an error is, and types are what they should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLES = sorted(str(path) for path in HERE.glob("*.py") if not path.name.startswith(("test_", "__")))

CHECKERS = {
    "mypy": ["mypy", "--strict", *SAMPLES],
    "pyright": ["pyright", "--project", str(HERE / "pyrightconfig.json")],
}


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.timeout(300)
def test_the_public_types_are_what_they_promise(checker: str) -> None:
    """The surface: a wrong input, keyword or event name is an error, outputs and events have their types.

    An error that disappears makes its ignore superfluous, which both are told to report.
    """
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker]], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.timeout(300)
def test_the_checkers_do_look(checker: str, tmp_path: Path) -> None:
    """A check that finds nothing anywhere would prove nothing."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from durably import create_durably\n\ncreate_durably(databse='x')\n")
    command = {
        "mypy": ["mypy", "--strict", str(wrong)],
        "pyright": ["pyright", "--pythonpath", sys.executable, str(wrong)],
    }

    done = subprocess.run(
        [sys.executable, "-m", *command[checker]], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )

    assert done.returncode == 1
    assert "databse" in done.stdout
