"""A store as somebody sees it for whom a few of its verbs do something else."""

from __future__ import annotations

from typing import Any

from durably.core.store import Store


class StoreView:
    """Passes everything on to a store; a subclass has the verbs that are to do something else."""

    _store: Store

    def __init__(self, store: Store) -> None:
        self._keep("_store", store)

    def _keep(self, name: str, value: object) -> None:
        """Set an attribute of the view itself."""
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._store, name, value)
