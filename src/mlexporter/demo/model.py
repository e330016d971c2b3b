"""The model under watch: it says whether a flight that left the gate will arrive more than 15 minutes late."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlexporter.demo.data import BOOLEAN, CATEGORICAL, FEATURES, NUMERIC, DemoError, Features, Flight

MODEL = "flight-delay"
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted scikit-learn pipeline, and how well it ranks flights that it has not seen."""

    pipeline: Any
    auc: float
    threads: Any
    # Of the process, not of the model: the limit of threads, and the filters of warnings that scikit-learn puts aside.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def predict(self, rows: Sequence[Features]) -> list[float]:
        """Probability of a late arrival, one for each row. Several threads may ask.

        Raises ValueError or TypeError where a value does not fit its feature, such as a word for a temperature.
        """
        if not rows:
            return []
        with self._lock, _one_thread(self.threads):
            scores: list[float] = self.pipeline.predict_proba(_table(rows))[:, 1].tolist()
        return scores


def train(training: Sequence[Flight], validation: Sequence[Flight], seed: int) -> Model:
    """Fit on `training`, measure on `validation`."""
    try:
        from sklearn.metrics import roc_auc_score
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
    except ImportError as error:
        raise DemoError("the demo needs scikit-learn: pip install 'mlexporter[demo]'") from error
    pipeline = _pipeline(seed)
    threads = ThreadpoolController()
    with _one_thread(threads):
        pipeline.fit(_table([flight.features for flight in training]), np.array([flight.late for flight in training]))
        scores = pipeline.predict_proba(_table([flight.features for flight in validation]))[:, 1]
    return Model(pipeline, float(roc_auc_score(np.array([flight.late for flight in validation]), scores)), threads)


def _one_thread(threads: Any) -> AbstractContextManager[object]:
    """OpenMP without helpers, which wait by spinning: where the cores are busy, that is ten times slower."""
    limit: AbstractContextManager[object] = threads.limit(limits=1, user_api="openmp")
    return limit


def _pipeline(seed: int) -> Any:
    """Boosted trees that take categories and missing values as they are."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

    plain = [FEATURES.index(name) for name in (*NUMERIC, *BOOLEAN)]
    words = [FEATURES.index(name) for name in CATEGORICAL]
    # A category that it has never met is a missing value to the model.
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    return make_pipeline(
        make_column_transformer((FunctionTransformer(_floats), plain), (codes, words)),
        HistGradientBoostingClassifier(
            categorical_features=list(range(len(plain), len(FEATURES))),
            max_iter=60,
            max_leaf_nodes=15,
            min_samples_leaf=100,
            l2_regularization=1.0,
            random_state=seed,
        ),
    )


def _table(rows: Sequence[Features]) -> npt.NDArray[np.object_]:
    """Rows of features as a table in the order of `FEATURES`; what a row lacks is missing."""
    table = np.empty((len(rows), len(FEATURES)), dtype=object)
    for place, name in enumerate(FEATURES):
        table[:, place] = [row.get(name) for row in rows]
    return table


def _floats(table: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    return table.astype(np.float64)
