"""The pages of the documentation, taken apart: their Python examples, what those print, and their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "examples", "benchmarks", "packages")
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    if "node_modules" not in page.parts
)

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)\s*$", re.DOTALL | re.MULTILINE)
_NOT_EXECUTED = re.compile(r"<!-- not executed: (?P<reason>.+?) -->\s*\Z")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(?P<text>.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block of Python, and the text that a block of output right behind it promises."""

    page: Path
    line: int
    code: str
    output: str | None
    not_executed: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> list[re.Match[str]]:
    return list(_FENCE.finditer(page.read_text()))


def examples() -> Iterator[Example]:
    for page in PAGES:
        text = page.read_text()
        for block, follower in pairwise([*fences(page), None]):
            if block is None or block["language"] != "python":
                continue
            refused = _NOT_EXECUTED.search(text[: block.start()])
            yield Example(
                page=page,
                line=text[: block.start()].count("\n") + 1,
                code=block["code"],
                output=follower["code"] if follower and is_output_of(block, follower) else None,
                not_executed=refused["reason"] if refused else None,
            )


def is_output_of(block: re.Match[str], follower: re.Match[str]) -> bool:
    return follower["language"] == "text" and not block.string[block.end() : follower.start()].strip()


def commands(page: Path) -> list[str]:
    """Return what a page tells a reader to type, from its console blocks."""
    lines = [line for block in fences(page) if block["language"] == "console" for line in block["code"].splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def links() -> Iterator[tuple[Path, str]]:
    """Yield every link of every page to something inside the repository."""
    for page in PAGES:
        for link in _LINK.finditer(_FENCE.sub("", page.read_text())):
            if "://" not in link["target"]:
                yield page, link["target"]


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as the usual renderers make them."""
    headings = _HEADING.finditer(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading["text"].lower()).replace(" ", "-") for heading in headings}
