"""The recorded answers of the TypeScript library, replayed against our server."""

import json
import subprocess
import sys
from urllib.request import urlopen

import pytest

from tests.contract.conftest import REPOSITORY

CHECK = REPOSITORY.parent / "shared" / "contract" / "check.py"


@pytest.mark.skipif(
    not CHECK.exists(), reason=f"the recorded scenarios are kept beside the checkout, and {CHECK} is not there"
)
@pytest.mark.timeout(300)
def test_every_recorded_scenario_passes(contract_server: str) -> None:
    """Clients of the TypeScript library cannot tell the two servers apart."""
    checked = subprocess.run(
        [sys.executable, str(CHECK), "--base-url", contract_server],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout
    passed, failed = checked.stdout.splitlines()[-1].split(", ")
    assert int(passed.removesuffix(" passed")) >= 71
    assert failed == "0 failed"


def test_the_server_can_be_given_databases(tmp_path) -> None:
    """So that the same scenarios run on every database."""
    database = f"sqlite:///{tmp_path / 'first.db'}"
    command = [sys.executable, "-m", "tests.contract.server", "--port", "0", "--database", database]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening on ").strip()
        with urlopen(f"{address}/api/durably/runs", timeout=30) as answer:
            assert json.load(answer) == []
        server.terminate()

    assert (tmp_path / "first.db").exists()
