"""A join of predictions and labels in memory, for tests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlexporter.pending.joiner import Joiner
from mlexporter.pending.sqlite import SqliteStore
from mlexporter.store import Store

WEEK = 7 * 86400.0


def joiner_of(store: Store, clock: Callable[[], float]) -> Joiner:
    """One that does not run: what is offered stays in its queue."""
    return Joiner(SqliteStore(None, lambda _: WEEK), store.feedback, clock)


@contextmanager
def running(joiner: Joiner) -> Iterator[None]:
    """Let it run; at the end all that was offered is joined."""
    thread = threading.Thread(target=joiner.run)
    thread.start()
    try:
        yield
    finally:
        joiner.stop()
        thread.join()
