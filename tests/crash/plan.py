"""What a process of these tests is told to do, and where it is to die."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Place = Literal[
    "claim", "in-step", "record_step", "next-line", "finish", "enqueue", "statement", "instruction", "file-size"
]
"""`claim`, `record_step`, `finish`, `enqueue`: around that verb of the store. `in-step`: at the end of a step's
function, when its effect has happened. `next-line`: in the job, behind a step. `statement`: before an SQL statement of
a writing connection. `instruction`: inside one. `file-size`: inside a write of SQLite to its files, when one grows
beyond so many bytes more than now."""


@dataclass(frozen=True)
class Death:
    """Die at the `n`th time that a place is passed; with `stop` be suspended there instead."""

    at: Place
    n: int = 1
    when: Literal["before", "after"] = "before"
    stop: bool = False

    def __str__(self) -> str:
        return f"{self.when} {self.at} {self.n}"


@dataclass(frozen=True)
class Plan:
    """One life of a process.

    `task`: "work" executes until nothing is left, "serve" executes until it is killed, "trigger" and "batch"
    trigger `count` times, "operate" deletes, purges and cancels what it finds. `clock_ahead` is by how many
    seconds its wall clock is ahead, which is how the leases of those who died before it expire at once.
    """

    database: str
    ledger: str
    task: Literal["work", "serve", "trigger", "batch", "operate", "migrate"] = "work"
    death: Death | None = None
    clock_ahead: float = 0.0
    lease: float = 10.0
    renew: float = 1.0
    concurrency: int = 10
    count: int = 0
    autocheckpoint: int | None = None
    name: str = "worker"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Plan:
        fields: dict[str, Any] = json.loads(text)
        death = fields.pop("death")
        return Plan(**fields, death=None if death is None else Death(**death))
