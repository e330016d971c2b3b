"""`mlexporter baseline`: build a baseline from a data file, and show one."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from mlexporter.baseline import Baseline, BaselineError, CategoricalColumn, NumericColumn, encode, read
from mlexporter.builder import Progress, build
from mlexporter.config import Config, ConfigError, DataConfig, DetectionConfig, ModelConfig, load
from mlexporter.dataset import Dataset, DatasetError, open_dataset
from mlexporter.scalars import parse_size, shown
from mlexporter.show import render, warnings
from mlexporter.show_alarm import alarm_table
from mlexporter.timezones import zone_of

_PASSES: Final = ("Reading", "Counting", "By the hour")


@click.group("baseline")
def baseline_group() -> None:
    """Build and show baselines."""


def _size(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}; accepted are bytes, or a number with kB, MB, GB, KiB, MiB or GiB"
        ) from error


def _zone(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return zone_of(value).key if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _column_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field that a column may stand for."""
    for field in reversed(DataConfig.__struct_fields__):
        name = field.removesuffix("_seconds")
        text = f"The column that holds {field}, if it is called otherwise."
        command = click.option(f"--{name}-column", f"data_{field}", metavar="NAME", help=text)(command)
    return command


_PATH = click.Path(path_type=Path)


@baseline_group.command("build")
@click.argument("data", type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, metavar="FILE", help="The baseline file to write.")
@click.option("--config.file", "config_file", type=_PATH, metavar="FILE", help="Take types and names from this file.")
@click.option("--model", metavar="NAME", help="The model that the baseline is of.")
@click.option("--version", metavar="V", help="The version of the model.")
@_column_options
@click.option(
    "--timezone",
    "given_zone",
    callback=_zone,
    metavar="NAME",
    help="Time zone of hours and days, and of times that say none, such as Europe/Berlin.  [default: UTC]",
)
@click.option(
    "--memory-limit", callback=_size, default="1GiB", show_default=True, help="Beyond it edges are approximate."
)
def build_command(
    data: Path,
    output: Path,
    config_file: Path | None,
    model: str | None,
    version: str | None,
    given_zone: str | None,
    memory_limit: int,
    **columns: str | None,
) -> None:
    """Build a baseline from DATA: a CSV, JSONL or Parquet file.

    Every column is a feature, but for prediction, confidence, label, id, version and latency_seconds.
    """
    with _for_people():
        settings = load(config_file) if config_file is not None else Config()
        config = _model_of(config_file, settings, model, version)
        zone = given_zone or settings.detection.timezone
        names = msgspec.structs.replace(
            config.data,
            **{name.removeprefix("data_"): column for name, column in columns.items() if column is not None},
        )
        if names.time is None and given_zone is not None:
            raise click.UsageError("--timezone is of use with --time-column only; name the column of the times")
        dataset = open_dataset(data, names, zone_of(zone))
        _check_output(data, output)
        with _bars(dataset) as progress:
            baseline = build(
                dataset,
                model=model or config.name or None,
                version=version or config.version,
                settings=config.columns,
                timezone=zone,
                memory_limit=memory_limit,
                progress=progress,
            )
        _write(output, encode(baseline))
    there = {column.name for column in baseline.columns}
    absent = [
        f"the configuration names column {shown(c)}, which is not in {data}" for c in config.columns if c not in there
    ]
    _summarize(output, baseline, [*dataset.warnings, *absent, *warnings(baseline)])
    if dataset.timed:
        click.echo("\n".join(alarm_table(baseline, settings.detection, config.columns)))


@baseline_group.command("show")
@click.argument("file", type=_PATH)
def show_command(file: Path) -> None:
    """Show the baseline in FILE as a table."""
    with _for_people():
        baseline = read(file)
        click.echo(render(baseline), nl=False)
    click.echo("\nalarm: tolerances as Kullback-Leibler divergence, without a configuration")
    click.echo("\n".join(alarm_table(baseline, DetectionConfig(), {})))


@contextmanager
def _for_people() -> Iterator[None]:
    """Expected errors as a line, without a traceback, and exit code 1."""
    try:
        yield
    except (BaselineError, ConfigError, DatasetError) as error:
        raise click.ClickException(str(error)) from error


def _model_of(path: Path | None, settings: Config, name: str | None, version: str | None) -> ModelConfig:
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


def _check_output(data: Path, output: Path) -> None:
    if output.exists():
        if output.samefile(data):
            raise click.ClickException(f"{output}: is the data itself; give another file to write")
        if not output.is_file():
            raise click.ClickException(f"{output}: is no regular file; give the name of a file to write")
    elif not output.parent.is_dir():
        raise click.ClickException(f"{output}: there is no folder {output.parent}; make it first")


def _write(output: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    output = output.resolve()
    draft = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from error


@contextmanager
def _bars(dataset: Dataset) -> Iterator[Progress | None]:
    """A progress bar on standard error for each pass over the file, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    bars: dict[int, Any] = {}

    def progress(number: int, units: int) -> None:
        if number not in bars:
            _finish(bars)
            label = _PASSES[number - 1]
            bars[number] = click.progressbar(length=dataset.units, label=label, file=sys.stderr)
            bars[number].render_progress()
        bars[number].update(units)

    try:
        yield progress
    finally:
        _finish(bars)


def _finish(bars: dict[int, Any]) -> None:
    for bar in bars.values():
        bar.render_finish()


def _summarize(output: Path, baseline: Baseline, notes: list[str]) -> None:
    numeric = sum(isinstance(column, NumericColumn) for column in baseline.columns)
    boolean = sum(isinstance(column, CategoricalColumn) and column.boolean for column in baseline.columns)
    kinds = {"numeric": numeric, "categorical": len(baseline.columns) - numeric - boolean, "boolean": boolean}
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    total = len(baseline.columns)
    click.echo(
        f"{output}: {baseline.rows:,} rows, {total} column{'s' * (total != 1)} ({listed}), hash {baseline.hash}",
        err=True,
    )
    for note in notes:
        click.echo(f"warning: {note}", err=True)
