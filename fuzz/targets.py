"""What is fuzzed: functions of bytes that may raise nothing, and bytes to begin with."""

import contextlib
import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlexporter import baseline, builder, config, decode, persistence, web_config
from mlexporter.authentication import Authenticator, PasswordChecks
from mlexporter.config_document import ConfigError
from mlexporter.dataset import DatasetError, open_dataset
from mlexporter.negotiation import accepts
from mlexporter.persistence import Found, StateError
from mlexporter.samples import Batch, Decoded, DecodedLabels, DecodeError, Role
from mlexporter.state import State
from mlexporter.store import Store
from mlexporter.trigger import config as trigger_config
from mlexporter.trigger import notification

LIMIT: Final = 1 << 20
_MAGIC: Final = b"mlexporter-state 1\n"


class Target(msgspec.Struct, frozen=True):
    """A decoder under any bytes, and good bytes for a beginning."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


# -- what is sent -----------------------------------------------------------------------------------------------------


def _check(decoded: Decoded | DecodedLabels) -> None:
    """All samples or labels have a size, and all of their columns have it."""
    for each in decoded.batches if isinstance(decoded, Decoded) else decoded.labels:
        assert each.size > 0
        columns = [each.ids, each.prediction, each.label]
        columns += each.features.values() if isinstance(each, Batch) else ()
        assert all(column is None or len(column) == each.size for column in columns)


def _body(decoder: Callable[[bytes, str], Decoded | DecodedLabels], media_type: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with contextlib.suppress(DecodeError):
            _check(decoder(data, media_type))

    return run


def _gzip(data: bytes) -> None:
    for encoding in ("gzip", ""):
        with contextlib.suppress(DecodeError):
            assert len(decode.decompress(data, encoding, LIMIT)) <= LIMIT


def _negotiation(data: bytes) -> None:
    header = data.decode("latin-1")
    for name in ("application/openmetrics-text", "gzip"):
        assert name in header.lower() or not accepts(header, name)


def _authorization(data: bytes) -> None:
    checks = PasswordChecks(contextlib.nullcontext, lambda _, __: False)
    users = Authenticator({"a": "$2y$04$" + "." * 53}, {"a": frozenset({"push"})}, (), checks)
    assert users.permissions_of(data.decode("latin-1")) is None


def _alert(data: bytes) -> None:
    with contextlib.suppress(notification.NotificationError):
        list(notification.decode(data).firing())


# -- what is written in files -----------------------------------------------------------------------------------------

_FOLDER: Final = Path(tempfile.mkdtemp(prefix="mlexporter-fuzz-"))
_PROFILE: Final = baseline.sealed(
    baseline.Baseline(
        rows=10,
        columns=(
            baseline.CategoricalColumn(
                role=Role.FEATURE, name="c", boolean=False, categories=("x",), counts=(10, 0, 0, 0)
            ),
            baseline.NumericColumn(
                role=Role.FEATURE, name="x", edges=(0.0, 1.0), coarse=(0, 1), counts=(0, 10, 0, 0),
                means=(None, 0.5, None), mean=0.5, stddev=0.1, minimum=0.4, maximum=0.6,
            ),
        ),
    )
)  # fmt: skip
_CONFIG: Final = config.Config(models=(config.ModelConfig(name="m", version="1"),))


def _lives(profile: baseline.Baseline, state: State | None = None) -> Store:
    """A store counts on whatever was read."""
    now = 1_700_000_000.0
    store = Store(_CONFIG, {("m", "1"): profile}, lambda: now)
    if state is not None:
        persistence.begin(store, Found(state, clean=True))
    store.observe([Batch(1, {"x": [0.5], "c": ["x"]}, "m", "1")])
    store.tick()
    store.snapshot()
    return store


def _baseline(data: bytes) -> None:
    path = _FOLDER / "baseline.json"
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        # the hash made right, as whoever wants to do harm would
        data = baseline.encode(baseline.sealed(msgspec.json.decode(data, type=baseline.Baseline)))
    path.write_bytes(data)
    with contextlib.suppress(baseline.BaselineError):
        _lives(baseline.read(path))


def _state(data: bytes) -> None:
    payload = data.removeprefix(_MAGIC)
    sealed = _MAGIC + hashlib.sha256(payload).digest() + payload
    with contextlib.suppress(StateError):
        persistence.decode(data)
    with contextlib.suppress(StateError):
        _lives(_PROFILE, persistence.decode(sealed))


def _text(parse: Callable[..., object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with contextlib.suppress(ConfigError):
            parse(data.decode("utf-8", errors="replace"), name="f.yml")

    return run


def _recorded(suffix: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        path = _FOLDER / f"data{suffix}"
        path.write_bytes(data)
        with contextlib.suppress(DatasetError):
            _lives(builder.build(open_dataset(path)))

    return run


_ROWS: Final = (
    b'{"model":"m","version":7,"samples":[{"id":"a","features":{"x":1.5,"y":"b","z":null},"prediction":{"p":0.5},'
    b'"label":true,"latency_seconds":0.1,"error":{"code":503}},{"features":{"x":NaN}}]}'
)
_COLUMNS: Final = b'{"columns":{"features":{"x":[1,1e400],"y":["a",null]},"id":["a","b"],"prediction":[0.5,"c"]}}'
_LABELS: Final = (
    b'{"model":"m","labels":[{"id":"a","label":1,"prediction":{"yes":0.9}},{"label":"no","prediction":-1}]}'
)
_ALERT: Final = json.dumps({
    "version": "4", "groupKey": "k", "status": "firing", "receiver": "r", "groupLabels": {}, "commonLabels": {},
    "commonAnnotations": {}, "externalURL": "", "truncatedAlerts": 0, "alerts": [{
        "status": "firing", "labels": {"alertname": "a"}, "annotations": {}, "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "f",
    }],
}).encode()  # fmt: skip

TARGETS: Final = {
    "samples": Target(_body(decode.decode, "application/json"), (_ROWS, _COLUMNS, b'{"features":{}}')),
    "sample-lines": Target(_body(decode.decode, "application/x-ndjson"), (b'{"features":{"x":1}}\n\n{"model":"m"}\n',)),
    "labels": Target(
        _body(decode.decode_labels, "application/json"), (_LABELS, b'{"columns":{"id":["a",null],"label":[1,"no"]}}')
    ),
    "label-lines": Target(_body(decode.decode_labels, "application/x-ndjson"), (b'{"id":"a","label":1}\n',)),
    "gzip": Target(_gzip, (gzip.compress(_ROWS, mtime=0), gzip.compress(b"", mtime=0) * 2)),
    "negotiation": Target(
        _negotiation, (b"application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", b"gzip;q=0, br")
    ),
    "authorization": Target(_authorization, (b"Basic YTpi", b"Bearer 0123456789abcdef")),
    "notification": Target(_alert, (_ALERT,)),
    "baseline": Target(_baseline, (baseline.encode(_PROFILE),)),
    "state": Target(_state, (_MAGIC + persistence.encode(_lives(_PROFILE).state())[len(_MAGIC) + 32 :],)),
    "config": Target(
        _text(config.parse), (b"models:\n  - &a {name: m, version: '1'}\nwindows: [1h, 24h]\nlimits: {}\n",)
    ),
    "web-config": Target(_text(web_config.checked), (b"basic_auth_users: {}\nbearer_tokens: [{name: a, token: b}]\n",)),
    "trigger-config": Target(_text(trigger_config.parse), (b"actions: {}\nroutes: []\n",)),
    "recorded-lines": Target(_recorded(".jsonl"), (b'{"x":1,"prediction":0.5}\n{"x":null}\n',)),
    "recorded-csv": Target(_recorded(".csv"), (b'x,"y"\n1,a\n,"b""c"\n',)),
}


def together() -> Target:
    """All targets in one: the first byte says which."""
    targets = list(TARGETS.values())

    def run(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)].run(data[1:])

    seeds = [bytes([number]) + seed for number, target in enumerate(targets) for seed in target.seeds]
    return Target(run, seeds)
