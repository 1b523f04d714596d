"""Which jobs an instance knows, by the names of their attributes and of their runs."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.errors import ConflictError, ValidationError
from durably.core.jobs import JobDefinition
from durably.engine.run_service import RunService
from durably.engine.threads import has_threads
from durably.handles import JobHandle


class Jobs(Mapping[str, JobHandle[Any, Any]]):
    """The handles of an instance, by the attribute names they were registered under."""

    def __init__(self, handles: dict[str, JobHandle[Any, Any]]) -> None:
        self._handles = handles

    def __getattr__(self, name: str) -> JobHandle[Any, Any]:
        try:
            return self._handles[name]
        except KeyError:
            raise AttributeError(self._not_registered(name)) from None

    def __getitem__(self, name: str) -> JobHandle[Any, Any]:
        try:
            return self._handles[name]
        except KeyError:
            raise KeyError(self._not_registered(name)) from None

    def _not_registered(self, name: str) -> str:
        known = ", ".join(sorted(self._handles)) or "none"
        return f"no job is registered as {name!r}; registered: {known}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._handles]


class JobRegistry:
    """The registered jobs of one instance."""

    def __init__(self) -> None:
        self.definitions: dict[str, JobDefinition[Any, Any]] = {}
        """By the name of the job, as the engine looks them up."""
        self._by_name: dict[str, JobHandle[Any, Any]] = {}
        self._by_attribute: dict[str, JobHandle[Any, Any]] = {}

    @property
    def jobs(self) -> Jobs:
        """Return the handles by attribute."""
        return Jobs(self._by_attribute)

    def register(self, jobs: Mapping[str, JobDefinition[Any, Any]], runs: RunService) -> None:
        """Add jobs, all or none. Raises `ConflictError` for a name that is taken, `ValidationError`."""
        if not isinstance(jobs, Mapping):
            raise ValidationError(
                f"Invalid jobs {jobs!r}: must be a mapping of names to definitions, as {{'import_csv': import_csv}}",
                field="jobs",
                value=jobs,
            )
        known = dict(self.definitions)
        for attribute, definition in jobs.items():
            self._check(attribute, definition, known)
            known[definition.name] = definition
        for attribute, definition in jobs.items():
            handle = self._by_name.get(definition.name) or JobHandle(runs, definition)
            self.definitions[definition.name] = definition
            self._by_name[definition.name] = handle
            self._by_attribute[attribute] = handle

    def find(self, name: str) -> JobHandle[Any, Any] | None:
        """Return the handle of a job's name, or None."""
        return self._by_name.get(name)

    def _check(self, attribute: object, definition: object, definitions: Mapping[str, JobDefinition[Any, Any]]) -> None:
        attribute = _check_attribute(attribute)
        if not isinstance(definition, JobDefinition):
            raise ValidationError(
                f"Invalid jobs[{attribute!r}] {definition!r}: must be a job made by define_job",
                field=f"jobs[{attribute!r}]",
                value=definition,
            )
        if not definition.is_async and not has_threads():
            raise ValidationError(
                f"Invalid jobs[{attribute!r}]: the job {definition.name!r} is a plain function, which needs a thread, "
                "and this Python has none; write it as `async def`",
                field=f"jobs[{attribute!r}]",
                value=definition,
            )
        if definitions.get(definition.name) not in (None, definition):
            raise ConflictError(
                f"Another job has the name {definition.name!r} already: its runs could not be told from those of "
                f"jobs[{attribute!r}]. Give one of the two definitions another name",
                operation="register",
                job_name=definition.name,
            )
        taken = self._by_attribute.get(attribute)
        if taken is not None and taken.definition is not definition:
            raise ConflictError(
                f"durably.jobs.{attribute} is the job {taken.name!r} already: register {definition.name!r} under "
                "another key",
                operation="register",
                job_name=definition.name,
            )


def attribute_of(name: str) -> str:
    """Return the attribute that a job is registered under when none was given.

    >>> attribute_of("import-csv")
    'import_csv'
    """
    attribute = "".join(character if f"a{character}".isidentifier() else "_" for character in name)
    is_usable = _can_be_attribute(attribute) and not keyword.iskeyword(attribute)
    return attribute if is_usable else f"job_{attribute}"


def _check_attribute(name: object) -> str:
    """Return a name that can stand behind `durably.jobs.`. Raises `ValidationError`."""
    if not isinstance(name, str) or not _can_be_attribute(name):
        raise ValidationError(
            f"Invalid jobs key {name!r}: must be a name that can stand behind `durably.jobs.`, and is not taken there "
            "as `items` is",
            field="jobs",
            value=name,
        )
    return name


def _can_be_attribute(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_") and not hasattr(Jobs, name)
