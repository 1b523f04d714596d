"""`durably migrate`: the tables are made by a command, for a user who may make them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durably import __version__
from tests.cli.conftest import Run

APPLICATION = """
from durably import create_durably

durably = create_durably(database="sqlite:///{}")
"""


@pytest.fixture
def database(project: Path) -> Path:
    (project / "app.py").write_text(APPLICATION.format("jobs.db"))
    return project / "jobs.db"


def test_the_tables_are_made_and_the_database_is_named(durably_command: Run, database: Path) -> None:
    """Doing it again changes nothing."""
    for _ in range(2):
        finished = durably_command("migrate", "app:durably")

        assert (finished.returncode, finished.stderr) == (0, "")
        assert finished.stdout == f"database {database} is up to date\n"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM durably_runs").fetchone() == (0,)


def test_a_database_that_cannot_be_made_is_named(durably_command: Run, project: Path) -> None:
    """Status 2 and one line, as with the other commands."""
    (project / "app.py").write_text(APPLICATION.format("missing/jobs.db"))

    finished = durably_command("migrate", "app:durably")

    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("durably: database ")
    assert "there is no directory" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_version_is_that_of_the_command(durably_command: Run) -> None:
    assert durably_command("--version").stdout == f"durably {__version__}\n"
