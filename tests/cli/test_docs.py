"""docs/typescript-types.md shows what the command writes."""

import re

from tests.cli.conftest import Run
from tests.docs.pages import ROOT


def test_the_page_shows_what_is_written(durably_command: Run, project) -> None:
    """The application of the page gives the file of the page."""
    page = (ROOT / "docs" / "typescript-types.md").read_text()
    (application,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (expected,) = re.findall(r"^```ts\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (project / "app.py").write_text(application)

    assert durably_command("types", "app:durably").stdout == expected
