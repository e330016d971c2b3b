"""Predictions that wait in Redis, shared by the replicas of an exporter.

A label is joined whichever replica it reaches. Each match, and each loss, is told to exactly one replica: a script
(`redis.lua`) does it, and Redis runs scripts one at a time. All keys begin with `mlexporter:` and end by themselves an
hour after the horizon, should all exporters be gone. Made for one Redis, with replicas and Sentinel or without; not for
Redis Cluster, as the script touches keys of several models. Memory should not be reclaimed by evicting keys
(`maxmemory-policy noeviction`): a key that Redis evicts is a prediction that nobody counts as lost.
"""

import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import TypeVar, cast
from urllib.parse import quote

import msgspec

from mlexporter.pending.records import (
    EARLY_LABEL_SECONDS,
    Arrivals,
    Joined,
    Label,
    Lost,
    Match,
    Pair,
    Prediction,
    StoreError,
    Totals,
    VersionKey,
    Waiting,
    single,
)

_TIMEOUT_SECONDS = 1.0
_CHUNK_ROWS = 500  # rows of one script: Redis serves nobody else until it is through, which takes some 10 ms
_FORGET_STEPS = 100  # scripts of one call of `forget`, so that labels do not wait for long
_SPARE_SECONDS = 3600  # for which Redis keeps a key beyond the horizon, so that exporters can count what is lost
_ANSWER_SECONDS = 3600  # for which Redis keeps the last answer to a replica, in case that it did not arrive
_INDEXES = "mlexporter:indexes"


class _Match(msgspec.Struct, array_like=True):
    model: str
    version: str
    prediction: str
    came: float
    label: str
    time: float
    before: str | None = None
    before_time: float = 0.0


class _Joined(msgspec.Struct, array_like=True):
    tracked: list[tuple[str, str, int]]
    matches: list[_Match]
    pairs: list[list[str]]
    repeated: list[tuple[str, str, int]]


class _Lost(msgspec.Struct, array_like=True):
    rows: int
    reason: str
    predictions: list[tuple[str, str, int]]
    labels: list[tuple[str, str, int]]


class _Waiting(msgspec.Struct, array_like=True):
    predictions: list[tuple[str, str, int]]
    labels: list[tuple[str, str, int]]


_Answer = TypeVar("_Answer", _Joined, _Lost, _Waiting)


class RedisStore:
    """A `PendingStore` in Redis.

    A call that fails may have been carried out in part, or without its answer arriving. When it comes again with the
    same predictions and labels, only the rest is done, and what came of the whole is returned; when another one comes
    instead, what came of the parts that were answered is returned with that one. Nothing is ever told twice.

    `waiting` tells the numbers that all replicas share.

    Args:
        url: as `redis://[[user]:password@]host[:port][/database]`, `rediss://` for TLS, `unix://` for a socket; its
            password appears in no message.
        horizons: seconds for which a prediction of a model waits for its label.
        max_rows: predictions that are kept, and labels that wait, each, of all models together. Of too many predictions
            those with a label go first, then the oldest.

    Raises:
        ImportError: the package `redis` is not installed.
        ValueError: the URL is none.

    """

    def __init__(self, url: str, horizons: Callable[[str], float], *, max_rows: int = 1_000_000) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),  # the caller retries, and knows with what
            )
        except ValueError:  # its text may hold a part of the password
            raise ValueError("not a URL such as redis://host:6379/0") from None
        self._script = self._client.register_script(files(__package__).joinpath("redis.lua").read_bytes())
        self._failures = (redis.RedisError, OSError)
        options = self._client.connection_pool.connection_kwargs
        self._name = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._secrets = [text for text in (options.get("password"), url) if text]
        self._horizons = horizons
        self._max_rows = max_rows
        self._identity = secrets.token_hex(8)
        self._unanswered: dict[str, tuple[bytes, bytes]] = {}  # by command: its token and argument
        self._chunks: list[bytes] = []  # of an apply that is not finished
        self._next = 0
        self._joined: list[_Joined] = []  # not returned yet
        self._lost_predictions: Counter[tuple[str, str, str]] = Counter()  # not returned yet
        self._lost_labels: Counter[tuple[str, str]] = Counter()

    def apply(self, predictions: Arrivals, labels: Sequence[Label], totals: Callable[[Joined], Totals]) -> Joined:
        """Add predictions and labels, and join them; `totals` is called, and what it returns stays with the replica.

        Raises:
            StoreError: to be retried with the same arguments.

        """
        chunks = self._encode([*single(predictions)], labels)
        if chunks != self._chunks:
            self._chunks, self._next = chunks, 0
        while self._next < len(chunks):
            self._joined.append(self._once("apply", chunks[self._next], _Joined))
            self._next += 1
        joined = _merged(self._joined)
        self._chunks, self._next, self._joined = [], 0, []
        totals(joined)
        return joined

    def forget(self, now: float) -> Lost:
        """Give up what has waited for longer than its time at Unix time `now`, and the oldest rows beyond the limit.

        One call gives up at most 50,000 rows; the next one goes on.

        Raises:
            StoreError: what was given up already is returned by the next call that succeeds.

        """
        cutoffs = {}
        for model in self._models():
            horizon = self._horizons(model)
            # In words of ZRANGEBYSCORE: before this time.
            cutoffs[model] = (f"({now - horizon!r}", f"({now - min(EARLY_LABEL_SECONDS, horizon)!r}")
        argument = msgspec.msgpack.encode((cutoffs, self._max_rows, _CHUNK_ROWS))
        for _ in range(_FORGET_STEPS):
            _, unanswered = self._unanswered.get("forget", (b"", argument))
            step = self._once("forget", unanswered, _Lost)
            for model, version, count in step.predictions:
                self._lost_predictions[model, version, step.reason] += count
            for model, _, count in step.labels:
                self._lost_labels[model, step.reason] += count
            if unanswered is argument and step.rows == 0:
                break
        lost = Lost(predictions=dict(self._lost_predictions), labels=dict(self._lost_labels))
        self._lost_predictions.clear()
        self._lost_labels.clear()
        return lost

    def waiting(self) -> Waiting:
        """What waits in Redis, for all replicas together. Raises StoreError."""
        answer = self._run("waiting", b"", b"", _Waiting)
        labels: Counter[str] = Counter()
        for model, _, count in answer.labels:
            labels[model] += count
        return Waiting(predictions=_by_version(answer.predictions), labels=dict(labels))

    def totals(self) -> Totals:
        """Nothing: totals stay with the replica."""
        return {}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _encode(self, predictions: Sequence[Prediction], labels: Sequence[Label]) -> list[bytes]:
        """Arguments of the scripts that apply these: predictions first, so that labels find them."""
        models = {}
        for model in {row.model for row in predictions} | {row.model for row in labels}:
            # Quoted, so that no name of a model contains what separates the parts of a key.
            prefix = f"mlexporter:{{{quote(model, safe='')}}}:"
            models[model] = (prefix, math.ceil(self._horizons(model)) + _SPARE_SECONDS)
        chunks = []
        for first in range(0, len(predictions) + len(labels), _CHUNK_ROWS):
            last = first + _CHUNK_ROWS
            some_labels = labels[max(0, first - len(predictions)) : max(0, last - len(predictions))]
            # As text: the MessagePack of Redis knows no bytes.
            rows = [
                [(row.model, row.version, row.id, row.time, row.value.decode()) for row in part]
                for part in (predictions[first:last], some_labels)
            ]
            chunks.append(msgspec.msgpack.encode((models, *rows)))
        return chunks

    def _models(self) -> set[str]:
        """Names of all models of which something waits or waited."""
        try:
            indexes = self._client.hvals(_INDEXES)
        except self._failures as error:
            raise self._error(error) from None
        return {msgspec.msgpack.decode(cast(bytes, index))[1] for index in indexes}

    def _once(self, command: str, argument: bytes, kind: type[_Answer]) -> _Answer:
        """Run a command; where its answer did not arrive before, get that."""
        token, unanswered = self._unanswered.get(command, (b"", b""))
        if argument != unanswered:
            token = secrets.token_bytes(16)
        self._unanswered[command] = token, argument
        answer = self._run(command, token, argument, kind)
        del self._unanswered[command]
        return answer

    def _run(self, command: str, token: bytes, argument: bytes, kind: type[_Answer]) -> _Answer:
        keys = [_INDEXES, f"mlexporter:answer:{self._identity}:{command}"]
        try:
            answer = cast(bytes, self._script(keys=keys, args=[command, token, _ANSWER_SECONDS, argument]))
        except self._failures as error:
            raise self._error(error) from None
        return msgspec.msgpack.decode(answer, type=kind)

    def _error(self, error: Exception) -> StoreError:
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return StoreError(f"Redis at {self._name}: {text}")


def _by_version(counts: Iterable[tuple[str, str, int]]) -> dict[VersionKey, int]:
    total: Counter[VersionKey] = Counter()
    for model, version, count in counts:
        total[model, version] += count
    return dict(total)


def _merged(answers: Sequence[_Joined]) -> Joined:
    """What came of several scripts."""
    return Joined(
        tracked=_by_version(count for answer in answers for count in answer.tracked),
        matches=[_match(match) for answer in answers for match in answer.matches],
        pairs=[_pair(*pair) for answer in answers for pair in answer.pairs],
        repeated=_by_version(count for answer in answers for count in answer.repeated),
    )


def _match(row: _Match) -> Match:
    return Match(
        model=row.model,
        version=row.version,
        prediction=row.prediction.encode(),
        label=row.label.encode(),
        delay=max(0.0, row.time - row.came),
        time=row.time,
        replaced=None if row.before is None else (row.before.encode(), row.before_time),
    )


def _pair(model: str, first: str, second: str, of_first: str, of_second: str, label: str | None = None) -> Pair:
    """A pair in the order of the names of its versions."""
    (first, of_first), (second, of_second) = sorted([(first, of_first), (second, of_second)])
    return Pair(
        model=model,
        versions=(first, second),
        predictions=(of_first.encode(), of_second.encode()),
        label=None if label is None else label.encode(),
    )
