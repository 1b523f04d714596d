"""Pages say what is true: their links lead somewhere, their commands and tables are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import durably
from durably.core.runs import ALLOWED_FROM, TRANSITIONS, RunStatus
from tests.docs.pages import PAGES, ROOT, anchors, commands, examples, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link inside the repository names a file that is there, and a heading that it has."""
    broken = [target for each, target in links() if each == page and not leads_somewhere(page, target)]

    assert not broken


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return file.exists() and (not anchor or anchor in anchors(file))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_verbs_of_the_task_runner(page: Path) -> None:
    """A verb that a page tells the reader to type is one that `tasks.py` knows."""
    told = {match[1] for command in commands(page) if (match := re.search(r"tasks\.py ([a-z-]+)", command))}

    for verb in told:
        shown = subprocess.run(
            [sys.executable, "tasks.py", verb, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr


def test_the_readme_tells_the_two_commands() -> None:
    """Seeing it and testing it are one command each."""
    assert {"python3 tasks.py demo", "python3 tasks.py test"} <= set(commands(ROOT / "README.md"))


def table_of_statuses(page: Path) -> dict[str, frozenset[RunStatus]]:
    """Return the tables of a page whose second column names statuses, by the word in the first."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page.read_text(), re.MULTILINE)
    return {word: frozenset(map(RunStatus, re.findall(r"`(\w+)`", statuses))) for word, statuses in rows}


def test_the_life_cycle_is_the_table_of_the_code() -> None:
    """R1, R9, R10: the page shows the transitions and the verbs that the code allows, no more and no fewer."""
    shown = table_of_statuses(ROOT / "docs" / "concepts.md")

    assert {status: shown.pop(status) for status in RunStatus} == TRANSITIONS
    assert {verb.removesuffix("_run"): allowed for verb, allowed in shown.items()} == ALLOWED_FROM


def test_the_example_of_the_readme_runs_twice(tmp_path: Path) -> None:
    """R6: as the page says, the second start finds the run of its key and welcomes nobody again."""
    (example,) = [example for example in examples() if example.page.name == "README.md" and example.page.parent == ROOT]
    (tmp_path / "example.py").write_text(example.code)

    answers = [
        subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]

    assert answers == [example.output, "idempotent account of ada@example.org\n"]


def test_the_reference_names_everything_public() -> None:
    """Every name of `durably.__all__` stands in the reference."""
    page = (ROOT / "docs" / "reference.md").read_text()

    assert not [name for name in durably.__all__ if f"`{name}" not in page]


def test_the_architecture_names_every_module() -> None:
    """Every source file stands in a table of the page, and every file of a table is there."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named: set[str] = set()
    for cell in re.findall(r"^\| ((?:`[\w/.-]+\.tsx?`|`[\w/.-]+\.py`)(?:, `[^`]+`)*) \|", page, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        named |= {first, *(str(Path(first).parent / other) for other in others)}
    python, typescript = ROOT / "src" / "durably", ROOT / "packages"
    sources = {file.relative_to(python).as_posix() for file in python.rglob("*.py") if not file.stem.startswith("__")}
    sources |= {file.relative_to(typescript).as_posix() for file in typescript.glob("*/src/*.ts*")}

    assert named == sources


def test_every_code_that_a_test_names_is_a_guarantee_of_the_page() -> None:
    """A docstring's `R7` can be looked up, and no guarantee is held by no test."""
    page = (ROOT / "docs" / "guarantees.md").read_text()
    guaranteed = set(re.findall(r"^\| ([RLSWEPD]\d+) \|", page, re.MULTILINE))
    named: set[str] = set()
    for file in (ROOT / "tests").rglob("*.py"):
        for docstring in re.findall(r'"""(.*?)"""', file.read_text(), re.DOTALL):
            named |= set(re.findall(r"\b[RLSWEPD]\d+\b", docstring))

    assert named == guaranteed
