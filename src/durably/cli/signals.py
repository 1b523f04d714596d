"""The signals that tell a worker to stop, and what the processes that its jobs fork make of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Forks:
    """Sees to it that signals sent to forked processes are heard by those, and not by the worker."""

    def __init__(self) -> None:
        self._on_sigterm: Any = None
        self._of_thread = threading.local()

    @contextmanager
    def keep_apart(self) -> Iterator[None]:
        """Keep the handlers that are installed in the block from what is forked in it.

        SIGTERM does there what it did before the block.
        """
        # None stands for a handler that was not installed from Python, and cannot be from there.
        self._on_sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        try:
            yield
        finally:
            self._on_sigterm = None

    def before(self) -> None:
        """Hold signals back until the child has a handler of its own."""
        if self._on_sigterm is not None:
            # One that reaches the child earlier, as when it is terminated as soon as it is started, would be
            # written to the descriptor that the event loop of the worker reads.
            self._of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def after_in_parent(self) -> None:
        """Let signals through again."""
        mask = self._of_thread.__dict__.pop("mask", None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_in_child(self) -> None:
        """Part with the handlers of the worker, and let signals through again."""
        # Forgotten, because what the child forks in its turn has the handlers of the child.
        on_sigterm, self._on_sigterm = self._on_sigterm, None
        if on_sigterm is not None:
            signal.set_wakeup_fd(-1)
            # The handler of SIGINT does nothing now, and stays: Ctrl-C goes to the children too, and a
            # KeyboardInterrupt that a pool of processes passes on from one of them would end the worker.
            signal.signal(signal.SIGTERM, on_sigterm)
        self.after_in_parent()


_forks: Final = _Forks()
heard_by_the_worker_only: Final = _forks.keep_apart

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child
    )
