"""What the commands on recorded data have in common: options, names of columns, errors for people, progress bars."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from mlexporter.baseline import BaselineError
from mlexporter.config import Config, ConfigError, DataConfig, ModelConfig
from mlexporter.dataset import Dataset, DatasetError
from mlexporter.timezones import zone_of

PATH = click.Path(path_type=Path)

_HELP = {"time": "The column that holds the time of a row: ISO 8601, or Unix time."}


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field that a column may stand for."""
    for field in reversed(DataConfig.__struct_fields__):
        name = field.removesuffix("_seconds")
        text = _HELP.get(field, f"The column that holds {field}, if it is called otherwise.")
        command = click.option(f"--{name}-column", f"data_{field}", metavar="NAME", help=text)(command)
    return command


def _zone(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return zone_of(value).key if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


timezone_option = click.option(
    "--timezone",
    callback=_zone,
    metavar="NAME",
    help="Time zone of hours and days, and of times that say none, such as Europe/Berlin.  [default: UTC]",
)


def names_of(data: DataConfig, options: dict[str, str | None]) -> DataConfig:
    """The names of columns: those of the options, else those of the configuration."""
    given = {name.removeprefix("data_"): column for name, column in options.items() if column is not None}
    return msgspec.structs.replace(data, **given)


def checked_zone(given: str | None, settings: Config, names: DataConfig) -> str:
    """The time zone to go by; one that is given is of no use without times."""
    if names.time is None and given is not None:
        raise click.UsageError("--timezone is of use with --time-column only; name the column of the times")
    return given or settings.detection.timezone


def model_of(path: Path | None, settings: Config, name: str | None, version: str | None) -> ModelConfig:
    """What the configuration says of the model; nothing where there is none."""
    models = settings.models
    if not models:
        return ModelConfig(name=name or "")
    fitting = [
        model
        for model in models
        if name in (None, model.name) and (version is None or model.version in (None, version))
    ]
    # an entry of the very version goes before one that stands for all
    exact = [model for model in fitting if version is not None and model.version == version]
    fitting = exact or fitting
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(f"{m.name} {m.version}" if m.version is not None else m.name for m in models)
    if fitting:
        raise click.ClickException(f"{path}: several models ({there}); choose one with --model and --version")
    wanted = " ".join(filter(None, (name, version)))
    raise click.ClickException(f"{path}: no model {wanted}; there are {there}")


@contextmanager
def for_people() -> Iterator[None]:
    """Expected errors as a line, without a traceback, and exit code 1."""
    try:
        yield
    except (BaselineError, ConfigError, DatasetError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def bars(dataset: Dataset, labels: Sequence[str]) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error for each pass over the file, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    shown: dict[int, Any] = {}

    def progress(number: int, units: int) -> None:
        if number not in shown:
            _finish(shown)
            shown[number] = click.progressbar(length=dataset.units, label=labels[number - 1], file=sys.stderr)
            shown[number].render_progress()
        shown[number].update(units)

    try:
        yield progress
    finally:
        _finish(shown)


def _finish(shown: dict[int, Any]) -> None:
    for bar in shown.values():
        bar.render_finish()
