"""Every argument of create_durably: an invalid value is named with what is allowed."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import ConflictError, StepContext, StoreError, SyncStepContext, ValidationError, create_durably, define_job
from durably.settings import database_from_environment
from durably.testing import FakeClock


@define_job(name="job")
async def job(step: StepContext, input: Any) -> Any: ...


@define_job(name="job")
async def other(step: StepContext, input: Any) -> Any: ...


@define_job(name="third")
async def third(step: StepContext, input: Any) -> Any: ...


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "value", "allowed"),
        [
            ("database", "jobs.db", "sqlite:///file.db"),
            ("database", "", "sqlite:///file.db"),
            ("database", "mysql://x/y", "sqlite:///file.db"),
            ("database", "sqlite://jobs.db", "sqlite:///relative.db"),
            ("database", "sqlite:///", "sqlite:////absolute.db"),
            ("database", 5, "a URL"),
            ("database", "postgresql://[half/x", "postgresql://host/name"),
            ("jobs", {"job": "import-csv"}, "define_job"),
            ("jobs", {"not a name": job}, "durably.jobs."),
            ("jobs", {"_private": job}, "durably.jobs."),
            ("jobs", {5: job}, "durably.jobs."),
            ("jobs", {"items": job}, "durably.jobs."),
            pytest.param("jobs", [job], "a mapping of names", id="jobs-list"),
            ("polling_interval", 0, "above 0"),
            ("polling_interval", -1.5, "above 0"),
            ("polling_interval", "1s", "number of seconds"),
            ("polling_interval", float("nan"), "number of seconds"),
            ("polling_interval", float("inf"), "number of seconds"),
            ("polling_interval", True, "number of seconds"),
            ("polling_interval", timedelta(0), "above 0"),
            ("polling_interval", 10**400, "100 years"),
            ("max_concurrent_runs", 0, "1 to 1000"),
            ("max_concurrent_runs", 1001, "1 to 1000"),
            ("max_concurrent_runs", 1.5, "whole number"),
            ("max_concurrent_runs", "10", "whole number"),
            ("max_concurrent_runs", True, "whole number"),
            ("lease_duration", 0, "above 0"),
            ("lease_duration", None, "number of seconds"),
            ("lease_duration", 1e300, "100 years"),
            ("lease_renew_interval", 0, "above 0"),
            ("lease_renew_interval", 30, "shorter than lease_duration"),
            ("lease_renew_interval", timedelta(minutes=1), "shorter than lease_duration"),
            ("preserve_steps", "yes", "True or False"),
            ("preserve_steps", 1, "True or False"),
            ("retain_runs", "30", "'30d'"),
            ("retain_runs", "a month", "'30d'"),
            ("retain_runs", "-1d", "'30d'"),
            ("retain_runs", 30, "'30d'"),
            ("retain_runs", timedelta(-1), "'30d'"),
            ("retain_runs", "9999999999d", "100 years"),
            ("retain_runs", "2w", "d, h, m or s"),
            ("retain_runs", "0d", "as soon as it has ended"),
            ("retain_runs", "0.0s", "as soon as it has ended"),
            ("retain_runs", timedelta(0), "as soon as it has ended"),
            pytest.param("labels", object(), "Pydantic", id="labels-object"),
            pytest.param("labels", list[str], "TypedDict", id="labels-without-names"),
            ("worker_id", "", "not empty"),
            ("worker_id", 5, "text"),
            ("worker_id", "a\x00b", "text"),
            ("clock", 5, "now() and monotonic()"),
            pytest.param("clock", FakeClock, "FakeClock()", id="clock-class"),
        ],
        ids=repr,
    )
    def test_an_invalid_value_is_named_with_what_is_allowed(self, argument: str, value: Any, allowed: str) -> None:
        """`ValidationError`, a `ValueError` too, naming the argument, the value and what is allowed."""
        with pytest.raises(ValidationError) as refused:
            create_durably(**{"database": "sqlite://:memory:", argument: value})

        message = str(refused.value)
        assert allowed in message
        assert argument in message or argument in str(refused.value.field)
        assert isinstance(refused.value, ValueError)

    @pytest.mark.parametrize(
        "options",
        [
            {"polling_interval": 1, "lease_duration": timedelta(minutes=2), "lease_renew_interval": 0.5},
            {"lease_duration": 3},
            {"lease_duration": 3600, "lease_renew_interval": None},
            {"retain_runs": "30d"},
            {"retain_runs": "1.5h"},
            {"retain_runs": "60 m"},
            {"retain_runs": "90s"},
            {"retain_runs": timedelta(seconds=1)},
            {"max_concurrent_runs": 1000, "preserve_steps": True, "worker_id": "me", "labels": dict[str, str]},
        ],
        ids=repr,
    )
    def test_valid_values_are_taken(self, options: dict[str, Any]) -> None:
        """Seconds are a `float`, an `int` or a `timedelta`."""
        assert "no jobs" not in repr(create_durably(database="sqlite://:memory:", **options))

    def test_an_unknown_argument_is_a_type_error(self) -> None:
        """Misspelt keywords do not pass."""
        with pytest.raises(TypeError, match="databse"):
            create_durably(databse="x")  # type: ignore[call-arg]


class TestTheDatabase:
    def test_the_default_is_the_environment_then_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`$DURABLY_DATABASE_URL`, else `sqlite:///durably.db`."""
        monkeypatch.delenv("DURABLY_DATABASE_URL", raising=False)
        assert database_from_environment() == "sqlite:///durably.db"
        monkeypatch.setenv("DURABLY_DATABASE_URL", "sqlite:////srv/jobs.db")
        assert database_from_environment() == "sqlite:////srv/jobs.db"
        assert create_durably().storage.name == "database /srv/jobs.db"

    def test_paths_urls_and_stores_are_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three slashes and a relative path, four and an absolute one; a scheme is written in any case."""
        assert create_durably(database="SQLite:////srv/jobs.db").storage.name == "database /srv/jobs.db"
        monkeypatch.chdir(tmp_path)
        absolute = tmp_path / "a.db"
        for given in (absolute, f"sqlite:///{absolute}", "sqlite:///a.db", Path("a.db")):
            assert create_durably(database=given).storage.name == f"database {absolute}"
        store = create_durably(database="sqlite://:memory:").storage
        assert create_durably(database=store).storage is store
        assert store.name == "the in-memory database"

    async def test_a_store_is_closed_with_its_instance(self) -> None:
        """It serves that one alone; who wants two instances on a database makes each from the URL."""
        store = create_durably(database="sqlite://:memory:").storage
        async with create_durably(database=store):
            assert await store.get_run("none") is None

        with pytest.raises(StoreError, match="was closed: make a new instance"):
            await store.get_run("none")

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql+asyncpg://me:s3cr3t@host/jobs", "'postgresql+asyncpg://me:***@host/jobs'"),
            ("mysql://me:s3/c@r3t@host/jobs", "'mysql://me:***@host/jobs'"),
            ("turso://host?authToken=s3cr3t&tls=0", "'turso://host?authToken=***&tls=0'"),
            ("sqlite://me:s3cr3t@x", "'sqlite://me:***@x'"),
        ],
    )
    def test_a_url_that_is_refused_is_shown_without_its_password(self, url: str, shown: str) -> None:
        """It ends in logs."""
        with pytest.raises(ValidationError) as refused:
            create_durably(database=url)

        assert shown in str(refused.value)
        assert "s3" not in f"{refused.value} {refused.value.value}"

    def test_making_an_instance_opens_nothing(self, tmp_path: Path) -> None:
        """Nothing is opened before it is used."""
        create_durably(database=tmp_path / "a.db", jobs={"job": job})

        assert list(tmp_path.iterdir()) == []


ATTRIBUTES = [
    ("import-csv", "import_csv"),
    ("1st job", "job_1st_job"),
    ("_x", "job__x"),
    ("items", "job_items"),
    ("report-m²", "report_m_"),
]


class TestRegistering:
    def test_register_returns_the_instance_with_the_new_handles(self) -> None:
        """The same definition again returns the same handle."""
        durably = create_durably(database="sqlite://:memory:")

        assert durably.register({"job": job}) is durably
        handle = durably.jobs.job
        assert durably.register({"job": job, "alias": job}).jobs.alias is handle
        assert repr(durably) == "<Durably on the in-memory database, jobs: job>"

    def test_a_plain_job_is_refused_where_there_are_no_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L2: in a browser; it would block the event loop that it waits for."""

        @define_job(name="plain")
        def plain(step: SyncStepContext, input: Any) -> Any: ...

        monkeypatch.setattr(sys, "platform", "emscripten")
        durably = create_durably(database="sqlite://:memory:", jobs={"job": job})

        with pytest.raises(ValidationError, match=r"'plain' is a plain function, which needs a thread.*`async def`"):
            durably.register({"plain": plain})

    @pytest.mark.parametrize(
        ("jobs", "name", "told"),
        [
            ({"another": other}, "job", r"Another job has the name 'job' already.*jobs\['another'\]"),
            (
                {"job": third},
                "third",
                r"durably\.jobs\.job is the job 'job' already: register 'third' under another key",
            ),
        ],
        ids=["name", "attribute"],
    )
    def test_another_definition_under_a_taken_name_is_a_conflict(self, jobs: Any, name: str, told: str) -> None:
        """Whichever of its two names is taken, it is told which; nothing is registered then."""
        durably = create_durably(database="sqlite://:memory:", jobs={"job": job})

        @define_job(name="fine")
        async def fine(step: StepContext, input: Any) -> Any: ...

        with pytest.raises(ConflictError, match=told) as refused:
            durably.register({"fine": fine, **jobs})
        assert (refused.value.operation, refused.value.job_name) == ("register", name)
        assert list(durably.jobs) == ["job"]

    def test_two_definitions_of_one_name_in_one_mapping_are_a_conflict(self) -> None:
        """Also when both are new."""
        with pytest.raises(ConflictError):
            create_durably(database="sqlite://:memory:", jobs={"one": job, "two": other})

    def test_get_job_takes_a_name_or_a_definition(self) -> None:
        """Anything else, as the function itself, is named."""
        durably = create_durably(database="sqlite://:memory:")

        with pytest.raises(ValidationError, match=r"Invalid name .*its definition"):
            durably.get_job(job.function)  # type: ignore[call-overload]

    def test_get_job_makes_an_attribute_name(self) -> None:
        """A definition that is not registered yet is registered under its name with `_` for what cannot stand there."""
        durably = create_durably(database="sqlite://:memory:")
        for name, attribute in ATTRIBUTES:

            async def work(step: StepContext, input: Any) -> Any: ...

            definition = define_job(name=name, run=work)
            assert durably.get_job(definition) is durably.jobs[attribute]


class TestCalls:
    @pytest.mark.parametrize("scope", ["all", None])
    def test_a_scope_that_does_not_exist_is_refused(self, scope: Any) -> None:
        """A listener that hears of more, or less, than was meant would be noticed late."""
        durably = create_durably(database="sqlite://:memory:")

        with pytest.raises(ValidationError, match=r"Invalid scope .*database, process"):
            durably.on("run:complete", print, scope=scope)

    async def test_a_run_in_place_of_its_id_is_said_so(self) -> None:
        """Not by printing all that the run holds."""
        durably = create_durably(database="sqlite://:memory:", jobs={"job": job})
        await durably.migrate()
        run = await durably.jobs.job.trigger("much " * 1_000)

        with pytest.raises(ValidationError) as refused:
            await durably.cancel(run)  # type: ignore[arg-type]
        assert str(refused.value) == f"Invalid id: a run was given, pass its id, {run.id!r}"
        await durably.close()
