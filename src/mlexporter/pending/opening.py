"""Which store predictions wait in: a Redis that replicas share, a file, or memory."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlexporter.config import Config, LabelsConfig
from mlexporter.pending.records import PendingStore, StoreError
from mlexporter.pending.sqlite import SqliteStore

logger = logging.getLogger(__name__)

FILE_NAME: Final = "pending.sqlite"
MEMORY_ROWS: Final = 200_000
"""Predictions that wait at most where they wait in memory: some 50 MiB once all are labelled."""


class Horizons:
    """How long, in seconds, a prediction of a model waits for its label, by the configuration that holds."""

    def __init__(self, config: Config) -> None:
        self.use(config)

    def use(self, config: Config) -> None:
        """Go by another configuration."""
        horizons: dict[str, float] = {}
        for model in config.models:
            horizons[model.name] = max(horizons.get(model.name, 0.0), model.labels.horizon)
        self._horizons = horizons

    def __call__(self, model: str) -> float:
        """That of a model; the default where the configuration does not name it."""
        return self._horizons.get(model, LabelsConfig().horizon)


def open_store(config: Config, folder: Path | None, horizon: Horizons) -> PendingStore:
    """The store that a configuration names. It may be down: that shows when it is used.

    Args:
        config: with a shared store, perhaps.
        folder: of files; None keeps all in memory.
        horizon: of the models.

    Raises:
        ImportError: the package of the shared store is not installed.

    """
    most = config.labels.max_rows
    if config.labels.store is not None:
        from mlexporter.pending.redis import RedisStore

        return RedisStore(config.labels.store, horizon, max_rows=most)
    if folder is None:
        return SqliteStore(None, horizon, max_rows=min(most, MEMORY_ROWS))
    return SqliteStore(folder / FILE_NAME, horizon, max_rows=most)


def kept_totals(store: PendingStore) -> Mapping[str, bytes]:
    """What was counted by an exporter before this one; nothing where the store is down."""
    try:
        return store.totals()
    except StoreError as error:
        logger.warning("outcomes are counted from 0", extra={"error": str(error)})
        return {}
