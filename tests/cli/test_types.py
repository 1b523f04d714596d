"""`durably types`: the jobs of an instance as TypeScript types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

EXPECTED = """\
// Written by `durably types`: change the jobs, not this file.

export interface Circle {
  kind: 'circle'
  radius: number
}

export type Color = 'red' | 'it\\'s blue'

export interface Loose {
  known: boolean
  [key: string]: unknown
}

export interface Options {
  mode?: 'fast' | 'slow'
}

export interface OrderInput {
  id: string
  /** When it was placed. */
  placed: string
  price: number | string
  color: Color
  shape: Circle | Square
  note?: string | null
  tags?: string[]
  size: [number, number]
  path: string[]
  counts: {
    [key: string]: number
  }
  tree: TreeInput
  options: Options
  extra?: unknown
  many?: (number | string)[]
  'order-reference': string
}

export interface OrderOutput {
  id: string
  /** When it was placed. */
  placed: string
  price: string
  color: Color
  shape: Circle | Square
  note: string | null
  tags: string[]
  size: [number, number]
  path: string[]
  counts: {
    [key: string]: number
  }
  tree: TreeOutput
  options: Options
  extra: unknown
  many: (number | string)[]
  'order-reference': string
}

export interface Square {
  kind: 'square'
  side: number
}

/**
 * A node and
 * its children.
 */
export interface TreeInput {
  children?: TreeInput[]
}

/**
 * A node and
 * its children.
 */
export interface TreeOutput {
  children: TreeOutput[]
}

export interface Jobs {
  /** Place an order. */
  placeOrder: {
    input: OrderInput
    output: TreeOutput
  }
  nightly: {
    name: 'reports.nightly'
    input: string
    output: OrderOutput[]
  }
  loose: {
    input: Loose
    output: unknown
  }
  anything: {
    input: unknown
    output: unknown
  }
}

export const jobNames = {
  placeOrder: 'place-order',
  nightly: 'reports.nightly',
  loose: 'loose',
  anything: 'anything',
} as const
"""


def test_inputs_as_they_are_sent_and_outputs_as_they_come_back(durably_command: Run, project: Path) -> None:
    """What has a default may be left out of an input and is always there in an output."""
    finished = durably_command("types", "shop:durably", "-o", "durably.gen.ts")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert (project / "durably.gen.ts").read_text() == EXPECTED
    assert {path.name for path in project.iterdir() if not path.is_dir()} == {"shop.py", "durably.gen.ts"}


def test_without_a_file_it_goes_to_standard_output(durably_command: Run) -> None:
    assert durably_command("types", "shop:durably").stdout == EXPECTED


def test_check_tells_whether_the_file_is_current_and_writes_nothing(durably_command: Run, project: Path) -> None:
    """For CI: exit status 1 and what to do, until the file is what would be written."""
    arguments = ("types", "shop:durably", "-o", "durably.gen.ts", "--check")
    missing = durably_command(*arguments)
    assert missing.returncode == 1
    assert missing.stderr == ("durably.gen.ts is not up to date: run `durably types shop:durably -o durably.gen.ts`\n")
    assert not (project / "durably.gen.ts").exists()

    durably_command(*arguments[:-1])
    assert durably_command(*arguments).returncode == 0

    (project / "durably.gen.ts").write_text("old")
    assert durably_command(*arguments).returncode == 1
    assert (project / "durably.gen.ts").read_text() == "old"

    (project / "durably.gen.ts").write_bytes("\ufeff old".encode("utf-16"))
    assert durably_command(*arguments).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("shop",), "'shop' names no instance: expected module:attribute, like app:durably"),
        (("nowhere:durably",), "there is no module 'nowhere'"),
        (("shop.py:durably",), "it is named as Python imports it, shop, not by its file"),
        (("pages/shop.py:durably",), "it is named as Python imports it, pages.shop, not by its file"),
        (("shop:nothing",), "shop has no attribute 'nothing'; it has durably"),
        (("json:durably",), "it makes no instance where it is imported: write `durably = create_durably(...)`"),
        (("shop:not_one",), "shop:not_one is no instance made by create_durably: its type is int"),
        (("shop:durably", "--check"), "--check needs -o FILE"),
        (
            ("shop:durably", "-o", "no/such/folder/durably.gen.ts"),
            "durably.gen.ts cannot be written: there is no directory no/such/folder, create it first",
        ),
        (("shop:durably", "-o", "."), ". cannot be written: it is a directory, name a file in it"),
        (("shop:durably", "-o", ".", "--check"), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_without_a_traceback(durably_command: Run, arguments, text: str) -> None:
    finished = durably_command("types", *arguments)

    assert finished.returncode == 2
    assert text in finished.stderr
    assert "Traceback" not in finished.stderr


def test_an_application_that_is_broken_shows_where(durably_command: Run, project: Path) -> None:
    """An error of the user's own module is the user's to see, whole; it is not the answer of a check."""
    (project / "broken.py").write_text("import no_such_dependency\n")

    finished = durably_command("types", "broken:durably")

    assert finished.returncode == 2
    assert "ModuleNotFoundError: No module named 'no_such_dependency'" in finished.stderr
    assert finished.stderr.count("  File ") == 1, "the frames of the command and of `importlib` say nothing"
    assert finished.stderr.endswith("durably: broken cannot be imported: the traceback above says why\n")


def test_an_attribute_that_breaks_shows_where(durably_command: Run, project: Path) -> None:
    """As one that makes the instance when it is asked for."""
    (project / "lazy.py").write_text("def __getattr__(name):\n    raise RuntimeError('no settings')\n")

    finished = durably_command("types", "lazy:durably")

    assert finished.returncode == 2
    assert "RuntimeError: no settings" in finished.stderr
    assert finished.stderr.count("  File ") == 1, "the frames of the command say nothing"
    assert finished.stderr.endswith("durably: lazy:durably cannot be read: the traceback above says why\n")


def test_an_application_that_ends_the_program_is_told(durably_command: Run, project: Path) -> None:
    """A script whose `main()` stands at its end; silence and status 0 would look like success."""
    (project / "script.py").write_text("import sys\nsys.exit(0)\n")

    finished = durably_command("types", "script:durably")

    assert finished.returncode == 2
    assert "script ended the program while it was imported, by sys.exit(0)" in finished.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("verb", ["types", "migrate"])
def test_standard_output_that_takes_nothing(project: Path, verb: str) -> None:
    """A full disk is told as any other file's, once."""
    command = [sys.executable, "-m", "durably", verb, "shop:durably"]
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(command, cwd=project, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert finished.returncode == 2
    assert finished.stderr == "durably: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor as a shell does")
@pytest.mark.parametrize("verb", ["types", "migrate"])
def test_standard_output_that_is_closed(project: Path, verb: str) -> None:
    """As with `>&-`, and in some services."""
    command = f"{sys.executable} -m durably {verb} shop:durably >&-"
    finished = subprocess.run(["/bin/sh", "-c", command], cwd=project, stderr=subprocess.PIPE, text=True, check=False)

    assert (finished.returncode, finished.stderr) == (2, "durably: standard output is closed\n")


def test_what_a_symbolic_link_leads_to_is_written(durably_command: Run, project: Path) -> None:
    """The link stays one."""
    (project / "web").mkdir()
    (project / "durably.gen.ts").symlink_to("web/jobs.ts")
    finished = durably_command("types", "shop:durably", "-o", "durably.gen.ts")

    assert finished.returncode == 0, finished.stderr
    assert (project / "durably.gen.ts").is_symlink()
    assert "export interface" in (project / "web" / "jobs.ts").read_text()


def test_what_is_no_regular_file_is_not_replaced_by_one(durably_command: Run, project: Path) -> None:
    """A device of the system would be gone."""
    os.mkfifo(project / "pipe")
    finished = durably_command("types", "shop:durably", "-o", "pipe")

    assert finished.returncode == 2
    assert "pipe cannot be written: it is no regular file" in finished.stderr
    assert (project / "pipe").is_fifo()


def test_an_application_with_a_wrong_database_says_what_is_wrong(durably_command: Run, project: Path) -> None:
    """What durably refuses while the module is imported is explained by its message, without a traceback."""
    (project / "wrong.py").write_text(
        "from durably import create_durably\ndurably = create_durably(database='mysql://x')\n"
    )

    finished = durably_command("types", "wrong:durably")

    assert finished.returncode == 2
    assert finished.stderr.startswith(
        "durably: wrong cannot be imported: Invalid database 'mysql://x': expected one of"
    )
    assert "Traceback" not in finished.stderr


def test_two_attributes_that_would_be_one_property(durably_command: Run, project: Path) -> None:
    (project / "twins.py").write_text(
        "from durably import create_durably, define_job\n"
        "first = define_job(name='first', run=lambda step, input: None)\n"
        "second = define_job(name='second', run=lambda step, input: None)\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'send_mail': first, 'sendMail': second})\n"
    )

    finished = durably_command("types", "twins:durably")

    assert finished.returncode == 2
    assert "'send_mail' and 'sendMail' would both be 'sendMail'" in finished.stderr


@pytest.mark.parametrize(
    ("attribute", "name"), [("use_runs", "useRuns"), ("use_run_actions", "useRunActions"), ("then", "then")]
)
def test_an_attribute_that_cannot_be_a_job_in_typescript(
    durably_command: Run, project: Path, attribute: str, name: str
) -> None:
    (project / "taken.py").write_text(
        "from durably import create_durably, define_job\n"
        "job = define_job(name='job', run=lambda step, input: None)\n"
        f"durably = create_durably(database='sqlite://:memory:', jobs={{{attribute!r}: job}})\n"
    )

    finished = durably_command("types", "taken:durably")

    assert finished.returncode == 2
    assert f"the job '{attribute}' would be '{name}' in TypeScript, which cannot be a job there" in finished.stderr


def test_a_name_beyond_ascii_is_written_out(durably_command: Run, project: Path) -> None:
    """What is a capital letter there, TypeScript and Python need not agree about."""
    (project / "oil.py").write_text(
        "from durably import create_durably, define_job\n"
        "job = define_job(name='Öl-preis', run=lambda step, input: None)\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'Öl_preis': job})\n"
    )

    finished = durably_command("types", "oil:durably")

    assert "'ÖlPreis': {\n    name: 'Öl-preis'\n" in finished.stdout
    assert "'ÖlPreis': 'Öl-preis'" in finished.stdout


def test_a_class_that_is_called_as_a_word_of_typescript_gets_another_name(durably_command: Run, project: Path) -> None:
    (project / "words.py").write_text(
        "from pydantic import BaseModel\n"
        "from durably import create_durably, define_job\n"
        "class intrinsic(BaseModel):\n"
        "    n: int\n"
        "job = define_job(name='job', input=intrinsic, run=lambda step, input: None)\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'job': job})\n"
    )

    finished = durably_command("types", "words:durably")

    assert finished.returncode == 0
    assert "interface intrinsic " not in finished.stdout


def test_a_type_that_cannot_be_described_is_unknown(durably_command: Run, project: Path) -> None:
    """Pydantic validates a callable; JSON Schema has no word for one."""
    (project / "odd.py").write_text(
        "from typing import Callable\n"
        "from durably import create_durably, define_job\n"
        "job = define_job(name='odd', input=Callable, run=lambda step, input: None)\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'odd': job})\n"
    )

    assert "input: unknown" in durably_command("types", "odd:durably").stdout


def test_a_number_that_json_does_not_have_makes_its_enum_unknown(durably_command: Run, project: Path) -> None:
    """`Infinity` is a value in TypeScript and no type."""
    (project / "endless.py").write_text(
        "from enum import Enum\n"
        "from durably import create_durably, define_job\n"
        "Limit = Enum('Limit', {'NONE': float('inf'), 'SOME': 1.5})\n"
        "job = define_job(name='endless', input=Limit, run=lambda step, input: None)\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'endless': job})\n"
    )

    assert "Infinity" not in durably_command("types", "endless:durably").stdout


def test_what_is_always_empty_and_what_is_nothing(durably_command: Run, project: Path) -> None:
    (project / "empty.py").write_text(
        "from durably import create_durably, define_job\n"
        "@define_job(name='empty')\n"
        "async def empty(step, input: tuple[()]) -> None: ...\n"
        "durably = create_durably(database='sqlite://:memory:', jobs={'empty': empty})\n"
    )

    assert "    input: []\n    output: unknown\n" in durably_command("types", "empty:durably").stdout


UNUSUAL = """
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, Json, computed_field

from durably import create_durably, define_job


class Area(BaseModel):
    width: int = 1

    @computed_field
    @property
    def size(self) -> int:
        return self.width


class Strict(Area):
    model_config = ConfigDict(extra="forbid")


class Raw(BaseModel):
    numbers: Json[list[int]]
    area: Area


class Point(NamedTuple):
    x: int
    y: int = 0


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Kitten(BaseModel):
    kind: Literal["kitten", "baby-cat"] = "kitten"


class Dog(BaseModel):
    kind: Literal["dog"]


Feline = Annotated[Cat | Kitten, Field(discriminator="kind")]
Pet = Annotated[Feline | Dog, Field(discriminator="kind")]


def job(name, input, output):
    return define_job(name=name, input=input, output=output, run=lambda step, input: None)


durably = create_durably(
    database="sqlite://:memory:",
    jobs={
        "area": job("area", None, Area),
        "strict": job("strict", None, Strict),
        "raw": job("raw", Raw, Raw),
        "point": job("point", Point, Point),
        "pet": job("pet", Pet, list[Pet]),
        "cat": job("cat", Cat, None),
        "pets": job("pets", list[Feline] | None, None),
    },
)
"""


DESCRIBED = """\
export interface AreaInput {
  width?: number
}

export interface AreaOutput {
  width: number
  size: number
}

export interface AreaStored {
  width: number
}

export interface CatInput {
  kind?: 'cat'
}

export interface CatOutput {
  kind: 'cat'
}

export interface Dog {
  kind: 'dog'
}

export interface KittenInput {
  kind?: 'kitten' | 'baby-cat'
}

export interface KittenOutput {
  kind: 'kitten' | 'baby-cat'
}

export type PointInput = [number, number?]

export type PointOutput = [number, number]

export interface RawInput {
  numbers: string
  area: AreaInput
}

export interface RawOutput {
  numbers: string
  area: AreaStored
}

export interface Strict {
  width: number
}

export interface Jobs {
  area: {
    input: unknown
    output: AreaOutput
  }
  strict: {
    input: unknown
    output: Strict
  }
  raw: {
    input: RawInput
    output: RawOutput
  }
  point: {
    input: PointInput
    output: PointOutput
  }
  pet: {
    input: (CatInput & { kind: 'cat' }) | (KittenInput & { kind: 'kitten' | 'baby-cat' }) | Dog
    output: (CatOutput | KittenOutput | Dog)[]
  }
  cat: {
    input: CatInput
    output: unknown
  }
  pets: {
    input: ((CatInput & { kind: 'cat' }) | (KittenInput & { kind: 'kitten' | 'baby-cat' }))[] | null
    output: unknown
  }
}
"""


def test_what_is_stored_otherwise_than_it_is_sent(durably_command: Run, project: Path) -> None:
    """JSON within JSON stays text, what is computed is left out where it would not be read back, tuples are whole."""
    (project / "unusual.py").write_text(UNUSUAL)

    assert DESCRIBED in durably_command("types", "unusual:durably").stdout


ALIKE = """
from __future__ import annotations

from pydantic import BaseModel, Json, computed_field

from durably import create_durably, define_job


class Node(BaseModel):
    children: list[Node]

    @computed_field
    @property
    def size(self) -> int:
        return 1 + len(self.children)


class Raw(BaseModel):
    numbers: Json[list[int]]
    node: Node


class Book:
    class Item(BaseModel):
        pages: int


class Film:
    class Item(BaseModel):
        minutes: int


def job(name, input, output):
    return define_job(name=name, input=input, output=output, run=lambda step, input: None)


durably = create_durably(
    database="sqlite://:memory:",
    jobs={
        "raw": job("raw", Raw, Raw),
        "node": job("node", None, Node),
        "lend": job("lend", Book.Item | Film.Item, None),
    },
)
"""


MERGED = """\
export interface Node {
  children: Node[]
}

export interface NodeOutput {
  children: NodeOutput[]
  size: number
}

export interface Raw {
  numbers: string
  node: Node
}

export interface alike__Book__Item {
  pages: number
}

export interface alike__Film__Item {
  minutes: number
}

export interface Jobs {
  raw: {
    input: Raw
    output: Raw
  }
  node: {
    input: unknown
    output: NodeOutput
  }
  lend: {
    input: alike__Book__Item | alike__Film__Item
    output: unknown
  }
}
"""


def test_what_is_stored_as_it_is_sent_is_one_type(durably_command: Run, project: Path) -> None:
    """Also where it refers to itself; two classes of one name are none."""
    (project / "alike.py").write_text(ALIKE)

    assert MERGED in durably_command("types", "alike:durably").stdout
