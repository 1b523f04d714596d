"""What README and docs show works: each example runs by itself, in an empty folder, and prints what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Example, examples

EXECUTED = [example for example in examples() if example.not_executed is None]


@pytest.mark.parametrize("example", EXECUTED, ids=lambda example: example.name)
def test_an_example_runs_as_printed(example: Example, tmp_path: Path) -> None:
    """A reader who copies a block into a file can run it."""
    (tmp_path / "example.py").write_text(example.code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DURABLY_")}

    finished = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, f"{example.name} failed:\n{finished.stderr}"
    if example.output is not None:
        assert finished.stdout == example.output


def test_there_are_examples_to_execute() -> None:
    """A change of the pages' form must not make the test above pass by finding nothing."""
    pages = {example.page.name for example in EXECUTED}

    assert {"README.md", "getting-started.md"} <= pages
