"""Dying at a chosen moment: a store, its connections and its files that kill their own process."""

from __future__ import annotations

import resource
import signal
import threading
from pathlib import Path
from typing import Any, Final

from durably.stores.sqlite.store import SqliteStore
from tests.crash.plan import Death

_VERBS: Final = frozenset({"claim", "record_step", "finish", "enqueue"})
_INSTRUCTIONS: Final = 20


class Fate:
    """Counts how often each place is passed, and ends or suspends the process at the appointed time."""

    def __init__(self, death: Death | None) -> None:
        self._death = death
        self._passed = 0

    def meet(self, at: str, when: str = "before") -> None:
        death = self._death
        if death is None or (death.at, death.when) != (at, when):
            return
        self._passed += 1
        if self._passed == death.n:
            # To this thread, so that not one more instruction of it is executed.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP if death.stop else signal.SIGKILL)

    def expects(self, at: str) -> bool:
        return self._death is not None and self._death.at == at

    def limit_files(self, database: Path) -> None:
        """Let a write that makes any file too large end the process: it may be torn in the middle of a page."""
        if self._death is None or self._death.at != "file-size":
            return
        wal = Path(f"{database}-wal")
        limit = (wal.stat().st_size if wal.exists() else 0) + self._death.n
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


class MortalStore:
    """A store whose process may die before or after each of its verbs; any `Store` will do."""

    def __init__(self, store: Any, fate: Fate) -> None:
        self.__dict__.update(_store=store, _fate=fate)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _VERBS:
            return method

        async def mortal(*args: Any, **kwargs: Any) -> Any:
            self._fate.meet(name, "before")
            result = await method(*args, **kwargs)
            self._fate.meet(name, "after")
            return result

        return mortal

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._store, name, value)


def make_connections_mortal(store: SqliteStore, fate: Fate, autocheckpoint: int | None) -> None:
    """Let the process die at a statement of a writing connection of SQLite, or inside one."""
    database = store._database
    connect = database.connect

    def connect_mortal(*, writes: bool) -> Any:
        connection = connect(writes=writes)
        if not writes:
            return connection
        if autocheckpoint is not None:
            connection.execute(f"PRAGMA wal_autocheckpoint = {autocheckpoint}").fetchone()
        if fate.expects("statement"):
            connection.set_trace_callback(lambda statement: fate.meet("statement"))
        if fate.expects("instruction"):
            connection.set_progress_handler(lambda: fate.meet("instruction"), _INSTRUCTIONS)
        return connection

    database.connect = connect_mortal  # type: ignore[method-assign] # this process is there to be killed
