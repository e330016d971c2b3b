"""Configuration: a strict YAML file read into frozen structs, with every mistake in it reported at once.

Durations are seconds and sizes are bytes once read. What each setting means stands in docs/configuration.md.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import msgspec

from mlexporter import scalars
from mlexporter.config_document import ConfigError, ConfigProblem, Document, KeyPath, key_path
from mlexporter.outcome_profile import MAX_CLASSES
from mlexporter.scalars import Scalar, format_duration, shown
from mlexporter.strict_yaml import MAX_SIZE, Items, read
from mlexporter.timezones import ZONES, zone_of

__all__ = [
    "UNVERSIONED",
    "ColumnConfig",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "DataConfig",
    "DetectionConfig",
    "DiscoveryConfig",
    "LabelStoreConfig",
    "LabelsConfig",
    "LimitsConfig",
    "ModelConfig",
    "PredictionConfig",
    "Window",
    "default",
    "load",
    "parse",
    "text_of",
]

UNVERSIONED: Final = "unversioned"
"""The version of a model that is given none, and of samples of it that carry none."""

Task = Literal["binary", "multiclass", "regression"]
ColumnType = Literal["numeric", "categorical", "boolean"]

_Text = Annotated[str, scalars.text(1, 128)]
_ColumnName = Annotated[str, scalars.text(1, 256)]
_ClassName = Annotated[str, scalars.text(1, 256)]


class Window(msgspec.Struct, frozen=True):
    """A span of time up to now; `label` is the value of the metrics' label ``window``, such as "24h"."""

    seconds: float
    label: str


def _window() -> Scalar[Window]:
    span = scalars.duration("1m", "31d")

    def parse(value: str) -> Window:
        seconds = span.parse(value)
        padded = re.search(r"(?<![0-9])0", value)  # 01h, 1h0m
        return Window(seconds, format_duration(seconds) if padded else value)

    return Scalar(parse, span.accepts)


class PredictionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How predictions are read.

    Attributes:
        classes: as text; of a binary model the negative one and the positive one, of another those to be told apart.
        threshold: the score from which on a binary model says the positive class.

    """

    classes: Annotated[tuple[_ClassName, ...], Items(2, MAX_CLASSES)] | None = None
    threshold: Annotated[float, scalars.number(0, 1)] | None = None


class LabelsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How true labels are joined: `horizon` is how long, in seconds, a prediction waits for its label."""

    horizon: Annotated[float, scalars.duration("1m", "365d")] = 7 * 86400.0


class LabelStoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the predictions of all models wait for their labels.

    Attributes:
        store: URL of a Redis server that replicas share, perhaps with a password; None is a file or the memory of this
            process.
        max_rows: predictions that wait at most; the oldest ones make room.

    """

    store: Annotated[str, scalars.store_url()] | None = None
    max_rows: Annotated[int, scalars.whole(1000, 100_000_000)] = 1_000_000


def _timezone() -> Scalar[str]:
    return Scalar(lambda value: zone_of(value).key, ZONES, spoken=True)


class ColumnConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one column, where the baseline's own answer will not do.

    Attributes:
        type: of its values.
        export_names: whether categories keep their names when exported.
        warn_tolerance, page_tolerance: drift that its alarm accepts, as Kullback-Leibler divergence.
        season: whether it is held against the profile of the hour.
        timezone: in which its hours are told.

    """

    type: ColumnType | None = None
    export_names: bool = True
    warn_tolerance: Annotated[float, scalars.number(0, 10)] | None = None
    page_tolerance: Annotated[float, scalars.number(0, 10)] | None = None
    season: bool | None = None
    timezone: Annotated[str, _timezone()] | None = None


class DataConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the columns of recorded data are called where they do not have the name of the field; None where they do.

    But no column is the `time` of the rows unless it is named.
    """

    prediction: _ColumnName | None = None
    label: _ColumnName | None = None
    id: _ColumnName | None = None
    version: _ColumnName | None = None
    latency_seconds: _ColumnName | None = None
    time: _ColumnName | None = None


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one model. A relative `baseline` has been resolved against the folder of the file."""

    name: _Text
    version: _Text | None = None
    task: Task | None = None
    baseline: Annotated[Path, scalars.path()] | None = None
    prediction: PredictionConfig = PredictionConfig()
    labels: LabelsConfig = LabelsConfig()
    columns: dict[_ColumnName, ColumnConfig] = {}
    data: DataConfig = DataConfig()


class DetectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The drift alarm: seconds between false alarms; the drift that is accepted, as Kullback-Leibler divergence; and
    the time zone of seasons, where none is said elsewhere.
    """

    false_alarm_every: Annotated[float, scalars.duration("1h", "3650d")] = 30 * 86400.0
    warn_tolerance: Annotated[float, scalars.number(0, 1)] = 0.001
    page_tolerance: Annotated[float, scalars.number(0, 1)] = 0.02
    timezone: Annotated[str, _timezone()] = "UTC"


class DiscoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Learning models from their own traffic. `learn_period` is in seconds."""

    enabled: bool = False
    learn_samples: Annotated[int, scalars.whole(200, 1_000_000)] = 2000
    learn_period: Annotated[float, scalars.duration("1s", "90d")] = 86400.0
    max_models: Annotated[int, scalars.whole(1, 1000)] = 8
    max_columns: Annotated[int, scalars.whole(1, 10_000)] = 200


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Caps that keep the exporter, and Prometheus behind it, within bounds."""

    max_body_bytes: Annotated[int, scalars.size("1KiB", "1GiB")] = 16 * 1024**2
    max_series: Annotated[int, scalars.whole(100, 10_000_000)] = 50_000
    max_versions: Annotated[int, scalars.whole(1, 1000)] = 8


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    models: tuple[ModelConfig, ...] = ()
    windows: Annotated[tuple[Annotated[Window, _window()], ...], Items(1, 5)] = (
        Window(3600.0, "1h"),
        Window(86400.0, "24h"),
    )
    detection: DetectionConfig = DetectionConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    labels: LabelStoreConfig = LabelStoreConfig()
    limits: LimitsConfig = LimitsConfig()


def default() -> Config:
    """Return the configuration for no file at all: no models, and whatever comes is learned from its traffic."""
    return Config(discovery=DiscoveryConfig(enabled=True))


def load(path: Path) -> Config:
    """Read the file at `path`. Raises ConfigError, also where there is no such file."""
    return parse(text_of(path), name=str(path), folder=path.parent)


def text_of(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _whole_file(path, f"cannot be read: {reason}") from error
    if len(content) > MAX_SIZE:
        raise _whole_file(path, f"larger than {MAX_SIZE} bytes; no configuration is")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode().rpartition("\n")
        line = before[0].count("\n") + (2 if before[1] else 1)
        message = f"not UTF-8: the byte 0x{content[error.start]:02x}; save the file as UTF-8"
        raise ConfigError(str(path), (ConfigProblem("", line, len(before[2]) + 1, message),)) from error


def parse(text: str, *, name: str, folder: Path = Path()) -> Config:
    """Read `text`; `name` stands before each error, and relative file names start from `folder`.

    Raises ConfigError with every problem that the text has.
    """
    config = _checked(text, name).result()
    models = tuple(
        msgspec.structs.replace(model, baseline=folder / model.baseline) if model.baseline else model
        for model in config.models
    )
    return msgspec.structs.replace(config, models=models)


def refuse(path: Path, problems: Iterable[tuple[KeyPath, str]]) -> NoReturn:
    """Refuse the file at `path` for what was found out after it was read, each with the place of its key.

    Raises ConfigError with all of it.
    """
    document = _checked(text_of(path), str(path))
    for key, message in problems:
        if document.stopped:  # it has changed meanwhile, and is no YAML any more
            break
        document.refuse(key, message)
    document.result()
    raise AssertionError("there was no problem")


def _checked(text: str, name: str) -> Document[Config]:
    document = read(text, Config, name=name)
    if not document.stopped:
        _check_models(document)
        _check_windows(document)
        _check_tolerances(document)
    return document


def _whole_file(path: Path, message: str) -> ConfigError:
    return ConfigError(str(path), (ConfigProblem("", 0, 0, message),))


def _check_models(document: Document[Config]) -> None:
    first: dict[tuple[str, str], KeyPath] = {}
    for model in document.items(("models",)):
        _check_baseline(document, model)
        _check_threshold(document, model)
        _check_classes(document, model)
        _check_data(document, model)
        _check_column_tolerances(document, model)
        name, version = document.get((*model, "name")), document.get((*model, "version")) or UNVERSIONED
        if name is None or document.failed((*model, "version")):
            continue
        if (before := first.setdefault((name, version), model)) != model:
            which = f"{shown(name)}, version {shown(version)},"
            message = f"{which} is {key_path(before)} already; each entry needs another"
            document.refuse((*model, "name"), message)


def _check_baseline(document: Document[Config], model: KeyPath) -> None:
    section: KeyPath = ("discovery",)
    enabled = document.get((*section, "enabled"))
    if enabled or (enabled is None and document.failed(section)):  # perhaps it is meant to be on, but misspelt
        return
    path = (*model, "baseline")
    if document.is_mapping(model) and document.get(path) is None and not document.failed(path):
        document.refuse(
            path,
            "missing, and discovery is off; give a file that `mlexporter baseline build` has written, "
            "or set discovery.enabled: true to learn one from the model's traffic",
        )


def _check_threshold(document: Document[Config], model: KeyPath) -> None:
    path = (*model, "prediction", "threshold")
    task = document.get((*model, "task"))
    if document.get(path) is not None and task not in (None, "binary"):
        document.refuse(path, f"of no use with task {task}; leave it out, or set task: binary")


def _check_classes(document: Document[Config], model: KeyPath) -> None:
    path = (*model, "prediction", "classes")
    classes: tuple[str, ...] = document.get(path) or ()
    task = document.get((*model, "task"))
    if not classes:
        return
    if task == "regression":
        document.refuse(path, "of no use with task regression; leave it out, or set another task")
    elif task == "binary" and len(classes) != 2:
        message = f"has {len(classes)} classes, and task is binary; name the negative one, then the positive one"
        document.refuse(path, message)
    first: dict[str, int] = {}
    for index, name in enumerate(classes):
        if (before := first.setdefault(name, index)) != index:
            document.refuse((*path, index), f"{shown(name)} is classes[{before}] already; name each class once")


def _check_data(document: Document[Config], model: KeyPath) -> None:
    first: dict[str, str] = {}
    for field in DataConfig.__struct_fields__:
        path = (*model, "data", field)
        column = document.get(path)
        if column is not None and (before := first.setdefault(column, field)) != field:
            document.refuse(path, f"{shown(column)} is the column of {before} already; name another")


def _check_windows(document: Document[Config]) -> None:
    first: dict[float, KeyPath] = {}
    for path in document.items(("windows",)):
        window = document.get(path)
        if window is not None and (before := first.setdefault(window.seconds, path)) != path:
            document.refuse(path, f"{window.label} is {key_path(before)} already; name each window once")


def _check_tolerances(document: Document[Config]) -> None:
    warn, page = ("detection", "warn_tolerance"), ("detection", "page_tolerance")
    if document.failed(warn) or document.failed(page):
        return
    least = document.get(warn, DetectionConfig().warn_tolerance)
    most = document.get(page, DetectionConfig().page_tolerance)
    if least >= most:
        path = page if page in document.places else warn
        document.refuse(
            path, f"page_tolerance {most:g} is not above warn_tolerance {least:g}; pages are for larger drift"
        )


def _check_column_tolerances(document: Document[Config], model: KeyPath) -> None:
    """A column may have both tiers alike, but not a page for less than a warning."""
    section: KeyPath = (*model, "columns")
    for column in [path for path in document.places if path[:-1] == section]:
        warn, page = (*column, "warn_tolerance"), (*column, "page_tolerance")
        least, most = document.get(warn), document.get(page)
        if least is not None and most is not None and least > most:
            document.refuse(page, f"{most:g} is under warn_tolerance, {least:g}; pages are for larger drift")
