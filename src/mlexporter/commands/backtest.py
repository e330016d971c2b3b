"""`mlexporter backtest`: what the drift alarm would have said of recorded samples."""

from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

import click
import msgspec

from mlexporter.backtest import Backtest, Change
from mlexporter.baseline import Baseline, Column, NumericColumn, read
from mlexporter.columns import ColumnType
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
from mlexporter.config import ColumnConfig, Config, LimitsConfig, ModelConfig, load
from mlexporter.dataset import open_dataset
from mlexporter.expectation import TIERS
from mlexporter.scalars import shown
from mlexporter.terminal import aligned, clipped, printable
from mlexporter.timezones import zone_of

ROWS_PER_TICK: Final = 200
# The baseline's own names may be such as no request can carry.
_NAME: Final = "backtest"
_LONGEST_NAME: Final = 32
_NO_LIMIT: Final = 1 << 30
_HEADINGS: Final = (
    f"{'tick':>8}  {'time':<19}  {'rows':>12}  {'role':<10}  {'column':<{_LONGEST_NAME}}  tier  {'state':<8}"
    f"  {'evidence':>8}  {'PSI':>7}"
)


@click.command("backtest")
@click.argument("data", type=PATH)
@click.option(
    "--baseline", "baseline_file", required=True, type=PATH, metavar="FILE", help="What to hold DATA against."
)
@click.option(
    "--rows-per-tick",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Rows that make a tick, where no time is recorded.  [default: {ROWS_PER_TICK}]",
)
@click.option("--config.file", "config_file", type=PATH, metavar="FILE", help="Tolerances and columns from this file.")
@click.option("--model", metavar="NAME", help="The model whose columns the configuration describes.")
@click.option("--version", metavar="V", help="The version of the model.")
@column_options
@timezone_option
@click.option("--json", "as_json", is_flag=True, help="An object a line for each change, for machines.")
def backtest_command(
    data: Path,
    baseline_file: Path,
    rows_per_tick: int | None,
    config_file: Path | None,
    model: str | None,
    version: str | None,
    timezone: str | None,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Replay recorded samples through the drift alarm: when it would have warned, paged and cleared.

    DATA is a CSV, JSONL or Parquet file, its rows in the order of time. With --time-column a tick is 15 seconds of the
    recorded time; without, it is --rows-per-tick rows.
    """
    with for_people():
        settings = load(config_file) if config_file is not None else Config()
        own = model_of(config_file, settings, model, version)
        names = names_of(own.data, columns)
        zone = zone_of(checked_zone(timezone, settings, names))
        if names.time is None:
            rows_per_tick = rows_per_tick or ROWS_PER_TICK
        elif rows_per_tick is not None:
            raise click.UsageError("--rows-per-tick and a time column exclude each other; give one")
        dataset = open_dataset(data, names, zone)
        baseline = read(baseline_file)
        own, notes = _without_hours(own, baseline) if rows_per_tick is not None else (own, [])
        backtest = Backtest(_config(settings, own, baseline), baseline)
        types = {column.name: _type(column) for column in baseline.columns}
        with bars(dataset, ["Replaying"]) as progress:
            step = None if progress is None else lambda units: progress(1, units)
            changes = backtest.replay(dataset, types, rows_per_tick, step)
            for line in _json_lines(changes, zone) if as_json else _lines(changes, zone):
                click.echo(line)
    if backtest.totals.rows and not backtest.totals.ticks:
        raise click.ClickException(f"{data}: no row has a time, so there is nothing to go by; leave out --time-column")
    for note in [*notes, *dataset.warnings, *_notes(backtest, baseline)]:
        click.echo(f"warning: {note}", err=True)
    if not as_json:
        click.echo("\n".join(["", *_summary(backtest)]))


def _config(settings: Config, own: ModelConfig, baseline: Baseline) -> Config:
    """The configuration of an exporter that has this model alone."""
    model = msgspec.structs.replace(own, name=_NAME, version=None, baseline=None)
    limits = LimitsConfig(max_body_bytes=_NO_LIMIT, max_series=_NO_LIMIT)
    return msgspec.structs.replace(settings, models=(model,), limits=limits)


def _without_hours(own: ModelConfig, baseline: Baseline) -> tuple[ModelConfig, list[str]]:
    """Without recorded time no column can be held against the profile of an hour."""
    seasonal = [column.name for column in baseline.columns if column.season is not None]
    if not seasonal:
        return own, []
    columns = {
        name: msgspec.structs.replace(own.columns.get(name, ColumnConfig()), season=False)
        for name in [*own.columns, *seasonal]
    }
    note = (
        f"the season of {shown(seasonal[0])}{f' and {len(seasonal) - 1} more' if len(seasonal) > 1 else ''} needs the "
        "time of each row; without --time-column it is left out, and the whole day stands in"
    )
    return msgspec.structs.replace(own, columns=columns), [note]


def _type(column: Column) -> ColumnType:
    if isinstance(column, NumericColumn):
        return "numeric"
    return "boolean" if column.boolean else "categorical"


def _json_lines(changes: Iterator[Change], zone: tzinfo) -> Iterator[str]:
    for change in changes:
        content = msgspec.structs.asdict(change) | {"time": _iso(change.time, zone, "T")}
        yield msgspec.json.encode(content).decode()


def _iso(time: float | None, zone: tzinfo, separator: str) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, zone).isoformat(separator, "seconds")


def _lines(changes: Iterator[Change], zone: tzinfo) -> Iterator[str]:
    """The timeline for people."""
    yield _HEADINGS
    for change in changes:
        time = (_iso(change.time, zone, " ") or "-")[:19]
        name = clipped(printable(change.column), _LONGEST_NAME)
        psi = "-" if change.psi is None else f"{change.psi:.3f}"
        yield (
            f"{change.tick:>8}  {time:<19}  {change.rows:>12,}  {change.role:<10}  {name:<{_LONGEST_NAME}}  "
            f"{change.tier}  {change.state:<8}  {change.log_evidence:>8.2f}  {psi:>7}"
        )


def _notes(backtest: Backtest, baseline: Baseline) -> Iterator[str]:
    totals = backtest.totals
    if totals.late:
        yield (
            f"{totals.late:,} rows have no time, or one before that of a row above them; they count when they come. Is "
            "the file in the order of time?"
        )
    if totals.rejected:
        yield f"{totals.rejected:,} rows were refused, as the exporter would have refused them"
    absent = [column.name for column in baseline.columns if (column.role, column.name) not in backtest.seen]
    if absent:
        which = shown(absent[0]) + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
        yield f"not in the data, and counted as missing: {which} of the baseline's columns"


def _summary(backtest: Backtest) -> Iterator[str]:
    """What became of each column that alarmed."""
    totals = backtest.totals
    duration = "" if not totals.ticks else f" in {totals.ticks:,} ticks with samples"
    yield (
        f"{totals.rows:,} rows{duration}, {len(backtest.columns)} columns; an alarm goes on at an evidence of "
        f"{backtest.log_threshold:.2f}"
    )
    rows = [
        (
            column.role.value,
            clipped(printable(column.name), _LONGEST_NAME),
            tier,
            f"{totals.alarms[t, i]:,}",
            f"{totals.firing[t, i] / totals.ticks:.1%}",
        )
        for i, column in enumerate(backtest.columns)
        for t, tier in enumerate(TIERS)
        if totals.alarms[t, i]
    ]
    if rows:
        yield from aligned([("role", "column", "tier", "alarms", "ticks firing"), *sorted(rows)], left=(0, 1, 2))
    else:
        yield "no alarm: it would neither have warned nor paged"
