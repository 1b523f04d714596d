"""`tasks.py` starts with a bare Python and says what is missing."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


def tasks(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tasks.py"), *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_without_a_verb_it_lists_them() -> None:
    shown = tasks()

    assert shown.returncode == 0
    assert all(f"\n    {verb} " in shown.stdout for verb in ("demo", "test", "setup", "check", "bench", "docs"))


def test_an_older_python_can_read_it_far_enough_to_say_what_it_needs() -> None:
    """No syntax that is newer than what is refused: a sentence, not a SyntaxError."""
    source = (ROOT / "tasks.py").read_text()
    first_lines = source[: source.index("import argparse")]

    ast.parse(source, feature_version=(3, 7))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, .+ is Python 3\.9\. Install a newer one"):
        exec(first_lines.replace("import sys\n", ""), {"sys": OlderPython})


class OlderPython:
    version_info = (3, 9, 18)
    executable = "/usr/bin/python3"
    exit = sys.exit


def test_without_node_the_tests_refuse_to_begin(tmp_path: Path) -> None:
    """Said before anything is installed, with what to do."""
    refused = tasks("test", PATH=str(tmp_path))

    assert refused.returncode == 1
    assert "There is no node on the PATH." in refused.stderr
    assert "test-python" in refused.stderr


def test_a_verb_that_takes_nothing_says_so() -> None:
    refused = tasks("check", "everything")

    assert refused.returncode == 2
    assert "check takes no arguments: everything" in refused.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_could_not_be_begun_beside_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be missing from the results, as if all had gone well; the rest is left to the other lane."""
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    monkeypatch.setattr(runner, "WORK", tmp_path)
    monkeypatch.setattr(runner.sys, "executable", str(tmp_path / "no-python"))

    verbs = deque(["check", "wheel"])
    results = runner.Beside(verbs).results()

    assert results == [("check", False, 0.0)]
    assert [*runner.taken_from(verbs)] == ["wheel"]
