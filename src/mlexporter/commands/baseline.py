"""`mlexporter baseline`: build a baseline from a data file, and show one."""

import os
from pathlib import Path
from typing import Final

import click
from msgspec import UNSET

from mlexporter.baseline import Baseline, CategoricalColumn, NumericColumn, encode, read
from mlexporter.builder import build
from mlexporter.commands.recorded import (
    PATH,
    bars,
    checked_zone,
    column_options,
    for_people,
    model_of,
    names_of,
    timezone_option,
)
from mlexporter.config import Config, DetectionConfig, load
from mlexporter.dataset import open_dataset
from mlexporter.outcome_profile import task_of
from mlexporter.profiling import OutcomeProfiler
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


@baseline_group.command("build")
@click.argument("data", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, metavar="FILE", help="The baseline file to write.")
@click.option("--config.file", "config_file", type=PATH, metavar="FILE", help="Take types and names from this file.")
@click.option("--model", metavar="NAME", help="The model that the baseline is of.")
@click.option("--version", metavar="V", help="The version of the model.")
@column_options
@timezone_option
@click.option(
    "--memory-limit", callback=_size, default="1GiB", show_default=True, help="Beyond it edges are approximate."
)
def build_command(
    data: Path,
    output: Path,
    config_file: Path | None,
    model: str | None,
    version: str | None,
    timezone: str | None,
    memory_limit: int,
    **columns: str | None,
) -> None:
    """Build a baseline from DATA: a CSV, JSONL or Parquet file.

    Every column is a feature, but for prediction, confidence, label, id, version and latency_seconds. With a prediction
    and a label in a row, the baseline learns how well the model did, too.
    """
    with for_people():
        settings = load(config_file) if config_file is not None else Config()
        config = model_of(config_file, settings, model, version)
        names = names_of(config.data, columns)
        zone = checked_zone(timezone, settings, names)
        dataset = open_dataset(data, names, zone_of(zone))
        _check_output(data, output)
        with bars(dataset, _PASSES) as progress:
            baseline = build(
                dataset,
                model=model or config.name or None,
                version=version or config.version,
                settings=config.columns,
                timezone=zone,
                memory_limit=memory_limit,
                progress=progress,
                outcomes=OutcomeProfiler(config.task, config.prediction.classes, config.prediction.threshold),
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
@click.argument("file", type=PATH)
def show_command(file: Path) -> None:
    """Show the baseline in FILE as a table."""
    with for_people():
        baseline = read(file)
        click.echo(render(baseline), nl=False)
    click.echo("\nalarm: tolerances as Kullback-Leibler divergence, without a configuration")
    click.echo("\n".join(alarm_table(baseline, DetectionConfig(), {})))


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


def _summarize(output: Path, baseline: Baseline, notes: list[str]) -> None:
    numeric = sum(isinstance(column, NumericColumn) for column in baseline.columns)
    boolean = sum(isinstance(column, CategoricalColumn) and column.boolean for column in baseline.columns)
    kinds = {"numeric": numeric, "categorical": len(baseline.columns) - numeric - boolean, "boolean": boolean}
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    total = len(baseline.columns)
    parts = [f"{baseline.rows:,} rows", f"{total} column{'s' * (total != 1)} ({listed})"]
    if baseline.outcomes is not UNSET:
        parts.append(f"outcomes of {baseline.outcomes.rows:,} rows ({task_of(baseline.outcomes)})")
    click.echo(f"{output}: {', '.join(parts)}, hash {baseline.hash}", err=True)
    for note in notes:
        click.echo(f"warning: {note}", err=True)
