"""A project folder with an application, in which the command is run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

APPLICATION = '''
from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from durably import create_durably, define_job


class Color(Enum):
    RED = "red"
    BLUE = "it's blue"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Tree(BaseModel):
    """A node and
    its children."""

    children: list[Tree] = []


class Options(TypedDict):
    mode: NotRequired[Literal["fast", "slow"]]


class Order(BaseModel):
    id: UUID
    placed: datetime = Field(description="When it was placed.")
    price: Decimal
    color: Color
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    note: str | None = None
    tags: set[str] = set()
    size: tuple[int, int]
    path: tuple[str, ...]
    counts: dict[str, int]
    tree: Tree
    options: Options
    extra: Any = None
    many: list[int | str] = []
    reference: str = Field(alias="order-reference")


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: bool


@define_job(name="place-order")
async def place_order(step, input: Order) -> Tree:
    """Place an order."""
    return Tree()


@define_job(name="reports.nightly")
async def nightly(step, input: str) -> list[Order]:
    return []


@define_job(name="loose")
async def loose(step, input: Loose):
    return None


@define_job(name="anything")
async def anything(step, input: Any) -> Any:
    return input


durably = create_durably(
    database="sqlite://:memory:",
    jobs={"place_order": place_order, "nightly": nightly, "loose": loose, "anything": anything},
)
not_one = 5
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture
def durably_command(project: Path) -> Run:
    """Run `durably` in the project folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "durably", *arguments]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)

    return run
