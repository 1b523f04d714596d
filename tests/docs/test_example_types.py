"""What README and docs show has types; apart from what executes it, as that is tested with the built wheel too."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import examples


def test_examples_are_typed(tmp_path: Path) -> None:
    """What a reader copies passes `mypy --strict`."""
    pytest.importorskip("mypy", reason="mypy is not installed here")
    for number, example in enumerate(each for each in examples() if each.not_executed is None):
        (tmp_path / f"example_{number}.py").write_text(f"# {example.name}\n{example.code}")

    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)

    assert finished.returncode == 0, finished.stdout
