"""A page written against the generated types compiles, and one that is wrong does not."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run

PACKAGES = Path(__file__).resolve().parents[2] / "packages"
COMPILER = PACKAGES / "node_modules" / ".bin" / "tsc"

pytestmark = pytest.mark.skipif(
    not COMPILER.exists() or shutil.which("node") is None,
    reason="the TypeScript compiler is not installed: run `npm ci` in packages/",
)

RIGHT = """
import { createDurably } from 'durably-react'
import { jobNames, type Jobs } from './durably.gen.js'

const durably = createDurably<Jobs>({ api: '/api/durably', names: jobNames })

export function page() {
  const { trigger, output } = durably.placeOrder.useJob()
  void trigger({
    id: 'a',
    placed: '2026-01-01T00:00:00Z',
    price: '9.99',
    color: 'red',
    shape: { kind: 'circle', radius: 1 },
    size: [1, 2],
    path: [],
    counts: { apples: 3 },
    tree: { children: [{}] },
    options: { mode: 'fast' },
    'order-reference': 'x',
  })
  const children: number | undefined = output?.children.length
  const prices: string[] | undefined = durably.nightly.useJob().output?.map((order) => order.price)
  void durably.loose.useJob().trigger({ known: true, more: 1 })
  return [children, prices]
}
"""

WRONG = [
    ("trigger({ filename: 7 })", "void durably.placeOrder.useJob().trigger({ filename: 7 })"),
    ("a literal", "void durably.loose.useJob().trigger({ known: 'yes' })"),
    ("a missing property", "void durably.loose.useJob().trigger({})"),
    ("an unknown job", "durably.placeOrders.useJob()"),
    ("the type of an output", "const n: number | undefined = durably.nightly.useJob().output?.[0]?.price; void n"),
]


@pytest.fixture
def compiled(durably_command: Run, project: Path) -> list[str]:
    """Return what the compiler says of both pages, as strict with them as with the packages themselves."""
    assert durably_command("types", "shop:durably", "-o", "durably.gen.ts").returncode == 0
    (project / "right.ts").write_text(RIGHT)
    (project / "wrong.ts").write_text("\n".join([*RIGHT.splitlines(), *(line for _, line in WRONG)]))
    return said_of(project)


def said_of(project: Path) -> list[str]:
    """Compile the TypeScript of a project and return what the compiler says."""
    base = json.loads((PACKAGES / "tsconfig.base.json").read_text())["compilerOptions"]
    sources = {name: [str(PACKAGES / name / "src" / "index.ts")] for name in ("durably-client", "durably-react")}
    options = {**base, "noEmit": True, "declaration": False, "declarationMap": False, "paths": sources}
    (project / "package.json").write_text('{"type": "module"}')
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    command = [str(COMPILER), "--project", "."]
    finished = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    return finished.stdout.splitlines()


def test_a_right_page_compiles_and_wrong_lines_are_type_errors(compiled: list[str]) -> None:
    """Each of them, and nothing else."""
    told = [line for line in compiled if not line.startswith(" ")]
    assert [line for line in told if not line.startswith("wrong.ts(")] == []

    wrong = {int(error.removeprefix("wrong.ts(").split(",")[0]) for error in told}
    right_lines = len(RIGHT.splitlines())
    assert wrong == {right_lines + number for number in range(1, len(WRONG) + 1)}, compiled


ODD = """
from pydantic import create_model

from durably import create_durably, define_job

WORDS = ["keyof", "infer", "readonly", "unique", "type", "never", "Array", "Jobs"]
models = {word: create_model(word, n=(int, ...)) for word in WORDS}
both = create_model("both", **{word: (list[model], ...) for word, model in models.items()})
odd = define_job(name="it's\\rodd\\\\", input=both, run=lambda step, input: None)
durably = create_durably(database="sqlite://:memory:", jobs={"odd": odd})
"""


def test_names_that_mean_something_in_typescript_compile(durably_command: Run, project: Path) -> None:
    """Models called as keywords are, and the name of a job that would end a string or a line."""
    (project / "odd.py").write_text(ODD)
    assert durably_command("types", "odd:durably", "-o", "odd.gen.ts").stderr == ""

    assert said_of(project) == []
